//! Names of the metrics that this service reports.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Runs that ended, by `status`.
pub const EXECUTIONS: &str = "workflow_executions_total";
/// Step instances that succeeded, failed or were skipped.
pub const NODES: &str = "workflow_nodes_executed";
/// Journal entries of one commit.
pub const BATCH_EVENTS: &str = "executor_batch_events";
/// Runs held in memory, by `partition`.
pub const IN_MEMORY: &str = "executor_runs_in_memory";
/// Appends refused because another executor owns the partition.
pub const STALE_APPENDS: &str = "executor_stale_appends_total";
/// Open runs whose pending effects were issued again after a start or a loss.
pub const RECOVERED: &str = "executor_recovered_runs_total";
/// Effects dropped because another service was away too long; they are derived again, by `target`.
pub const EFFECTS_DROPPED: &str = "executor_effects_dropped_total";

/// Partitions that this executor owns.
pub const PARTITIONS: &str = "executor_partitions";
/// What was passed on to the executor that owns the run, by `kind`: start, event, wait, watch.
pub const FORWARDED: &str = "executor_forwarded_total";
/// Partitions taken whose owner had not renewed its lease.
pub const TAKEOVERS: &str = "executor_takeovers_total";
/// Partitions given back so that another executor takes them.
pub const HANDOVERS: &str = "executor_handovers_total";

/// Registers the help texts.
pub(crate) fn describe() {
    describe_counter!(EXECUTIONS, "Runs that ended, by status");
    describe_counter!(NODES, "Step instances that ended");
    describe_histogram!(BATCH_EVENTS, Unit::Count, "Journal entries of one commit");
    describe_gauge!(IN_MEMORY, "Runs held in memory");
    describe_counter!(STALE_APPENDS, "Appends refused because another executor owns the partition");
    describe_gauge!(PARTITIONS, "Partitions that this executor owns");
    describe_counter!(FORWARDED, "Calls passed on to the executor that owns the run, by kind");
    describe_counter!(TAKEOVERS, "Partitions taken whose owner had not renewed its lease");
    describe_counter!(HANDOVERS, "Partitions given back so that another executor takes them");
    describe_counter!(RECOVERED, "Open runs whose pending effects were issued again");
    describe_counter!(EFFECTS_DROPPED, "Effects dropped while a service was away, to be derived again");
}
