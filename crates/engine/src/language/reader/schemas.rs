//! Fields that are JSON Schemas.

use super::{Reader, cut};
use crate::{
    definition::Schema,
    language::document::{Doc, Node},
};
use serde_json::Value;
use std::sync::Arc;
use troupe_domain::Json;

/// Bytes of one JSON Schema.
const MAX_SCHEMA: usize = 256 << 10;

impl Reader<'_> {
    /// A JSON Schema, compiled.
    pub(crate) fn schema(&mut self, doc: &Doc, path: &str) -> Option<Schema> {
        const HELP: &str = "write a JSON Schema (draft 2020-12), like { type: object, required: [text] }";
        if !matches!(doc.value, Node::Map(_) | Node::Bool(_)) {
            self.wrong_type(doc, path, "a JSON Schema", HELP);
            return None;
        }
        let value = doc.to_json();
        let source = Json::from(&value);
        if source.len() > MAX_SCHEMA {
            self.fault(doc.at, path, format!("the schema has more than {MAX_SCHEMA} bytes"), "make it smaller");
            return None;
        }
        if let Some(reference) = remote_reference(&value) {
            let message = format!("the schema refers to '{}' outside itself, and nothing is ever fetched", cut(reference));
            self.fault(doc.at, path, message, "put what it refers to under $defs and refer to it by '#/$defs/NAME'");
            return None;
        }
        match compile_schema(&value) {
            Ok(validator) => Some(Schema { source, validator: Arc::new(validator) }),
            Err((inside, message)) => {
                self.fault(doc.find(&inside).at, path, format!("is no valid JSON Schema: at '{inside}': {message}"), HELP);
                None
            }
        }
    }
}

fn remote_reference(value: &Value) -> Option<&str> {
    match value {
        Value::Object(fields) => fields.iter().find_map(|(key, value)| match (key.as_str(), value) {
            ("$ref" | "$dynamicRef", Value::String(target)) if !target.starts_with('#') => Some(target.as_str()),
            // A value of `const`, `enum`, `default` or `examples` is data, not schema.
            ("const" | "enum" | "default" | "examples", _) => None,
            _ => remote_reference(value),
        }),
        Value::Array(items) => items.iter().find_map(remote_reference),
        _ => None,
    }
}

/// Compiles a schema with a pattern engine of bounded time. `Err` is the path inside and the message.
fn compile_schema(value: &Value) -> Result<jsonschema::Validator, (String, String)> {
    let patterns = jsonschema::PatternOptions::regex().size_limit(1 << 20).dfa_size_limit(1 << 20);
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .with_pattern_options(patterns)
        .build(value)
        .map_err(|e| (e.instance_path().to_string(), cut(&e.to_string())))
}
