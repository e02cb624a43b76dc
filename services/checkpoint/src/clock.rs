//! The store's clock: leases and retention go by it. A parameter, so that tests can turn it.

use crate::model::Micros;
use std::{fmt, sync::Arc};

/// Tells the time.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> Micros + Send + Sync>,
    turned: bool,
}

impl Clock {
    /// A clock that asks `now` each time.
    pub fn new(now: impl Fn() -> Micros + Send + Sync + 'static) -> Self {
        Self { now: Arc::new(now), turned: true }
    }

    /// The system's clock.
    pub fn system() -> Self {
        Self { turned: false, ..Self::new(|| Micros(chrono::Utc::now().timestamp_micros())) }
    }

    pub fn now(&self) -> Micros {
        (self.now)()
    }

    /// The time of a clock that somebody turns; none of the system's clock: a store that has a clock of its own goes by that one.
    pub fn turned(&self) -> Option<Micros> {
        self.turned.then(|| self.now())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
