//! Fencing numbers: a later delivery always has the greater one.

use crate::clock::Millis;

/// Bits below the milliseconds: a million deliveries a millisecond before the numbers run ahead of the clock.
const COUNTER_BITS: u32 = 20;

/// Clocks of schedulers differ by less than this, in milliseconds.
const CLOCKS_DIFFER: Millis = 24 * 3_600_000;

/// Gives strictly growing numbers that also grow over restarts, as long as the wall clock does not go back over one.
#[derive(Debug, Default)]
pub struct Fences {
    last: u64,
}

impl Fences {
    /// Greater than all before, and than `floor`.
    pub fn next(&mut self, now: Millis, floor: u64) -> u64 {
        self.last = (now << COUNTER_BITS).max(self.last.saturating_add(1)).max(floor.saturating_add(1));
        self.last
    }

    /// Whether a scheduler may have given this fence: workers repeat theirs, and a made-up one beyond all others would end their growth.
    pub fn is_plausible(fence: u64, now: Millis) -> bool {
        fence >> COUNTER_BITS <= now.saturating_add(CLOCKS_DIFFER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_from_the_far_future_are_made_up() {
        let now = 1_800_000_000_000;
        assert!(Fences::is_plausible(Fences::default().next(now, 0), now));
        assert!(Fences::is_plausible(7, now));
        assert!(!Fences::is_plausible(u64::MAX, now));
    }

    #[test]
    fn grows_within_a_millisecond_over_restarts_and_over_a_clock_that_stands() {
        let mut fences = Fences::default();
        let first = fences.next(1_000, 0);
        assert!(fences.next(1_000, 0) > first);
        assert!(fences.next(900, 0) > first);
        let last = fences.next(1_001, 0);
        assert!(Fences::default().next(1_002, 0) > last);
        assert!(Fences::default().next(5, last) > last);
    }
}
