//! JSON Schemas of the files that users write.

use crate::failure::Answer;
use axum::{Json, extract::Path};
use serde_json::Value;
use troupe_domain::Error;

/// Answers the JSON Schema of workflow or agent files, for editors.
#[utoipa::path(get, path = "/api/v1/schemas/{kind}", tag = "workflows", params(("kind" = String, Path, description = "workflow or agent")),
    responses((status = 200, description = "The schema", body = serde_json::Value)))]
pub async fn get_schema(Path(kind): Path<String>) -> Answer<Json<Value>> {
    match kind.as_str() {
        "workflow" => Ok(Json(troupe_engine::language::workflow_schema())),
        "agent" => Ok(Json(troupe_engine::agent::agent_schema())),
        _ => Err(Error::not_found("a schema of that name").with_help("there are: workflow, agent").into()),
    }
}
