//! Time as a parameter: the wall clock, and one that is moved by hand.

use crate::approval::Time;
use async_trait::async_trait;
use chrono::Utc;
use std::time::Duration;
use tokio::sync::watch;

/// Where this service gets the time from.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Time;
    /// Ends when the time is `at` or later.
    async fn sleep_until(&self, at: Time);
}

/// The wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// The longest sleep in one piece, so that a wall clock that was set is noticed.
const PIECE: Duration = Duration::from_secs(30);

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Time {
        Utc::now()
    }

    async fn sleep_until(&self, at: Time) {
        while let Ok(left) = (at - self.now()).to_std()
            && !left.is_zero()
        {
            tokio::time::sleep(left.min(PIECE)).await;
        }
    }
}

/// A clock that stands still until it is moved: for tests and simulation.
#[derive(Debug)]
pub struct ManualClock(watch::Sender<Time>);

impl ManualClock {
    pub fn at(now: Time) -> Self {
        Self(watch::Sender::new(now))
    }

    /// Moves the time forward and wakes who waits for it.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now += by);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Time {
        *self.0.borrow()
    }

    async fn sleep_until(&self, at: Time) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|now| *now >= at).await;
    }
}
