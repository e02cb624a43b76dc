//! Definitions.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use troupe_domain::Json;
use utoipa::ToSchema;

/// One version of a workflow; immutable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Workflow {
    pub namespace: String,
    pub name: String,
    pub version: String,
    /// SHA-256 of the canonical JSON, hex.
    pub hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<DateTime<Utc>>,
    /// The text as it was sent; not in lists.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// The definition as canonical JSON; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub definition: Option<Json>,
}

/// What became of a definition that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppliedWorkflow {
    pub namespace: String,
    pub name: String,
    pub version: String,
    /// SHA-256 of the canonical JSON, hex.
    pub hash: String,
    /// False when this very definition was there before.
    pub created: bool,
    /// True: it was only checked, nothing was stored.
    pub dry_run: bool,
}
