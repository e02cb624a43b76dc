//! Times and durations on the wire.

use chrono::{DateTime, Utc};
use prost_types::{Duration as WireDuration, Timestamp};
use std::time::Duration;

/// A moment as protobuf has it.
pub fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp { seconds: time.timestamp(), nanos: i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(0) }
}

/// `None` for a timestamp that is not there or outside the calendar.
pub fn time(timestamp: Option<&Timestamp>) -> Option<DateTime<Utc>> {
    let timestamp = timestamp?;
    DateTime::from_timestamp(timestamp.seconds, u32::try_from(timestamp.nanos).ok()?)
}

pub fn duration(span: Duration) -> WireDuration {
    WireDuration { seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX), nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0) }
}

/// `None` for a duration that is not there or negative.
pub fn to_duration(wire: Option<&WireDuration>) -> Option<Duration> {
    let wire = wire?;
    Some(Duration::new(u64::try_from(wire.seconds).ok()?, u32::try_from(wire.nanos).ok()?))
}

/// Whole milliseconds, at most `u64::MAX`.
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
