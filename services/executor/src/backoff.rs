//! Waiting longer after each failure.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(2);

/// Doubling delays from 20 ms to 2 s, each spread over half of itself.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let delay = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        delay.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits; false when `token` was cancelled meanwhile.
    pub(crate) async fn wait(&mut self, token: &tokio_util::sync::CancellationToken) -> bool {
        tokio::select! {
            () = token.cancelled() => false,
            () = tokio::time::sleep(self.next()) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_bound() {
        let mut backoff = Backoff::default();
        let delays: Vec<Duration> = (0..40).map(|_| backoff.next()).collect();
        assert!(delays[0] <= FIRST && delays[0] >= FIRST / 2);
        assert!(delays.iter().all(|d| *d <= LONGEST));
        assert!(delays[39] >= LONGEST / 2);
    }
}
