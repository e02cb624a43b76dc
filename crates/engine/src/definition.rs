//! A compiled workflow: immutable, shared by all its runs, addressed by the hash of its canonical JSON.

use crate::expression::{Expr, Template};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use troupe_domain::Json;

/// A workflow, ready to run. Made by [`crate::language::parse`] from what a user wrote, or by
/// [`crate::language::compile`] from the canonical JSON that the store keeps.
#[derive(Debug)]
pub struct Definition {
    pub name: String,
    /// As written; `0.0.0-<first 8 of the hash>` where none was.
    pub version: String,
    /// Hex SHA-256 of [`Definition::canonical`].
    pub hash: String,
    /// The document as canonical JSON: what is stored, hashed and compiled again.
    pub canonical: Json,
    /// JSON Schema of the run's input.
    pub input: Option<Schema>,
    pub channels: BTreeMap<String, Channel>,
    pub root: Group,
    /// The run's output; the whole state where none is written.
    pub output: Option<Template>,
}

/// A JSON Schema and its compiled validator.
#[derive(Clone, Debug)]
pub struct Schema {
    pub source: Json,
    pub validator: Arc<jsonschema::Validator>,
}

/// A named part of the run's state.
#[derive(Clone, Debug)]
pub struct Channel {
    pub merge: Merge,
    /// The value before the first write; not there when none is written and the merge has no neutral value.
    pub default: Option<Json>,
}

/// How a write combines with what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    #[default]
    Replace,
    /// Adds the value, or each value of a list, at the end of a list.
    Append,
    /// Joins text to text, or a list to a list.
    Concat,
    /// Adds what the list does not hold yet, in order of arrival.
    Union,
    Sum,
    Min,
    Max,
    /// Objects, deep; the write wins at the leaves.
    Merge,
}

/// Steps that wait for each other: a graph without cycles.
#[derive(Debug, Default)]
pub struct Group {
    /// In the order of their names: the order in which they are written makes no difference, so that equal hashes are equal definitions.
    pub steps: Vec<Step>,
    /// Indices into `steps`: every step comes after those it waits for.
    pub order: Vec<usize>,
}

/// A node of a workflow.
#[derive(Debug)]
pub struct Step {
    pub name: String,
    /// Names from the root, joined by dots: `improve.score`.
    pub path: String,
    pub action: Action,
    /// Indices of siblings that it waits for: written in `after`, or whose `routes` or `on_error` name it.
    pub after: Vec<usize>,
    /// Indices of the siblings that wait for it.
    pub next: Vec<usize>,
    pub join: Join,
    pub when: Option<Expr>,
    pub routing: Option<Routing>,
    pub for_each: Option<ForEach>,
    pub repeat: Option<Repeat>,
    /// The input; `None` means `{}`.
    pub with: Option<Template>,
    /// Writes to channels, from the output, in the order of their names.
    pub save: Vec<(String, Template)>,
    pub retry: RetryPolicy,
    /// For one attempt.
    pub timeout: Option<Duration>,
    /// For all attempts together, from the step's start.
    pub deadline: Option<Duration>,
    pub priority: Option<u32>,
    pub on_error: OnError,
    pub schema: Option<Schema>,
}

/// What a step does: exactly one thing.
#[derive(Debug)]
pub enum Action {
    Agent {
        target: AgentTarget,
        choose: Choose,
    },
    Tool {
        name: String,
    },
    /// Channel and value.
    Set(Vec<(String, Template)>),
    Approve(Box<Approve>),
    Workflow {
        name: String,
        version: Option<String>,
    },
    Steps(Group),
    /// A duration: text like `30s`, or a number of seconds.
    Sleep(Template),
    /// A time: RFC 3339 text or a CEL timestamp.
    Until(Template),
    Signal {
        name: Template,
        timeout: Option<Duration>,
    },
    Fail {
        code: Option<Template>,
        reason: Template,
    },
}

impl Action {
    /// The key that writes it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Agent { .. } => "agent",
            Self::Tool { .. } => "tool",
            Self::Set(_) => "set",
            Self::Approve(_) => "approve",
            Self::Workflow { .. } => "workflow",
            Self::Steps(_) => "steps",
            Self::Sleep(_) => "sleep",
            Self::Until(_) => "until",
            Self::Signal { .. } => "signal",
            Self::Fail { .. } => "fail",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentTarget {
    Name(String),
    Capability(String),
}

/// How an agent is chosen for a capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choose {
    #[default]
    LeastLoaded,
    RoundRobin,
}

/// How many of `after` must have finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Join {
    #[default]
    All,
    Any,
    AtLeast(usize),
}

/// After the step, `key` chooses which of the targets goes on; the others are skipped.
#[derive(Debug)]
pub struct Routing {
    /// `None`: `output.status`.
    pub key: Option<Expr>,
    /// Key and sibling index; the key `_` is the default.
    pub targets: Vec<(String, usize)>,
}

#[derive(Debug)]
pub struct ForEach {
    pub items: Expr,
    /// The variable's name; `item` where none is written. `index` counts from 0.
    pub name: String,
    /// Instances at once; `None`: all.
    pub concurrency: Option<usize>,
}

/// `loop`.
#[derive(Debug)]
pub struct Repeat {
    pub condition: Condition,
    /// Iterations at most.
    pub max: u32,
}

#[derive(Debug)]
pub enum Condition {
    /// Asked before each iteration.
    While(Expr),
    /// Asked after each iteration.
    Until(Expr),
}

#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// In all, the first one included.
    pub attempts: u32,
    pub initial: Duration,
    pub factor: f64,
    pub max: Duration,
    /// 0 to 1: the share of the delay that is spread, by a hash of task and attempt.
    pub jitter: f64,
    /// Codes that are not retried.
    pub except: Vec<String>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 3, initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(60), jitter: 0.2, except: Vec::new() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    #[default]
    Fail,
    Continue,
    /// Index of the sibling that goes on; it is skipped when there is no error.
    Step(usize),
}

/// A request for a person's decision.
#[derive(Debug)]
pub struct Approve {
    pub title: Template,
    /// What is shown; `None`: the values that may be edited.
    pub show: Option<Template>,
    /// `role:NAME` or `user:NAME`; none: anybody.
    pub approvers: Vec<String>,
    pub required: u32,
    /// Channels whose values are shown for editing; the edits are written back before the step's `save`.
    pub edit: Vec<String>,
    pub expires: Option<Duration>,
    pub on_expire: OnExpire,
    pub escalate_to: Vec<String>,
    /// A question wants an answer instead of a yes or no.
    pub question: Option<Question>,
}

/// `question: true` or a JSON Schema.
#[derive(Debug)]
pub struct Question {
    pub answer: Option<Schema>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExpire {
    /// The step ends with `output.status` = `expired`.
    #[default]
    Expire,
    Reject,
    Approve,
    Escalate,
}
