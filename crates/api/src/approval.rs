//! Requests for a person's decision.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use troupe_domain::Json;
use utoipa::ToSchema;

/// A durable request for a person's decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Approval {
    pub namespace: String,
    pub approval_id: String,
    pub run_id: String,
    /// The step instance's path.
    pub step: String,
    pub workflow: String,
    pub title: String,
    /// Exactly what is shown to the person.
    #[schema(value_type = serde_json::Value)]
    pub show: Json,
    /// SHA-256 over what is shown, hex. Send it with the decision: what was seen is what is decided.
    pub digest: String,
    /// `role:NAME` or `user:NAME`; empty: anybody.
    #[serde(default)]
    pub approvers: Vec<String>,
    /// How many must approve.
    pub required: u32,
    /// Names of the fields of `values` that may be edited.
    #[serde(default)]
    pub edit: Vec<String>,
    /// The values that may be edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub values: Option<Json>,
    /// approve (yes or no) or question (an answer is wanted).
    pub mode: String,
    /// JSON Schema of the answer; absent: any text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub answer_schema: Option<Json>,
    /// pending, approved, rejected, answered, expired, withdrawn.
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// What happens then: expire, reject, approve, escalate.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub on_expire: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub escalate_to: Vec<String>,
    /// How often it was escalated.
    #[serde(default)]
    pub escalations: u32,
    #[serde(default)]
    pub decisions: Vec<DecisionRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<DateTime<Utc>>,
}

/// What one person decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DecisionRecord {
    pub by: String,
    /// approve, reject, answer.
    pub decision: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The edited values, or the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub payload: Option<Json>,
    /// The digest that the person saw.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
}

/// Decides an approval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decide {
    pub decision: DecisionKind,
    /// With `approve`: new values of fields that may be edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub edits: Option<Json>,
    /// With `answer`: the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub answer: Option<Json>,
    #[serde(default, deserialize_with = "crate::nullable::nullable", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Who decides; `anonymous` where none is given.
    #[serde(default, deserialize_with = "crate::nullable::nullable", skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// The digest of what was shown. Where given it must be the approval's.
    #[serde(default, deserialize_with = "crate::nullable::nullable", skip_serializing_if = "String::is_empty")]
    pub digest: String,
}

/// What can be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecisionKind {
    Approve,
    Reject,
    Answer,
}

impl DecisionKind {
    /// The name, as the services have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::Answer => "answer",
        }
    }
}
