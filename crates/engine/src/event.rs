//! What can happen to a run. Each applied event is one journal entry.

use crate::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use troupe_domain::{Json, Namespace, RunId};

/// Something that happened: a small kind, and at most one payload that the journal stores beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub kind: EventKind,
    /// Depends on the kind; `null` where the kind has none.
    pub payload: Json,
}

impl Event {
    pub fn new(kind: EventKind) -> Self {
        Self { kind, payload: Json::null() }
    }

    pub fn with(kind: EventKind, payload: Json) -> Self {
        Self { kind, payload }
    }
}

/// Externally tagged JSON, for instance `{"task_completed":{"step":"a",...}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The first event. Payload: the input, checked against the schema with defaults filled in.
    Started(Box<Started>),
    /// The first event of a fork. Payload: an object whose fields replace channels of the state. The state it begins with is
    /// a snapshot beside the entry.
    Forked {
        from: RunId,
        checkpoint: u64,
    },
    /// A worker recorded a named result within a task. Payload: the value.
    TaskRecorded {
        step: String,
        attempt: u32,
        fence: u64,
        index: u32,
        name: String,
    },
    /// Payload: the output.
    TaskCompleted {
        step: String,
        attempt: u32,
        fence: u64,
        agent: String,
        worker: String,
        choice: String,
    },
    TaskFailed {
        step: String,
        attempt: u32,
        fence: u64,
        agent: String,
        worker: String,
        choice: String,
        failure: Failure,
    },
    /// A person decided, or time did. Payload: edited values or the answer, or null.
    Decided {
        approval: String,
        status: DecisionStatus,
        by: String,
        comment: String,
    },
    /// Payload: the signal's payload. A signal that comes before its step waits for it.
    Signalled {
        name: String,
        id: String,
    },
    /// Time has passed: everything due at the entry's time happens.
    Tick,
    /// A child run ended. Payload: its output.
    ChildEnded {
        step: String,
        child: RunId,
        outcome: ChildOutcome,
    },
    /// A child could not be started.
    ChildRefused {
        step: String,
        child: RunId,
        failure: Failure,
    },
    Cancelled {
        reason: String,
    },
    Paused {
        reason: String,
    },
    Resumed,
    /// Failed or cancelled steps of an ended run start again.
    Retried,
    /// The same, for a run that was retried so often before: said twice, it happens once.
    RetriedAfter {
        retries: u32,
    },
}

impl EventKind {
    /// The tag, for listings.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started(_) => "started",
            Self::Forked { .. } => "forked",
            Self::TaskRecorded { .. } => "task_recorded",
            Self::TaskCompleted { .. } => "task_completed",
            Self::TaskFailed { .. } => "task_failed",
            Self::Decided { .. } => "decided",
            Self::Signalled { .. } => "signalled",
            Self::Tick => "tick",
            Self::ChildEnded { .. } => "child_ended",
            Self::ChildRefused { .. } => "child_refused",
            Self::Cancelled { .. } => "cancelled",
            Self::Paused { .. } => "paused",
            Self::Resumed => "resumed",
            Self::Retried | Self::RetriedAfter { .. } => "retried",
        }
    }
}

/// What a run is told when it starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Started {
    pub namespace: Namespace,
    pub run: RunId,
    /// 0 (first) to 9.
    pub priority: u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The whole run must have ended by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// What `env` holds in expressions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The bounds that the run lives under whatever the settings become, so that applying its events again leads to the same state.
    /// `None`: those given to [`crate::run::apply`].
    #[serde(default, with = "crate::limits::differences", skip_serializing_if = "Option::is_none")]
    pub limits: Option<Box<crate::Limits>>,
    /// W3C trace context of the start.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub traceparent: String,
}

/// The step instance that started a child run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    pub run: RunId,
    pub step: String,
    /// 1 for a child of a root run.
    pub depth: u32,
}

/// Why an attempt, a step or a run failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A code of the closed list or the agent's own, in `SCREAMING_SNAKE_CASE`.
    pub code: String,
    pub message: String,
    #[serde(default)]
    pub retryable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// A failure that another attempt would not mend.
    pub fn permanent(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retryable: false, retry_after_ms: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionStatus {
    Approved,
    Rejected,
    Answered,
    Expired,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildOutcome {
    Succeeded,
    Failed(Failure),
    Cancelled,
}
