//! The tree of step instances.
//!
//! A [`Frame`] is an instance of a group of steps: one [`Cell`] for each. A cell of a step with `for_each` holds a cell for each item, one of a
//! step with `loop` a cell for the current iteration, and the innermost cell does the step's action; for `steps` that is a frame again.

use super::StepStatus;
use crate::{Time, command::TaskRecord, event::Failure};
use serde::{Deserialize, Serialize};
use troupe_domain::Json;

/// The way from the root to a cell: the step's index in its group, then the item's index where the step has `for_each`, then the
/// iteration where it has `loop`, then the index within its group, and so on.
pub(crate) type Place = Vec<u32>;

/// An instance of a group of steps.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Frame {
    /// One for each step of the group, in its order.
    pub(crate) cells: Vec<Cell>,
    /// Cells that have not ended.
    pub(crate) open: u32,
}

/// A step instance, or an item or iteration of one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Cell {
    pub(crate) status: StepStatus,
    /// Attempts begun at its action.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) attempt: u32,
    /// Attempts before the run was last started again: they do not count against the retry policy.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) base: u32,
    /// The largest fence seen for the current attempt.
    #[serde(skip_serializing_if = "is_zero_fence")]
    pub(crate) fence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at: Option<Time>,
    /// Why it failed; of the attempt before while it is retrying.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Box<Failure>>,
    /// `None` stands for `null`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<Json>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) agent: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) choice: String,
    /// The sibling that its routing chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<u32>,
    #[serde(skip_serializing_if = "Body::is_empty")]
    pub(crate) body: Body,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero_fence(n: &u64) -> bool {
    *n == 0
}

/// What a cell holds beyond its status.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Body {
    #[default]
    Empty,
    Task(Box<Task>),
    Approval(Box<Approval>),
    Child(Box<Child>),
    /// A sleep that ends then.
    Sleep(Time),
    Listen(Box<Listen>),
    Group(Frame),
    Each(Box<Each>),
    Loop(Box<Loop>),
}

impl Body {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

/// A task that has not come back. After its failure only the records stay, for when the run is started again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Task {
    pub(crate) input: Json,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) records: Vec<TaskRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) feedback: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_before: Option<Time>,
    /// The run is paused: the attempt has not been given to the scheduler.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) held: bool,
}

/// An open request for a decision, as it was rendered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Approval {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) show: Json,
    pub(crate) values: Json,
    pub(crate) requested_at: Time,
    pub(crate) expires_at: Option<Time>,
}

/// A child run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Child {
    pub(crate) input: Json,
    /// The next attempt begins then; `None`: the child runs.
    pub(crate) not_before: Option<Time>,
}

/// A wait for a signal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Listen {
    pub(crate) name: String,
    pub(crate) until: Option<Time>,
}

/// The instances of a `for_each`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Each {
    /// Emptied when all have succeeded.
    pub(crate) items: Vec<Json>,
    /// Those that were begun.
    pub(crate) cells: Vec<Cell>,
    /// No item before this one is to be begun.
    pub(crate) next: u32,
    pub(crate) running: u32,
    pub(crate) done: u32,
}

/// The current, or last, iteration of a `loop`. Earlier ones are gone; their number is `iteration`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Loop {
    pub(crate) iteration: u32,
    pub(crate) cell: Cell,
}

/// A signal that waits for its step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Signal {
    pub(crate) id: String,
    pub(crate) payload: Json,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pause {
    pub(crate) at: Time,
    pub(crate) reason: String,
}

/// Something that time does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Timer {
    pub(crate) at: Time,
    pub(crate) kind: TimerKind,
    /// Empty for the run.
    pub(crate) place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TimerKind {
    /// A sleep ends.
    Sleep,
    /// A child run is tried again.
    Child,
    /// A wait for a signal ends.
    Signal,
    /// A step, or the run, must have ended.
    Deadline,
}

/// What follows from what happened. Work that begins something new is held while the run is paused.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// The step may start, or is skipped.
    Consider(Place),
    /// A `for_each` begins items, or a `loop` its next iteration.
    Advance(Place),
    /// Every step of a group had ended before the run was started again.
    Close(Place),
    /// The task's next attempt goes to the scheduler.
    Issue(Place),
    /// Every step has ended.
    Finish,
    /// A step failed and nothing handles it.
    Fall(Fall),
    /// The cell has ended: its parent and siblings go on.
    Ended(Place, Option<String>),
}

impl Work {
    /// Whether it waits while the run is paused.
    pub(crate) fn waits_for_resume(&self) -> bool {
        !matches!(self, Self::Ended(..))
    }
}

/// A failure on its way up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Fall {
    pub(crate) failure: Failure,
    /// The queue of the task that failed.
    pub(crate) queue: Option<String>,
}

impl From<Failure> for Fall {
    fn from(failure: Failure) -> Self {
        Self { failure, queue: None }
    }
}
