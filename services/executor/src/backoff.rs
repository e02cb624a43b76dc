//! Waiting longer after each failure.

use std::time::Duration;
use tokio_util::sync::CancellationToken;

const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(2);

/// Delays from 20 ms to 2 s, which the end of the task cuts short.
#[derive(Debug)]
pub(crate) struct Backoff(troupe_wire::Backoff);

impl Default for Backoff {
    fn default() -> Self {
        Self(troupe_wire::Backoff::new(FIRST, LONGEST))
    }
}

impl Backoff {
    /// With other delays.
    pub(crate) fn between(first: Duration, longest: Duration) -> Self {
        Self(troupe_wire::Backoff::new(first, longest))
    }

    /// The delay after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        self.0.next()
    }

    pub(crate) fn reset(&mut self) {
        self.0.reset();
    }

    /// Waits; false when `token` was cancelled meanwhile.
    pub(crate) async fn wait(&mut self, token: &CancellationToken) -> bool {
        token.run_until_cancelled(self.0.wait()).await.is_some()
    }
}
