//! A model that is none: it says what its script says. For demos and tests, and it tells everybody so.

use super::{Call, Model, Reply, Request, Sink, Usage, call_id};
use crate::template::Templates;
use async_trait::async_trait;
use serde_json::{Map, Value};
use std::sync::Arc;
use troupe_client::TaskError;
use troupe_engine::agent::ModelSpec;

/// The provider's name, and the model's name in every output.
pub(super) const PROVIDER: &str = "scripted";

/// What is answered where no script is written.
const UNWRITTEN: &str = "This is a scripted answer: no language model was called, and no script was written.";

pub(super) struct Scripted {
    script: Vec<Value>,
    templates: Arc<Templates>,
}

impl Scripted {
    pub(super) fn new(spec: &ModelSpec, templates: Arc<Templates>) -> Self {
        Self { script: spec.script.clone(), templates }
    }

    fn entry(&self, turn: u32) -> Result<Value, TaskError> {
        if self.script.is_empty() {
            return Ok(Value::from(UNWRITTEN));
        }
        let entry = usize::try_from(turn).ok().and_then(|turn| self.script.get(turn));
        entry.cloned().ok_or_else(|| {
            let message =
                format!("the script has {} replies, and reply {} was asked for: write it under model.script", self.script.len(), turn + 1);
            TaskError::new("SCRIPT_ENDED", message)
        })
    }

    /// The text of a reply; what is no text becomes JSON.
    fn text(&self, what: &str, value: &Value, facts: &Value) -> Result<String, TaskError> {
        Ok(match self.templates.render_value(what, value, facts)? {
            Value::String(text) => text,
            other => other.to_string(),
        })
    }

    fn call(&self, request: &Request, position: usize, fields: &Map<String, Value>) -> Result<Call, TaskError> {
        let what = format!("script[{}]", request.turn);
        let name = fields.get("tool").and_then(Value::as_str).unwrap_or_default().to_owned();
        let arguments = fields.get("arguments").cloned().unwrap_or_else(|| Value::Object(Map::new()));
        let arguments = self.templates.render_value(&what, &arguments, &request.facts)?;
        Ok(Call { id: call_id(request.turn, position), name, arguments, signatures: Vec::new() })
    }
}

#[async_trait]
impl Model for Scripted {
    async fn reply(&self, request: &Request, sink: Sink<'_>) -> Result<Reply, TaskError> {
        let what = format!("script[{}]", request.turn);
        let (mut text, mut calls) = (String::new(), Vec::new());
        match self.entry(request.turn)? {
            Value::Object(fields) => {
                if let Some(value) = fields.get("text") {
                    text = self.text(&what, value, &request.facts)?;
                }
                if fields.contains_key("tool") {
                    calls.push(self.call(request, 0, &fields)?);
                }
                // Several calls in one reply: { tools: [{ tool, arguments }, ...] }.
                for (at, entry) in fields.get("tools").and_then(Value::as_array).into_iter().flatten().enumerate() {
                    if let Value::Object(fields) = entry {
                        calls.push(self.call(request, at, fields)?);
                    }
                }
            }
            value => text = self.text(&what, &value, &request.facts)?,
        }
        // Word by word, as a model would, without its pauses.
        for word in text.split_inclusive(char::is_whitespace) {
            sink(word);
        }
        Ok(Reply { model: PROVIDER.to_owned(), text, calls, usage: Usage::default(), cut: false })
    }
}
