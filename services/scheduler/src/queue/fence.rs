//! Fencing numbers: a later delivery always has the greater one.

use crate::clock::Millis;

/// Bits below the milliseconds: a million deliveries a millisecond before the numbers run ahead of the clock.
const COUNTER_BITS: u32 = 20;

/// Gives strictly growing numbers that also grow over restarts, as long as the wall clock does not go back over one.
#[derive(Debug, Default)]
pub struct Fences {
    last: u64,
}

impl Fences {
    /// Greater than all before, and than `floor`.
    pub fn next(&mut self, now: Millis, floor: u64) -> u64 {
        self.last = (now << COUNTER_BITS).max(self.last + 1).max(floor.saturating_add(1));
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
