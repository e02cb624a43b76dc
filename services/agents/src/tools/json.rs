//! Reading, writing and looking into JSON.

use super::{Arguments, Caller, Tool, failed};
use async_trait::async_trait;
use serde_json::{Value, json};
use troupe_client::TaskError;
use troupe_domain::Json;

/// Steps of one path.
const MAX_STEPS: usize = 64;
/// Values that one query may give.
const MAX_RESULTS: usize = 10_000;

pub(super) fn tools() -> Vec<Box<dyn Tool>> {
    vec![Box::new(Query), Box::new(Parse), Box::new(Stringify)]
}

struct Query;
struct Parse;
struct Stringify;

#[async_trait]
impl Tool for Query {
    fn name(&self) -> &'static str {
        "json.query"
    }

    fn description(&self) -> &'static str {
        "Takes a part of a JSON value by a JSON pointer (/items/0/name) or a path (items[*].name, where * takes all)."
    }

    fn schema(&self) -> Value {
        json!({
            "type": "object",
            "required": ["value", "path"],
            "additionalProperties": false,
            "properties": { "value": {}, "path": { "type": "string", "maxLength": 1000 } }
        })
    }

    async fn call(&self, arguments: Arguments, _: &Caller) -> Result<Value, TaskError> {
        query(arguments.value("value"), arguments.text("path")).map(|result| json!({ "result": result }))
    }
}

#[async_trait]
impl Tool for Parse {
    fn name(&self) -> &'static str {
        "json.parse"
    }

    fn description(&self) -> &'static str {
        "Parses JSON text."
    }

    fn schema(&self) -> Value {
        json!({
            "type": "object",
            "required": ["text"],
            "additionalProperties": false,
            "properties": { "text": { "type": "string" } }
        })
    }

    async fn call(&self, arguments: Arguments, _: &Caller) -> Result<Value, TaskError> {
        let value = Json::parse(arguments.text("text").as_bytes(), "text").map_err(|e| failed(e.message))?;
        Ok(json!({ "value": value.to_value() }))
    }
}

#[async_trait]
impl Tool for Stringify {
    fn name(&self) -> &'static str {
        "json.stringify"
    }

    fn description(&self) -> &'static str {
        "Writes a value as JSON text."
    }

    fn schema(&self) -> Value {
        json!({
            "type": "object",
            "required": ["value"],
            "additionalProperties": false,
            "properties": { "value": {}, "pretty": { "type": "boolean" } }
        })
    }

    async fn call(&self, arguments: Arguments, _: &Caller) -> Result<Value, TaskError> {
        let value = arguments.value("value");
        let text = if arguments.flag("pretty") { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        Ok(json!({ "text": text.map_err(|e| failed(e.to_string()))? }))
    }
}

/// `null` where the path leads nowhere; a list where a `*` is in the path.
fn query(value: &Value, path: &str) -> Result<Value, TaskError> {
    if path.is_empty() || path.starts_with('/') {
        return Ok(value.pointer(path).cloned().unwrap_or(Value::Null));
    }
    let steps = steps(path)?;
    let many = steps.contains(&Step::All);
    let mut current = vec![value];
    for step in &steps {
        current = current.into_iter().flat_map(|value| step.apply(value)).take(MAX_RESULTS + 1).collect();
        if current.len() > MAX_RESULTS {
            return Err(failed(format!("the path gives more than {MAX_RESULTS} values")));
        }
    }
    if many {
        return Ok(Value::Array(current.into_iter().cloned().collect()));
    }
    Ok(current.first().map_or(Value::Null, |value| (*value).clone()))
}

#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    Item(usize),
    All,
}

impl Step {
    fn apply<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Field(name), Value::Object(fields)) => fields.get(name).into_iter().collect(),
            (Self::Item(at), Value::Array(items)) => items.get(*at).into_iter().collect(),
            (Self::All, Value::Array(items)) => items.iter().collect(),
            (Self::All, Value::Object(fields)) => fields.values().collect(),
            _ => Vec::new(),
        }
    }
}

/// `$.a.b[0][*]`, the `$.` may be left out.
fn steps(path: &str) -> Result<Vec<Step>, TaskError> {
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if steps.len() == MAX_STEPS {
            return Err(failed(format!("the path has more than {MAX_STEPS} steps")));
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some(inside) = rest.strip_prefix('[') {
            let (index, after) = inside.split_once(']').ok_or_else(|| failed(format!("'[' without ']' in '{path}'")))?;
            steps.push(match index.trim_matches(['"', '\'']) {
                "*" => Step::All,
                index if index.bytes().all(|b| b.is_ascii_digit()) => {
                    Step::Item(index.parse().map_err(|_| failed(format!("'[{index}]' is no index")))?)
                }
                name => Step::Field(name.to_owned()),
            });
            rest = after;
            continue;
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        if end == 0 {
            return Err(failed(format!("'{path}' is no path: a name is missing")));
        }
        steps.push(if &rest[..end] == "*" { Step::All } else { Step::Field(rest[..end].to_owned()) });
        rest = &rest[end..];
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_and_paths() {
        let value = json!({ "items": [{ "name": "a", "tags": ["x"] }, { "name": "b" }], "odd key": 1 });
        for (path, expected) in [
            ("/items/1/name", json!("b")),
            ("items[0].name", json!("a")),
            ("$.items[*].name", json!(["a", "b"])),
            ("items.*.tags[0]", json!(["x"])),
            ("['odd key']", json!(1)),
            ("items[7].name", Value::Null),
            ("", value.clone()),
        ] {
            assert_eq!(query(&value, path).unwrap(), expected, "{path}");
        }
        for bad in ["items[0", "a..b", "items[99999999999999999999999]"] {
            assert!(query(&value, bad).is_err(), "{bad}");
        }
    }
}
