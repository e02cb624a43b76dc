//! Names of this service's metrics.

/// Counter: requests stored; a repeated one is not counted.
pub const REQUESTS: &str = "approval_requests_total";
/// Counter by `decision` (approved, rejected, answered, expired, escalated, withdrawn).
pub const DECISIONS: &str = "approval_decisions_total";
/// Gauge: requests that wait for a decision; with replicas counted every `check_ms`.
pub const PENDING: &str = "approval_pending";
/// Counter by `outcome` (applied, ignored, unknown_run, failed): calls of the executor.
pub const DELIVERIES: &str = "approval_delivery_attempts_total";

/// Tells the recorder what they mean.
pub(crate) fn describe() {
    metrics::describe_counter!(REQUESTS, "requests stored");
    metrics::describe_counter!(DECISIONS, "requests settled or escalated, by decision");
    metrics::describe_gauge!(PENDING, "requests that wait for a decision");
    metrics::describe_counter!(DELIVERIES, "calls that tell the executor an outcome, by outcome");
}
