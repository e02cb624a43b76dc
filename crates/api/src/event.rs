//! Events of a run, as server-sent events carry them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use troupe_domain::Json;
use utoipa::ToSchema;

/// The kind of the last event of a stream: the run has ended.
pub const END: &str = "end";

/// The kind of an event that says why the stream breaks off; its data is a problem document.
pub const ERROR: &str = "error";

/// One event of a run. `id:` of the server-sent event is the cursor and `event:` the kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunEvent {
    /// Resume after this event with `Last-Event-ID` or `?cursor=`.
    pub cursor: String,
    /// `run.started`, `step.succeeded`, `chunk`, ... and at last `end`.
    #[schema(example = "step.succeeded")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
    /// The step instance's path; empty for events of the run itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// Depends on the kind.
    #[serde(default)]
    #[schema(value_type = serde_json::Value)]
    pub data: Json,
}
