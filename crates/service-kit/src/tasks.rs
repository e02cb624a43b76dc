//! Background tasks of a process: spawned with the span they belong to, told to stop, and waited for.

use std::{future::Future, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

/// Target of the spans of background tasks. They are for logs only: exported, a task of the process's lifetime would be one trace without end.
pub(crate) const SPAN_TARGET: &str = "troupe_task";

/// The tasks of one process or service. Clones share the same set.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a future in the background inside the current span. It should end soon after [`Tasks::cancelled`].
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn<F>(&self, name: &'static str, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.tracker.track_future(future.instrument(tracing::debug_span!(target: SPAN_TARGET, "task", task.name = name))))
    }

    /// Ends when the process is told to stop.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// The token behind [`Tasks::cancelled`].
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Tells every task to stop and waits for them, at most `limit`. False: some did not end in time.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}
