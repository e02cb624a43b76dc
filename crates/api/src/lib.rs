//! The HTTP API's JSON, shared by the gateway, which serves it, and the command line, which reads it.
//!
//! Fields are snake_case, times RFC 3339 in UTC, durations texts like `30s`, payloads inline JSON. Requests refuse unknown fields;
//! answers may gain fields. Reading order: [`problem`] (every error), [`page`] (every list), [`workflow`], [`graph`], [`run`], [`event`],
//! [`checkpoint`], [`agent`], [`approval`], [`queue`], [`health`], [`error_page`] (what each code means, for people).

pub mod agent;
pub mod approval;
pub mod checkpoint;
pub mod error_page;
pub mod event;
pub mod graph;
pub mod health;
mod nullable;
pub mod page;
pub mod problem;
pub mod queue;
pub mod run;
pub mod workflow;

pub use agent::{Agent, AgentInstance, AppliedAgent, ChangeAgentState};
pub use approval::{Approval, Decide, DecisionKind, DecisionRecord};
pub use checkpoint::{Checkpoint, CheckpointDetail, Diff, Why};
pub use error_page::error_page;
pub use event::RunEvent;
pub use graph::{EdgeKind, Graph, GraphEdge, GraphNode};
pub use health::{DependencyHealth, Health};
pub use page::Page;
pub use problem::{Problem, ProblemFault};
pub use queue::{Queue, Redrive, RedriveFailure, Redriven};
pub use run::{Control, Controlled, Failure, Fork, Outcome, Run, Signal, Signalled, StartRun, Step, SubmitTask, Wait};
pub use workflow::{AppliedWorkflow, Workflow};
