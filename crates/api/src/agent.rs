//! Agents.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use troupe_domain::Json;
use utoipa::ToSchema;

/// A named, versioned executor of tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    pub namespace: String,
    pub name: String,
    pub version: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// llm, code, worker.
    pub kind: String,
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// active, draining, quarantined.
    pub state: String,
    /// Why it is not active.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state_reason: String,
    /// The definition; absent when a worker brought the agent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub spec: Option<Json>,
    /// The text as it was sent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<DateTime<Utc>>,
    /// Live workers; empty when nobody serves the agent.
    #[serde(default)]
    pub instances: Vec<AgentInstance>,
    /// Made by a worker that said it serves it, without a definition.
    #[serde(default)]
    pub dynamic: bool,
}

/// A live worker of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentInstance {
    pub worker_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scheduler_id: String,
    /// Name and version of its SDK.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client: String,
    /// Tasks at once.
    pub slots: u32,
    /// Tasks that run now.
    pub active: u32,
    /// healthy, stalled (holds tasks without progress), draining.
    pub health: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_progress_at: Option<DateTime<Utc>>,
}

/// What became of an agent file that was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AppliedAgent {
    pub agent: Agent,
    /// False when this very version was there before.
    pub created: bool,
    /// True: it was only checked, nothing was stored.
    pub dry_run: bool,
}

/// Drains, quarantines or activates an agent. The body may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChangeAgentState {
    /// Why; shown with the agent.
    #[serde(deserialize_with = "crate::nullable::nullable", skip_serializing_if = "String::is_empty")]
    pub reason: String,
}
