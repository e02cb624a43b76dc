//! Counting, finding, replacing, splitting, shortening text.

use super::{Arguments, Caller, Tool, failed};
use async_trait::async_trait;
use regex::{Regex, RegexBuilder};
use serde_json::{Value, json};
use troupe_client::TaskError;

/// Bytes of a text.
const MAX_TEXT: usize = 4 << 20;
/// Bytes of a compiled pattern.
const MAX_PATTERN: usize = 1 << 20;
/// Matches or parts that one call gives.
const MAX_PARTS: u64 = 10_000;

pub(super) fn tools() -> Vec<Box<dyn Tool>> {
    vec![Box::new(Count), Box::new(Extract), Box::new(Replace), Box::new(Split), Box::new(Truncate)]
}

struct Count;
struct Extract;
struct Replace;
struct Split;
struct Truncate;

fn schema(required: &[&str], mut properties: Value) -> Value {
    properties["text"] = json!({ "type": "string" });
    json!({ "type": "object", "required": required, "additionalProperties": false, "properties": properties })
}

fn text(arguments: &Arguments) -> Result<&str, TaskError> {
    let text = arguments.text("text");
    if text.len() > MAX_TEXT {
        return Err(failed(format!("the text is longer than {MAX_TEXT} bytes")));
    }
    Ok(text)
}

fn pattern(arguments: &Arguments) -> Result<Regex, TaskError> {
    let source = arguments.text("pattern");
    RegexBuilder::new(source)
        .size_limit(MAX_PATTERN)
        .multi_line(true)
        .case_insensitive(arguments.flag("ignore_case"))
        .build()
        .map_err(|e| failed(format!("the pattern is not valid: {e}")))
}

fn limit(arguments: &Arguments) -> usize {
    usize::try_from(arguments.number("limit").unwrap_or(MAX_PARTS).min(MAX_PARTS)).unwrap_or(usize::MAX)
}

#[async_trait]
impl Tool for Count {
    fn name(&self) -> &'static str {
        "text.count"
    }

    fn description(&self) -> &'static str {
        "Counts the characters, words and lines of a text, and the matches of a regular expression where one is given."
    }

    fn schema(&self) -> Value {
        schema(&["text"], json!({ "pattern": { "type": "string", "maxLength": 1000 }, "ignore_case": { "type": "boolean" } }))
    }

    async fn call(&self, arguments: Arguments, _: &Caller) -> Result<Value, TaskError> {
        let text = text(&arguments)?;
        let mut counts = json!({
            "characters": text.chars().count(),
            "words": text.split_whitespace().count(),
            "lines": text.lines().count(),
        });
        if arguments.has("pattern") {
            counts["matches"] = json!(pattern(&arguments)?.find_iter(text).count());
        }
        Ok(counts)
    }
}

#[async_trait]
impl Tool for Extract {
    fn name(&self) -> &'static str {
        "text.extract"
    }

    fn description(&self) -> &'static str {
        "Finds all matches of a regular expression. Gives the matched texts, or objects of the groups where the pattern has named groups."
    }

    fn schema(&self) -> Value {
        let properties = json!({
            "pattern": { "type": "string", "minLength": 1, "maxLength": 1000 },
            "ignore_case": { "type": "boolean" },
            "group": { "type": "integer", "minimum": 0, "maximum": 100, "description": "take this group in place of the whole match" },
            "limit": { "type": "integer", "minimum": 1 }
        });
        schema(&["text", "pattern"], properties)
    }

    async fn call(&self, arguments: Arguments, _: &Caller) -> Result<Value, TaskError> {
        let (text, pattern) = (text(&arguments)?, pattern(&arguments)?);
        let group = arguments.number("group").map(|group| usize::try_from(group).unwrap_or(usize::MAX));
        let names: Vec<&str> = pattern.capture_names().flatten().collect();
        let matches: Vec<Value> = pattern
            .captures_iter(text)
            .take(limit(&arguments))
            .map(|captures| match group {
                None if !names.is_empty() => {
                    names.iter().map(|name| ((*name).to_owned(), json!(captures.name(name).map(|m| m.as_str())))).collect()
                }
                group => json!(captures.get(group.unwrap_or(0)).map(|m| m.as_str())),
            })
            .collect();
        Ok(json!({ "count": matches.len(), "matches": matches }))
    }
}

