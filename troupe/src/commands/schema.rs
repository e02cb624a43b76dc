//! `troupe schema`: JSON Schemas, for editors.

use crate::{cli::SchemaKind, output, settings::Settings};
use serde_json::Value;

pub(crate) fn execute(kind: SchemaKind) -> anyhow::Result<()> {
    let schema: Value = match kind {
        SchemaKind::Workflow => troupe_engine::language::workflow_schema(),
        SchemaKind::Agent => troupe_engine::agent::agent_schema(),
        SchemaKind::Config => troupe_service_kit::config::schema_of::<Settings>().to_value(),
    };
    output::line(&serde_json::to_string_pretty(&schema)?)
}
