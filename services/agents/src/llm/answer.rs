//! From a model's text to the agent's output.

use crate::{model::Reply, schema::Schema};
use serde_json::{Value, json};

/// What the model is told when a schema is set.
pub(super) fn wanted(schema: &Value) -> String {
    format!("Answer with one JSON value and nothing else: no explanation, no code fence. It must fit this JSON Schema:\n{schema}")
}

/// Without a schema `{ "text": ... }`; with one, the JSON value in the text. The error is for the model.
pub(super) fn read(reply: &Reply, schema: Option<&Schema>) -> Result<Value, String> {
    let Some(schema) = schema else { return Ok(json!({ "text": reply.text })) };
    let value = find_json(&reply.text).ok_or_else(|| {
        let cut = if reply.cut { " It was cut off: be shorter." } else { "" };
        format!("It is not JSON.{cut}")
    })?;
    match schema.faults(&value) {
        None => Ok(value),
        Some(faults) => Err(faults),
    }
}

/// The whole text, the inside of its code fence, or what stands between its outermost brackets.
fn find_json(text: &str) -> Option<Value> {
    let parse = |text: &str| troupe_domain::Json::parse(text.trim().as_bytes(), "answer").ok().map(|json| json.to_value());
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    if let Some(value) = parse(text) {
        return Some(value);
    }
    if let Some((_, rest)) = text.split_once("```") {
        // The first line of a fence names the language.
        let inside = rest.split_once('\n').map_or(rest, |(_, inside)| inside);
        let inside = inside.split("```").next().unwrap_or(inside).trim();
        if !inside.is_empty()
            && let Some(value) = parse(inside)
        {
            return Some(value);
        }
    }
    let start = text.find(['{', '['])?;
    let end = text.rfind(['}', ']'])?;
    (start < end).then(|| parse(&text[start..=end]))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_found_in_what_models_say() {
        for text in [
            "{\"a\":1}",
            "```json\n{\"a\": 1}\n```",
            "Here you are:\n```\n{\"a\":1}\n```\nAnything else?",
            "Sure! {\"a\":1} - done.",
            "  \n{\"a\":1}\n",
        ] {
            assert_eq!(find_json(text), Some(json!({ "a": 1 })), "{text}");
        }
        for text in ["", "no", "{\"a\":", "```json\n```", &"[".repeat(100_000)] {
            assert_eq!(find_json(text), None, "{}", &text[..text.len().min(20)]);
        }
    }
}
