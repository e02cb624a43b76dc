//! The pure heart of Troupe: the workflow language and the state machine of a run.
//!
//! No I/O, no clock, no randomness: the same events, with the same times, give the same state and the same commands.
//! Reading order: [`definition`] (what a workflow is), [`language`] (how it is read from YAML), [`expression`] (CEL),
//! [`event`] (what can happen to a run), [`command`] (what a run wants done), [`state`] (what a run is), [`run`] (how it moves),
//! [`agent`] (what an agent file says).

pub mod agent;
pub mod command;
pub mod definition;
pub mod event;
pub mod expression;
pub mod language;
pub mod limits;
pub mod run;
mod stack;
pub mod state;

pub use command::Command;
pub use definition::Definition;
pub use event::{Event, EventKind};
pub use limits::Limits;
pub use run::{Rejection, Transition, apply, fork, pending, waits};
pub use state::{RunState, RunStatus, StepStatus};

/// A moment, as the journal keeps it (microseconds, UTC).
pub type Time = chrono::DateTime<chrono::Utc>;
