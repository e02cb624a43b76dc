//! JSON Schemas of inputs, outputs and arguments.

use jsonschema::Validator;
use serde_json::Value;

/// Faults that are told at once.
const MAX_FAULTS: usize = 10;

/// A compiled schema.
pub(crate) struct Schema(Validator);

impl Schema {
    /// Fails with a sentence about what is wrong with the schema itself. Nothing is fetched: foreign references are refused.
    pub(crate) fn compile(schema: &Value) -> Result<Self, String> {
        jsonschema::options().build(schema).map(Self).map_err(|e| format!("the schema is not valid: {e}"))
    }

    /// What does not fit, one fault a line, each with its place; none when the value fits.
    pub(crate) fn faults(&self, value: &Value) -> Option<String> {
        let mut faults = Vec::new();
        for error in self.0.iter_errors(value).take(MAX_FAULTS) {
            let path = error.instance_path().to_string();
            faults.push(format!("{}: {}", if path.is_empty() { "(the whole)" } else { &path }, clip(&error.to_string(), 300)));
        }
        (!faults.is_empty()).then(|| faults.join("\n"))
    }
}

/// The beginning of a text, at most so many bytes.
pub(crate) fn clip(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}...", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn faults_name_their_place() {
        let schema =
            Schema::compile(&json!({ "type": "object", "required": ["n"], "properties": { "list": { "items": { "type": "integer" } } } }));
        let schema = schema.unwrap();
        assert!(schema.faults(&json!({ "n": 1 })).is_none());
        let faults = schema.faults(&json!({ "list": [1, "x"] })).unwrap();
        assert!(faults.contains("/list/1") && faults.contains("\"n\""), "{faults}");
    }

    #[test]
    fn a_schema_elsewhere_is_refused() {
        assert!(Schema::compile(&json!({ "$ref": "http://127.0.0.1:1/schema.json" })).is_err());
    }
}
