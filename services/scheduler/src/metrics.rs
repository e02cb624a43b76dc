//! Names of the metrics, and handles that are looked up once.

use metrics::{Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::{collections::HashMap, time::Duration};

/// Ended deliveries, by `agent_type` and `status` (completed, failed, timeout, deadline, lost, cancelled).
pub const TASKS: &str = "scheduler_tasks_total";
/// Tasks on workers now.
pub const ACTIVE: &str = "scheduler_tasks_active";
/// From assignment to result, seconds, by `agent_type`.
pub const DURATION: &str = "scheduler_task_duration_seconds";
/// By `error_type`.
pub const ERRORS: &str = "scheduler_errors_total";
/// Ready tasks, by `queue`.
pub const QUEUE_DEPTH: &str = "scheduler_queue_depth";
/// Tasks delivered again after a worker or a lease was lost.
pub const REDELIVERIES: &str = "scheduler_redeliveries_total";
/// What workers said of deliveries that something newer, or the end of the step, had overtaken: it was refused.
pub const OVERTAKEN: &str = "scheduler_overtaken_total";
/// Chunks left out because a task sent too many, or nobody could take them fast enough.
pub const CHUNKS_DROPPED: &str = "scheduler_chunks_dropped_total";
/// Connected workers.
pub const WORKERS: &str = "scheduler_workers";

/// Label values are made from names that users give: so many get their own, the rest share one or have none.
const MOST_LABELS: usize = 256;
const OTHER: &str = "other";

/// Help texts. Call it once the recorder is installed; more often does no harm.
pub fn describe() {
    describe_counter!(TASKS, "Ended deliveries of tasks");
    describe_gauge!(ACTIVE, "Tasks on workers now");
    describe_histogram!(DURATION, Unit::Seconds, "Time from assignment to result");
    describe_counter!(ERRORS, "Errors by type");
    describe_gauge!(QUEUE_DEPTH, "Ready tasks by queue");
    describe_counter!(REDELIVERIES, "Tasks delivered again after a worker or a lease was lost");
    describe_counter!(OVERTAKEN, "Deliveries, records and results of workers that were refused because something newer had overtaken them");
    describe_counter!(CHUNKS_DROPPED, "Chunks left out");
    describe_gauge!(WORKERS, "Connected workers");
}

/// One more error of this type.
pub fn error(kind: &'static str) {
    counter!(ERRORS, "error_type" => kind).increment(1);
}

/// The metrics of the scheduling core.
pub struct Meters {
    agents: HashMap<Box<str>, AgentMeters>,
    depths: HashMap<Box<str>, Gauge>,
    active: Gauge,
    workers: Gauge,
    redeliveries: Counter,
    overtaken: Counter,
    chunks: Counter,
}

#[derive(Clone)]
struct AgentMeters {
    completed: Counter,
    failed: Counter,
    duration: Histogram,
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Completed,
    Failed,
    Timeout,
    Deadline,
    Lost,
    Cancelled,
}

impl Ending {
    fn label(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Deadline => "deadline",
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Meters {
    pub fn new() -> Self {
        describe();
        Self {
            agents: HashMap::new(),
            depths: HashMap::new(),
            active: gauge!(ACTIVE),
            workers: gauge!(WORKERS),
            redeliveries: counter!(REDELIVERIES),
            overtaken: counter!(OVERTAKEN),
            chunks: counter!(CHUNKS_DROPPED),
        }
    }

    pub fn ended(&mut self, agent: &str, ending: Ending, took: Option<Duration>) {
        let label = if self.agents.contains_key(agent) || self.agents.len() < MOST_LABELS { agent } else { OTHER };
        let meters = self.agents.entry(label.into()).or_insert_with(|| AgentMeters::new(label));
        match ending {
            Ending::Completed => meters.completed.increment(1),
            Ending::Failed => meters.failed.increment(1),
            rare => counter!(TASKS, "agent_type" => label.to_owned(), "status" => rare.label()).increment(1),
        }
        if let Some(took) = took {
            meters.duration.record(took.as_secs_f64());
        }
    }

    /// Nothing is said of queues beyond the first few hundred.
    pub fn depth(&mut self, queue: &str, ready: usize) {
        if !self.depths.contains_key(queue) {
            if self.depths.len() >= MOST_LABELS {
                return;
            }
            self.depths.insert(queue.into(), gauge!(QUEUE_DEPTH, "queue" => queue.to_owned()));
        }
        self.depths[queue].set(ready as f64);
    }

    pub fn load(&self, active: usize, workers: usize) {
        self.active.set(active as f64);
        self.workers.set(workers as f64);
    }

    pub fn redelivered(&self) {
        self.redeliveries.increment(1);
    }

    pub fn overtaken(&self) {
        self.overtaken.increment(1);
    }

    pub fn chunk_dropped(&self) {
        self.chunks.increment(1);
    }
}

impl Default for Meters {
    fn default() -> Self {
        Self::new()
    }
}

impl AgentMeters {
    fn new(agent: &str) -> Self {
        Self {
            completed: counter!(TASKS, "agent_type" => agent.to_owned(), "status" => "completed"),
            failed: counter!(TASKS, "agent_type" => agent.to_owned(), "status" => "failed"),
            duration: histogram!(DURATION, "agent_type" => agent.to_owned()),
        }
    }
}
