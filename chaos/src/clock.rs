//! Moments, as the ledger, the journal and the faults write them down.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970, by this machine's clock, which nobody moves.
pub type Micros = u64;

pub fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    micros(since)
}

pub fn micros(span: Duration) -> Micros {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// Seconds between two moments.
pub fn seconds(from: Micros, to: Micros) -> f64 {
    Duration::from_micros(to.saturating_sub(from)).as_secs_f64()
}
