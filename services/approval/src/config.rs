//! The section `[approval]` of the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use troupe_domain::Fault;

/// Settings of the approval service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Requests in one call of RequestApprovals.
    pub max_batch: usize,
    /// Bytes of what is shown, of the editable values, and of an answer or edit; each.
    pub max_payload_bytes: usize,
    /// Bytes of a decision's comment.
    pub max_comment_bytes: usize,
    /// Names in a request's list of approvers.
    pub max_approvers: usize,
    /// Outcomes on their way to the executor at once.
    pub delivery_concurrency: usize,
    /// Milliseconds that the executor has for answering one delivery.
    pub delivery_timeout_ms: u64,
    /// Milliseconds before a failed delivery is tried again; doubles with each failure.
    pub delivery_backoff_min_ms: u64,
    /// The most milliseconds between two tries of a delivery.
    pub delivery_backoff_max_ms: u64,
    /// Milliseconds between two looks at whether the runs of some pending requests still wait for them; 0: never.
    pub check_ms: u64,
    /// A database in which several replicas of the service keep the requests together.
    pub postgres: troupe_postgres::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_batch: 10_000,
            max_payload_bytes: 4 << 20,
            max_comment_bytes: 8 << 10,
            max_approvers: 100,
            delivery_concurrency: 64,
            delivery_timeout_ms: 10_000,
            delivery_backoff_min_ms: 100,
            delivery_backoff_max_ms: 30_000,
            check_ms: 10_000,
            postgres: troupe_postgres::Config::default(),
        }
    }
}

impl Config {
    /// All mistakes at once; none: the settings can be used.
    pub fn validate(&self) -> Vec<Fault> {
        let positive = [
            ("approval.max_batch", self.max_batch),
            ("approval.max_payload_bytes", self.max_payload_bytes),
            ("approval.max_approvers", self.max_approvers),
            ("approval.delivery_concurrency", self.delivery_concurrency),
            ("approval.delivery_timeout_ms", usize::try_from(self.delivery_timeout_ms).unwrap_or(usize::MAX)),
            ("approval.delivery_backoff_min_ms", usize::try_from(self.delivery_backoff_min_ms).unwrap_or(usize::MAX)),
        ];
        let mut faults: Vec<Fault> =
            positive.iter().filter(|(_, n)| *n == 0).map(|(path, _)| Fault::at(*path, "must be at least 1")).collect();
        if self.delivery_backoff_max_ms < self.delivery_backoff_min_ms {
            let fault = Fault::at("approval.delivery_backoff_max_ms", "is less than delivery_backoff_min_ms");
            faults.push(fault.help("make it the same or more"));
        }
        faults.extend(self.postgres.validate().into_iter().map(|fault| Fault { path: format!("approval.{}", fault.path), ..fault }));
        faults
    }

    pub(crate) fn check(&self) -> Option<Duration> {
        (self.check_ms > 0).then(|| Duration::from_millis(self.check_ms))
    }

    pub(crate) fn delivery_timeout(&self) -> Duration {
        Duration::from_millis(self.delivery_timeout_ms)
    }

    /// The pause after `attempts` failed deliveries.
    pub(crate) fn backoff(&self, attempts: u32) -> Duration {
        let (first, longest) = (Duration::from_millis(self.delivery_backoff_min_ms), Duration::from_millis(self.delivery_backoff_max_ms));
        troupe_wire::backoff::delay(first, longest, attempts.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_mistakes_are_told_together() {
        assert!(Config::default().validate().is_empty());
        let bad = Config { max_batch: 0, delivery_backoff_max_ms: 1, ..Config::default() };
        assert_eq!(bad.validate().len(), 2);
    }

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        let config = Config::default();
        assert_eq!([1, 2, 3, 60].map(|n| config.backoff(n).as_millis()), [100, 200, 400, 30_000]);
    }
}
