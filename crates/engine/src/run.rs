//! How a run moves.

use crate::{Command, Definition, Event, Limits, RunState, StepStatus, Time, event::Failure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use troupe_domain::{Json, RunId};

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

/// Applies one event at a time that the journal records. On `Err` the state has not changed.
pub fn apply(definition: &Definition, state: &mut RunState, event: &Event, now: Time, limits: &Limits) -> Result<Transition, Rejection> {
    let _ = (definition, state, event, now, limits);
    Err(Rejection::Ended)
}

/// What has been asked for and not come back: to be issued again by a new owner. A pure function of the state.
pub fn pending(definition: &Definition, state: &RunState) -> Vec<Command> {
    let _ = (definition, state);
    Vec::new()
}

/// The state that a fork begins with: that of the checkpoint, as a run of another id.
pub fn fork(state: &RunState, run: RunId) -> RunState {
    let _ = run;
    state.clone()
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

/// What each pending step waits on.
pub fn waits(definition: &Definition, state: &RunState) -> Vec<Waiting> {
    let _ = (definition, state);
    Vec::new()
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

/// What `RunState` offers to those who show, index and load runs.
impl RunState {
    /// The state before the first event.
    pub fn new() -> Self {
        Self { status: crate::RunStatus::Queued }
    }
    /// When the run must be given [`crate::EventKind::Tick`]; `None`: no timer is pending (or the run is paused or ended).
    pub fn wake_at(&self) -> Option<Time> {
        None
    }
    /// Why it failed.
    pub fn failure(&self) -> Option<&Failure> {
        None
    }
    /// The queue ("agent/NAME") of the task whose failure ended the run.
    pub fn dead_queue(&self) -> Option<String> {
        None
    }
    pub fn input(&self) -> Json {
        Json::null()
    }
    /// Set when it succeeded.
    pub fn output(&self) -> Option<Json> {
        None
    }
    /// Channels and their values.
    pub fn channels(&self) -> Value {
        Value::Null
    }
    /// In the order of the definition, instances by index.
    pub fn steps(&self, definition: &Definition) -> Vec<StepView> {
        let _ = definition;
        Vec::new()
    }
    /// True while some task is with the scheduler: such runs stay in memory.
    pub fn has_tasks(&self) -> bool {
        false
    }
}

impl Default for RunState {
    fn default() -> Self {
        Self::new()
    }
}
