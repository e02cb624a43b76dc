//! A run's history.

use crate::{Run, Wait};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use troupe_domain::Json;
use utoipa::ToSchema;

/// The state after a journal entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Checkpoint {
    /// The journal entry's number, from 1.
    pub seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
    /// The event's kind.
    #[schema(example = "task_completed")]
    pub kind: String,
    /// What changed: an array of lifecycle changes.
    #[serde(default)]
    #[schema(value_type = serde_json::Value)]
    pub changes: Json,
    /// Whether a full snapshot is stored here.
    #[serde(default)]
    pub snapshot: bool,
}

/// A checkpoint and the run as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointDetail {
    pub checkpoint: Checkpoint,
    pub run: Run,
}

/// What changed between two checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Diff {
    pub from: u64,
    pub to: u64,
    /// JSON Patch (RFC 6902) from the first to the second.
    #[schema(value_type = Vec<Object>)]
    pub patch: Json,
}

/// What each pending step waits on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// The run's status.
    pub status: String,
    pub waits: Vec<Wait>,
}
