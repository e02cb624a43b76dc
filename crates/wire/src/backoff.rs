//! Waiting longer after each failure.

use rand::RngExt;
use std::time::Duration;

/// `first` doubled `failures` times, at most `longest`.
pub fn delay(first: Duration, longest: Duration, failures: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(failures)).min(longest)
}

/// Doubling delays, each spread over its upper half so that those who failed together do not come back together.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The delay after one more failure.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and who iterates over delays has forgotten to wait")]
    pub fn next(&mut self) -> Duration {
        let delay = delay(self.first, self.longest, self.failures);
        self.failures = self.failures.saturating_add(1);
        delay.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Failures since the start or the last reset.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits after one more failure.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_secs(2);

    #[test]
    fn delays_double_up_to_a_bound() {
        let exact = |n| delay(FIRST, LONGEST, n).as_millis();
        assert_eq!([0, 1, 2, 6, 7, u32::MAX].map(exact), [20, 40, 80, 1_280, 2_000, 2_000]);
    }

    #[test]
    fn each_is_spread_over_its_upper_half() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        for n in 0..40 {
            let (all, drawn) = (delay(FIRST, LONGEST, n), backoff.next());
            assert!(all / 2 <= drawn && drawn <= all, "{n}: {drawn:?} of {all:?}");
        }
        backoff.reset();
        assert_eq!(backoff.failures(), 0);
        assert!(backoff.next() <= FIRST);
    }
}
