//! Runs, what is sent to start and steer them, and tasks, which are runs of one step.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use troupe_domain::Json;
use utoipa::ToSchema;

/// One execution of one workflow version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Run {
    pub namespace: String,
    /// A UUID.
    pub run_id: String,
    pub workflow: String,
    pub version: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub definition_hash: String,
    /// queued, running, waiting, paused, succeeded, failed, cancelled.
    #[schema(example = "running")]
    pub status: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// 0 (first) to 9.
    pub priority: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// The number of its last journal entry, which is its newest checkpoint.
    pub seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_run_id: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// This field and those below are not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub input: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub output: Option<Json>,
    /// The values of its channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub state: Option<Json>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<Wait>,
    /// W3C trace context of what started it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub traceparent: String,
}

impl Run {
    /// Whether it goes on no more.
    pub fn has_ended(&self) -> bool {
        matches!(self.status.as_str(), "succeeded" | "failed" | "cancelled")
    }
}

/// A failure as it is stored and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// A code of the closed list, or the agent's own.
    pub code: String,
    pub message: String,
    /// Whether another attempt may help.
    #[serde(default)]
    pub retryable: bool,
}

/// An instance of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// `analyse[3]`, `improve[0].score`.
    #[schema(example = "analyse[3]")]
    pub path: String,
    /// agent, tool, set, approve, workflow, steps, sleep, until, signal, fail.
    pub kind: String,
    /// pending, running, waiting, retrying, succeeded, failed, skipped, cancelled.
    pub status: String,
    /// From 1; 0 before the first.
    pub attempt: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub output: Option<Json>,
    /// The agent that was chosen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub choice: String,
}

/// One thing that a run waits on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Wait {
    pub step: String,
    /// task, approval, signal, timer, child, backoff, pause.
    pub kind: String,
    /// The task's, approval's or child run's id, or the signal's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// One sentence for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
}

/// Starts a run. Every field may be left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StartRun {
    /// Must match the workflow's input schema; `{}` where none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub input: Option<Json>,
    /// The newest where none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// 0 (first) to 9; 5 where none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 9)]
    pub priority: Option<u32>,
    #[serde(deserialize_with = "crate::nullable::nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How long the whole run may take, like `30s` or `2h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2h")]
    pub deadline: Option<String>,
}

/// Submits one task: a run of one step. Exactly one of `agent`, `capability` and `tool` is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SubmitTask {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Any live agent that offers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// A tool of the built-in worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// `{}` where none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub input: Option<Json>,
    /// 0 (first) to 9; 5 where none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 9)]
    pub priority: Option<u32>,
    #[serde(deserialize_with = "crate::nullable::nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How long one attempt may take, like `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "30s")]
    pub timeout: Option<String>,
    /// Attempts in all; the server's default where none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
}

/// Cancels, pauses, resumes or retries a run. The body may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Why; it is kept in the run's history.
    #[serde(deserialize_with = "crate::nullable::nullable", skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What a control did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Controlled {
    pub outcome: Outcome,
    pub run: Run,
}

/// Whether there was something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    /// It was so already.
    Already,
}

/// Sends a named message into a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Signal {
    pub name: String,
    /// `null` where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub payload: Option<Json>,
}

/// What became of a signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Signalled {
    /// False when its idempotency key had been delivered before.
    pub applied: bool,
    pub run: Run,
}

/// Starts a new run from a checkpoint of another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Fork {
    /// The number of the journal entry after which the fork begins.
    pub checkpoint: u64,
    /// An object whose fields replace those of the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub state: Option<Json>,
}