#[async_trait]
impl Tool for Replace {
    fn name(&self) -> &'static str {
        "text.replace"
    }

    fn description(&self) -> &'static str {
        "Replaces all matches of a regular expression, or of a literal text. $1 or ${name} in the replacement stand for groups."
    }

    fn schema(&self) -> Value {
        let properties = json!({
            "pattern": { "type": "string", "minLength": 1, "maxLength": 1000 },
            "with": { "type": "string", "maxLength": 10000 },
            "literal": { "type": "boolean", "description": "pattern and replacement are plain texts" },
            "ignore_case": { "type": "boolean" }
        });
        schema(&["text", "pattern", "with"], properties)
    }

    async fn call(&self, arguments: Arguments, _: &Caller) -> Result<Value, TaskError> {
        let (text, with) = (text(&arguments)?, arguments.text("with"));
        let literal = arguments.flag("literal");
        let pattern = if literal { None } else { Some(pattern(&arguments)?) };
        // The length is known before anything is built.
        let count = pattern.as_ref().map_or_else(|| text.matches(arguments.text("pattern")).count(), |p| p.find_iter(text).count());
        if text.len() + count.saturating_mul(with.len()) > MAX_TEXT {
            return Err(failed(format!("the result may be longer than {MAX_TEXT} bytes")));
        }
        let replaced = match &pattern {
            None => text.replace(arguments.text("pattern"), with),
            Some(pattern) => pattern.replace_all(text, with).into_owned(),
        };
        Ok(json!({ "text": replaced, "count": count }))
    }
}

#[async_trait]
impl Tool for Split {
    fn name(&self) -> &'static str {
        "text.split"
    }

    fn description(&self) -> &'static str {
        "Splits a text at a separator (a plain text; lines where none is given)."
    }

    fn schema(&self) -> Value {
        let properties = json!({
            "separator": { "type": "string", "minLength": 1, "maxLength": 1000 },
            "limit": { "type": "integer", "minimum": 1 }
        });
        schema(&["text"], properties)
    }

    async fn call(&self, arguments: Arguments, _: &Caller) -> Result<Value, TaskError> {
        let (text, most) = (text(&arguments)?, limit(&arguments));
        let mut parts: Vec<&str> = match arguments.text("separator") {
            "" => text.lines().take(most + 1).collect(),
            separator => text.split(separator).take(most + 1).collect(),
        };
        let cut = parts.len() > most;
        parts.truncate(most);
        Ok(json!({ "count": parts.len(), "parts": parts, "truncated": cut }))
    }
}

#[async_trait]
impl Tool for Truncate {
    fn name(&self) -> &'static str {
        "text.truncate"
    }

    fn description(&self) -> &'static str {
        "Keeps the first characters of a text."
    }

    fn schema(&self) -> Value {
        let properties = json!({
            "characters": { "type": "integer", "minimum": 0 },
            "ending": { "type": "string", "maxLength": 100, "description": "put after a text that was cut" }
        });
        schema(&["text", "characters"], properties)
    }

    async fn call(&self, arguments: Arguments, _: &Caller) -> Result<Value, TaskError> {
        let text = text(&arguments)?;
        let keep = usize::try_from(arguments.number("characters").unwrap_or(0)).unwrap_or(usize::MAX);
        let Some((end, _)) = text.char_indices().nth(keep) else { return Ok(json!({ "text": text, "truncated": false })) };
        Ok(json!({ "text": format!("{}{}", &text[..end], arguments.text("ending")), "truncated": true }))
    }
}

#[cfg(test)]
mod tests {
    use crate::{Config, tools::tests::call};
    use serde_json::{Value, json};

    async fn ok(name: &str, arguments: Value) -> Value {
        call(&Config::default(), name, arguments).await.unwrap()
    }

    #[tokio::test]
    async fn texts_are_worked_on() {
        let text = "ERROR a=1\nINFO b=2\nERROR c=3";
        let counts = ok("text.count", json!({ "text": text, "pattern": "^ERROR" })).await;
        assert_eq!(counts, json!({ "characters": 28, "words": 6, "lines": 3, "matches": 2 }));
        let found = ok("text.extract", json!({ "text": text, "pattern": "(?<key>[a-z])=(?<n>\\d)", "limit": 2 })).await;
        assert_eq!(found["matches"], json!([{ "key": "a", "n": "1" }, { "key": "b", "n": "2" }]));
        let found = ok("text.extract", json!({ "text": text, "pattern": "([a-z])=", "group": 1 })).await;
        assert_eq!(found["matches"], json!(["a", "b", "c"]));
        let replaced = ok("text.replace", json!({ "text": "a.b", "pattern": ".", "with": "-", "literal": true })).await;
        assert_eq!(replaced, json!({ "text": "a-b", "count": 1 }));
        assert_eq!(ok("text.split", json!({ "text": text, "limit": 2 })).await["truncated"], json!(true));
        assert_eq!(ok("text.truncate", json!({ "text": "äöü", "characters": 2, "ending": ".." })).await["text"], json!("äö.."));
    }

    #[tokio::test]
    async fn bombs_are_refused() {
        let bomb = json!({ "text": "a".repeat(100_000), "pattern": "a", "with": "b".repeat(10_000) });
        assert!(call(&Config::default(), "text.replace", bomb).await.unwrap_err().message.contains("longer"));
        let bomb = json!({ "text": "a", "pattern": "(?:\\w{1000}){1000}" });
        assert_eq!(call(&Config::default(), "text.extract", bomb).await.unwrap_err().code, "TOOL_FAILED");
    }
}
