//! The names of this service's metrics, and how an operation is measured.

use crate::error::Result;
use std::time::Instant;

/// Counter: calls by `operation`, whatever their outcome.
pub const OPERATIONS: &str = "checkpoint_operations_total";
/// Histogram: seconds from a call's arrival to its answer, by `operation`. Of an append: until it is durable.
pub const DURATION: &str = "checkpoint_duration_seconds";
/// Counter: refused and failed calls by `error_type` (`stale_epoch`, `sequence`, `refused`, `storage`, `unknown`).
pub const ERRORS: &str = "checkpoint_errors_total";
/// Histogram: run writes in one commit of the journal.
pub const BATCH_SIZE: &str = "checkpoint_batch_size";

/// Tells the exporter what the metrics mean. Safe to call again.
pub fn describe() {
    metrics::describe_counter!(OPERATIONS, "Calls to the checkpoint store");
    metrics::describe_histogram!(DURATION, metrics::Unit::Seconds, "Time to answer a call to the checkpoint store");
    metrics::describe_counter!(ERRORS, "Calls that the checkpoint store refused or failed");
    metrics::describe_histogram!(BATCH_SIZE, "Run writes in one commit of the journal");
}

/// Counts a call and its time.
pub async fn measured<T>(operation: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
    let start = Instant::now();
    let result = call.await;
    metrics::counter!(OPERATIONS, "operation" => operation).increment(1);
    metrics::histogram!(DURATION, "operation" => operation).record(start.elapsed().as_secs_f64());
    if let Err(error) = &result {
        metrics::counter!(ERRORS, "error_type" => error.label()).increment(1);
    }
    result
}
