//! Looking for a run's owner while it changes.

use super::{GRACE, READ, Router};
use crate::backoff::Backoff;
use std::{sync::atomic::Ordering, time::Duration};
use tokio::time::Instant;
use troupe_domain::{Error, Result};

/// How long somebody looks for a run's owner: a little longer than it takes until a lost one is replaced, and no longer than the process
/// works.
pub(crate) struct Search<'a> {
    router: &'a Router,
    begun: Instant,
    pause: Backoff,
}

impl<'a> Search<'a> {
    pub(super) fn begin(router: &'a Router) -> Self {
        let pause = Backoff::between(Duration::from_millis(2), Duration::from_millis(100));
        Self { router, begun: Instant::now(), pause }
    }

    /// Waits until the table was read again. Gives the error back when the time is over, or the process stops.
    pub(crate) async fn again(&mut self, error: Error) -> Result<()> {
        if self.is_over() {
            return Err(error);
        }
        let mut read = self.router.read.subscribe();
        self.router.doubt.notify_one();
        let _ = tokio::time::timeout(READ, read.changed()).await;
        if self.is_over() {
            return Err(error);
        }
        tokio::time::sleep(self.pause.next()).await;
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.begun.elapsed() > self.router.lease + GRACE || self.router.over.load(Ordering::Acquire)
    }

    /// It was found: what is looked for after this has its own time.
    pub(crate) fn found(&mut self) {
        self.begun = Instant::now();
        self.pause.reset();
    }
}
