//! Rates: `60/m` lets one task start each second.

use crate::clock::Millis;

/// A token bucket. It holds what one second gives, at least one token: a rate a minute or an hour is spread evenly, not spent at once.
#[derive(Clone, Debug)]
pub struct Bucket {
    per_ms: f64,
    size: f64,
    tokens: f64,
    at: Millis,
}

impl Bucket {
    /// `count` tokens each `period` milliseconds, full at `now`.
    pub fn new(count: u32, period: Millis, now: Millis) -> Self {
        let per_ms = f64::from(count) / period.max(1) as f64;
        let size = (per_ms * 1000.0).max(1.0);
        Self { per_ms, size, tokens: size, at: now }
    }

    fn refill(&mut self, now: Millis) {
        let gained = now.saturating_sub(self.at) as f64 * self.per_ms;
        self.tokens = (self.tokens + gained).min(self.size);
        self.at = self.at.max(now);
    }

    /// Whole tokens there now.
    pub fn available(&mut self, now: Millis) -> u32 {
        self.refill(now);
        // The difference that adding fractions makes must not cost a token.
        (self.tokens + 1e-6) as u32
    }

    /// Takes a token; false: there is none.
    pub fn take(&mut self, now: Millis) -> bool {
        if self.available(now) == 0 {
            return false;
        }
        self.tokens = (self.tokens - 1.0).max(0.0);
        true
    }

    /// When the next token is there.
    pub fn next_at(&mut self, now: Millis) -> Millis {
        if self.available(now) > 0 {
            return now;
        }
        let wait = ((1.0 - self.tokens) / self.per_ms).ceil() as u64;
        now.saturating_add(wait.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_rate_is_spread_over_the_minute() {
        let mut bucket = Bucket::new(60, 60_000, 0);
        assert!(bucket.take(0));
        assert!(!bucket.take(0));
        assert_eq!(bucket.next_at(0), 1_000);
        assert!(!bucket.take(999));
        assert!(bucket.take(1_000));
        let taken = (1_000..61_000).filter(|now| bucket.take(*now)).count();
        assert!((59..=60).contains(&taken), "{taken}");
    }

    #[test]
    fn a_second_rate_may_come_at_once() {
        let mut bucket = Bucket::new(5, 1_000, 0);
        assert_eq!((0..10).filter(|_| bucket.take(0)).count(), 5);
        assert_eq!(bucket.available(100_000), 5);
    }
}
