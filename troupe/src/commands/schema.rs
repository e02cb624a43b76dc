//! `troupe schema`: JSON Schemas, for editors.

use crate::{
    cli::{Globals, SchemaKind},
    output::{self, Format},
    settings::Settings,
};
use serde_json::Value;

/// A table of a schema would help nobody: it is JSON unless YAML is wanted.
pub(crate) fn execute(globals: &Globals, kind: SchemaKind) -> anyhow::Result<()> {
    let schema: Value = match kind {
        SchemaKind::Workflow => troupe_engine::language::workflow_schema(),
        SchemaKind::Agent => troupe_engine::agent::agent_schema(),
        SchemaKind::Config => troupe_service_kit::config::schema_of::<Settings>().to_value(),
    };
    let format = if globals.output == Format::Yaml { Format::Yaml } else { Format::Json };
    output::print(format, &schema, &[])
}
