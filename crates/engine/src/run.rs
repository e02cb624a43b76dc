//! How a run moves.
//!
//! [`apply`] checks the event against the state (the only place where it may be refused), changes the step instance that it is about, and then
//! settles: what ended makes siblings ready, groups complete and loops go round, until nothing more can happen without another event.
//! One file for each family of events, then those for what follows: `advance` (may a step start?), `enter` (what starting does), `ended` (what an end
//! leads to), `repeat` (`for_each` and `loop`), `withdraw` (taking back).

mod advance;
mod approval;
mod child;
mod control;
mod ended;
mod enter;
mod machine;
mod merge;
mod place;
mod repeat;
mod retry;
mod save;
mod scope;
mod shown;
mod signal;
mod start;
mod task;
mod timer;
mod walk;
mod withdraw;

pub use shown::{pending, waits};
pub use start::fork;

use crate::{Command, Definition, Event, EventKind, Limits, StepStatus, Time, event::Failure, state::RunState};
use machine::Machine;
use serde::{Deserialize, Serialize};
use troupe_domain::Json;

/// Failure codes that the engine itself gives.
pub mod code {
    /// An expression gave no value, or one of the wrong kind.
    pub const EXPRESSION_FAILED: &str = "EXPRESSION_FAILED";
    /// A write did not fit the channel's merge.
    pub const MERGE_FAILED: &str = "MERGE_FAILED";
    /// All channels together would pass `max_state_bytes`.
    pub const STATE_TOO_LARGE: &str = "STATE_TOO_LARGE";
    /// An input or output passes `max_payload_bytes`.
    pub const PAYLOAD_TOO_LARGE: &str = "PAYLOAD_TOO_LARGE";
    /// An output does not match the step's `schema`.
    pub const OUTPUT_INVALID: &str = "OUTPUT_INVALID";
    /// `routes` has no target for the key.
    pub const ROUTE_NOT_FOUND: &str = "ROUTE_NOT_FOUND";
    /// Someone said no, and no `routes` handles it.
    pub const APPROVAL_REJECTED: &str = "APPROVAL_REJECTED";
    /// Nobody decided in time, and no `routes` handles it.
    pub const APPROVAL_EXPIRED: &str = "APPROVAL_EXPIRED";
    /// The signal did not come in time.
    pub const SIGNAL_TIMEOUT: &str = "SIGNAL_TIMEOUT";
    /// The step or the run took longer than its `deadline`.
    pub const DEADLINE_EXCEEDED: &str = "DEADLINE_EXCEEDED";
    /// A `fail` step without a code.
    pub const RUN_FAILED: &str = "RUN_FAILED";
    /// The child run was cancelled.
    pub const CANCELLED: &str = "CANCELLED";
    /// A bound was passed; the message names the setting.
    pub const RESOURCE_EXHAUSTED: &str = "RESOURCE_EXHAUSTED";
}

/// What an applied event did.
#[derive(Debug, Default)]
pub struct Transition {
    /// To be issued, in this order, once the entry is durable.
    pub commands: Vec<Command>,
    /// For people and event streams, in the order in which it happened.
    pub changes: Vec<Change>,
}

/// One lifecycle change, as the journal keeps it and event streams show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// `run.started`, `run.waiting`, `run.running`, `run.paused`, `run.succeeded`, `run.failed`, `run.cancelled`, `run.forked`, `run.retried`,
    /// `step.started`, `step.waiting`, `step.retrying`, `step.succeeded`, `step.failed`, `step.skipped`, `step.cancelled`, `step.recorded`.
    pub kind: String,
    /// The step instance's path; empty for the run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// A few words more: the agent chosen, the approval's id, the record's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Why an event was not applied. The state is unchanged and nothing is journaled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It was applied before: answer as if it were applied now.
    #[error("it was applied before")]
    Duplicate,
    /// A newer attempt or delivery, or the end of the step or the run, has overtaken it.
    #[error("it is stale: {0}")]
    Stale(String),
    /// The run has ended.
    #[error("the run has ended")]
    Ended,
    /// It is so already (paused twice, cancelled twice).
    #[error("it is so already")]
    Already,
    /// It cannot be done in this state; the text says why.
    #[error("{0}")]
    NotPossible(String),
    /// It passes a limit; the text names the setting.
    #[error("{0}")]
    Limit(String),
}

/// Applies one event at a time that the journal records. On `Err` the state has not changed. A run that was started with limits of its
/// own keeps them; `limits` are for the others.
pub fn apply(definition: &Definition, state: &mut RunState, event: &Event, now: Time, limits: &Limits) -> Result<Transition, Rejection> {
    let own = match (&event.kind, &state.identity) {
        (_, Some(identity)) => identity.limits.clone(),
        (EventKind::Started(started), None) => started.limits.clone(),
        _ => None,
    };
    let mut machine = Machine::new(definition, state, now, own.as_deref().unwrap_or(limits));
    let payload = &event.payload;
    match &event.kind {
        EventKind::Started(started) => machine.started(started, payload)?,
        EventKind::Forked { from, checkpoint } => machine.forked(*from, *checkpoint, payload)?,
        EventKind::TaskRecorded { step, attempt, fence, index, name } => {
            machine.task_recorded(&task::Origin { step, attempt: *attempt, fence: *fence }, *index, name, payload)?;
        }
        EventKind::TaskCompleted { step, attempt, fence, agent, choice, .. } => {
            machine.task_completed(&task::Origin { step, attempt: *attempt, fence: *fence }, agent, choice, payload)?;
        }
        EventKind::TaskFailed { step, attempt, fence, agent, choice, failure, .. } => {
            machine.task_failed(&task::Origin { step, attempt: *attempt, fence: *fence }, agent, choice, failure)?;
        }
        EventKind::Decided { approval, status, by, comment } => machine.decided(approval, *status, by, comment, payload)?,
        EventKind::Signalled { name, id } => machine.signalled(name, id, payload)?,
        EventKind::Tick => machine.tick()?,
        EventKind::ChildEnded { step, child, outcome } => machine.child_ended(step, *child, outcome, payload)?,
        EventKind::ChildRefused { step, child, failure } => machine.child_refused(step, *child, failure)?,
        EventKind::Cancelled { reason } => machine.cancelled(reason)?,
        EventKind::Paused { reason } => machine.paused(reason)?,
        EventKind::Resumed => machine.resumed()?,
        EventKind::Retried => machine.retried()?,
        EventKind::RetriedAfter { retries } => machine.retried_after(*retries)?,
    }
    machine.settle();
    Ok(machine.finish())
}

/// One thing that a run waits on.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    pub step: String,
    pub kind: WaitKind,
    /// The approval's or child's id, the signal's name; empty for timers.
    pub reference: String,
    pub detail: String,
    pub since: Option<Time>,
    pub until: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitKind {
    Task,
    Approval,
    Signal,
    Timer,
    Child,
    Backoff,
    Pause,
}

/// A step instance as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct StepView {
    pub path: String,
    pub kind: &'static str,
    pub status: StepStatus,
    pub attempt: u32,
    pub started_at: Option<Time>,
    pub ended_at: Option<Time>,
    pub failure: Option<Failure>,
    pub output: Option<Json>,
    pub agent: String,
    pub choice: String,
}
