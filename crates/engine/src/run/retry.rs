//! When an attempt is tried again, and when that may begin.

use crate::{Time, definition::RetryPolicy, event::Failure};
use sha2::{Digest, Sha256};
use std::time::Duration;
use troupe_domain::RunId;

/// The longest time that a failure's `retry_after_ms` can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Whether the policy has another attempt after this failure; `used` counts the attempts so far.
pub(crate) fn again(policy: &RetryPolicy, used: u32, failure: &Failure) -> bool {
    failure.retryable && used < policy.attempts && !policy.except.contains(&failure.code)
}

/// How long to wait after the attempt: exponential, bounded, spread by a hash of task and attempt (so that a replay waits as long), and at
/// least what the failure asks for. `used` counts attempts as [`again`] does.
pub(crate) fn delay(policy: &RetryPolicy, used: u32, failure: &Failure, run: RunId, path: &str, attempt: u32) -> Duration {
    let max = policy.max.as_secs_f64();
    let mut seconds = policy.initial.as_secs_f64();
    for _ in 1..used.min(1_000) {
        if seconds >= max {
            break;
        }
        seconds *= policy.factor;
    }
    let seconds = seconds.min(max) * (1.0 - policy.jitter.clamp(0.0, 1.0) * spread(run, path, attempt));
    let delay = Duration::try_from_secs_f64(seconds).unwrap_or(policy.max);
    // The journal keeps microseconds.
    let delay = Duration::from_micros(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX));
    delay.max(Duration::from_millis(failure.retry_after_ms.unwrap_or(0)).min(MAX_RETRY_AFTER))
}

/// The time after a delay; the end of the calendar where there is none.
pub(crate) fn after(now: Time, delay: Duration) -> Time {
    chrono::Duration::from_std(delay).ok().and_then(|delay| now.checked_add_signed(delay)).unwrap_or(Time::MAX_UTC)
}

/// From 0 to 1, always the same for an attempt.
fn spread(run: RunId, path: &str, attempt: u32) -> f64 {
    let digest = Sha256::digest(format!("{run}/{path}#{attempt}"));
    let bytes = [digest[0], digest[1], digest[2], digest[3]];
    f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(retry_after_ms: Option<u64>) -> Failure {
        Failure { code: "BUSY".into(), message: String::new(), retryable: true, retry_after_ms }
    }

    fn run() -> RunId {
        RunId(uuid::Uuid::nil())
    }

    #[test]
    fn delays_grow_up_to_the_bound() {
        let policy = RetryPolicy {
            jitter: 0.0,
            initial: Duration::from_secs(1),
            factor: 3.0,
            max: Duration::from_secs(10),
            ..RetryPolicy::default()
        };
        let seconds: Vec<u64> = (1..5).map(|used| delay(&policy, used, &failure(None), run(), "a", used).as_secs()).collect();
        assert_eq!(seconds, [1, 3, 9, 10]);
    }

    #[test]
    fn jitter_shortens_and_is_stable() {
        let policy = RetryPolicy { jitter: 0.5, initial: Duration::from_secs(10), ..RetryPolicy::default() };
        let mut seen = std::collections::BTreeSet::new();
        for attempt in 1..50 {
            let wait = delay(&policy, 1, &failure(None), run(), "a", attempt);
            assert!((5.0..=10.0).contains(&wait.as_secs_f64()), "{wait:?}");
            assert_eq!(wait, delay(&policy, 1, &failure(None), run(), "a", attempt));
            seen.insert(wait);
        }
        assert!(seen.len() > 40);
    }

    #[test]
    fn a_failure_can_ask_for_more_time_within_a_day() {
        let policy = RetryPolicy::default();
        assert_eq!(delay(&policy, 1, &failure(Some(90_000)), run(), "a", 1).as_secs(), 90);
        assert_eq!(delay(&policy, 1, &failure(Some(u64::MAX)), run(), "a", 1), MAX_RETRY_AFTER);
        assert_eq!(after(Time::MAX_UTC, MAX_RETRY_AFTER), Time::MAX_UTC);
    }

    #[test]
    fn attempts_codes_and_permanence_stop_it() {
        let policy = RetryPolicy { attempts: 2, except: vec!["NEVER".into()], ..RetryPolicy::default() };
        assert!(again(&policy, 1, &failure(None)));
        assert!(!again(&policy, 2, &failure(None)));
        assert!(!again(&policy, 1, &Failure { code: "NEVER".into(), ..failure(None) }));
        assert!(!again(&policy, 1, &Failure::permanent("BUSY", "")));
    }
}
