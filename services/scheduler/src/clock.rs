//! The scheduler's clock: unix milliseconds on a monotonic source, so that a step of the wall clock neither fires nor holds up timers.

use chrono::Utc;
use prost_types::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

/// Milliseconds since 1970, UTC.
pub type Millis = u64;

/// Reads the wall clock once and counts on from there.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    unix: Millis,
}

impl Clock {
    pub fn new() -> Self {
        Self { origin: Instant::now(), unix: u64::try_from(Utc::now().timestamp_millis()).unwrap_or(0) }
    }

    pub fn now(&self) -> Millis {
        self.unix + troupe_wire::millis(self.origin.elapsed())
    }

    /// When this clock will show `at`; the past is the clock's origin.
    pub fn instant(&self, at: Millis) -> Instant {
        let ahead = Duration::from_millis(at.saturating_sub(self.unix));
        // A moment beyond what the platform counts is as good as a year away: the timer is set anew when it fires.
        self.origin.checked_add(ahead).unwrap_or_else(|| Instant::now() + Duration::from_secs(365 * 24 * 3600))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Unix milliseconds as protobuf has them.
pub fn stamp(at: Millis) -> Timestamp {
    let nanos = i32::try_from(at % 1000).unwrap_or(0) * 1_000_000;
    Timestamp { seconds: i64::try_from(at / 1000).unwrap_or(i64::MAX), nanos }
}

/// `None` for a timestamp that is not there; moments before 1970 are 1970.
pub fn unstamp(at: Option<&Timestamp>) -> Option<Millis> {
    troupe_wire::time(at).map(|time| u64::try_from(time.timestamp_millis()).unwrap_or(0))
}
