//! Names of this service's metrics.

/// Gauge: agents that have a definition.
pub const AGENTS: &str = "registry_agents";
/// Gauge: workers' agents that are connected.
pub const INSTANCES: &str = "registry_instances";
/// Counter by `operation` (apply, get, list, delete, set_state, watch, report) and `outcome` (ok, or the error's code).
pub const OPERATIONS: &str = "registry_operations_total";

/// Tells the recorder what they mean.
pub(crate) fn describe() {
    metrics::describe_gauge!(AGENTS, "agents that have a definition");
    metrics::describe_gauge!(INSTANCES, "workers' agents that are connected");
    metrics::describe_counter!(OPERATIONS, "calls by operation and outcome");
}

/// Counts one call.
pub(crate) fn count<T>(operation: &'static str, result: &Result<T, troupe_domain::Error>) {
    let outcome = result.as_ref().err().map_or("ok", |error| error.code.name());
    metrics::counter!(OPERATIONS, "operation" => operation, "outcome" => outcome).increment(1);
}
