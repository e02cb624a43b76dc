//! Inputs: defaults of the schema filled in, then checked.

use serde_json::Value;
use troupe_domain::{Error, Fault, Json, Result, json::MAX_NESTING};
use troupe_engine::definition::Schema;

/// Faults that one answer lists.
const MAX_FAULTS: usize = 50;

/// The input as the run gets it. Every fault has the JSON pointer of its place.
pub(crate) fn accept(schema: Option<&Schema>, input: Json) -> Result<Json> {
    let input = if input.is_null() { Json::object() } else { input };
    let Some(schema) = schema else { return Ok(input) };
    let mut value = input.to_value();
    let filled = fill(&schema.source.to_value(), &mut value, 0);
    let errors = schema.validator.iter_errors(&value).take(MAX_FAULTS);
    let faults: Vec<Fault> = errors
        .map(|error| {
            // The value itself may be large: the message says what is wrong with it, not all that it holds.
            let text = error.masked().to_string();
            Fault::at(format!("/input{}", error.instance_path()), text)
        })
        .collect();
    if let Some(first) = faults.first() {
        let error = Error::invalid(format!("the input does not fit the workflow's schema: {}: {}", first.path, first.message));
        return Err(error.with_faults(faults));
    }
    Ok(if filled { Json::from(value) } else { input })
}

/// Writes each property's `default` where the value has none. `true`: something was written.
fn fill(schema: &Value, value: &mut Value, depth: usize) -> bool {
    if depth > MAX_NESTING {
        return false;
    }
    let mut filled = false;
    if let (Some(properties), Value::Object(object)) = (schema.get("properties").and_then(Value::as_object), &mut *value) {
        for (name, property) in properties {
            if !object.contains_key(name)
                && let Some(default) = property.get("default")
            {
                object.insert(name.clone(), default.clone());
                filled = true;
            }
            if let Some(inner) = object.get_mut(name) {
                filled |= fill(property, inner, depth + 1);
            }
        }
    }
    if let (Some(items), Value::Array(values)) = (schema.get("items").filter(|items| items.is_object()), &mut *value) {
        for inner in values {
            filled |= fill(items, inner, depth + 1);
        }
    }
    for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        filled |= fill(part, value, depth + 1);
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    fn schema(source: Value) -> Schema {
        let validator = Arc::new(jsonschema::validator_for(&source).unwrap());
        Schema { source: Json::from(source), validator }
    }

    #[test]
    fn defaults_are_filled_in_at_every_depth() {
        let schema = schema(json!({
            "type": "object",
            "properties": {
                "service": { "type": "string", "default": "api" },
                "limits": { "type": "object", "default": {}, "properties": { "lines": { "default": 200 } } },
                "hosts": { "type": "array", "items": { "type": "object", "properties": { "port": { "default": 80 } } } }
            }
        }));
        let input = Json::from(json!({ "hosts": [{ "port": 1 }, {}] }));
        let accepted = accept(Some(&schema), input).unwrap().to_value();
        let expected = json!({ "hosts": [{ "port": 1 }, { "port": 80 }], "service": "api", "limits": { "lines": 200 } });
        assert_eq!(accepted, expected);
    }

    #[test]
    fn every_fault_has_its_pointer() {
        let schema = schema(json!({
            "type": "object", "required": ["log"],
            "properties": { "log": { "type": "string" }, "deep": { "properties": { "n": { "type": "integer" } } } }
        }));
        let error = accept(Some(&schema), Json::from(json!({ "deep": { "n": "x" } }))).unwrap_err();
        let mut paths: Vec<&str> = error.faults.iter().map(|fault| fault.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["/input", "/input/deep/n"]);
    }

    #[test]
    fn no_input_is_an_empty_object() {
        assert_eq!(accept(None, Json::null()).unwrap().as_str(), "{}");
    }
}
