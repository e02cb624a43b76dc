//! The tools: what agents may call and `tool` steps run. One file each.

mod address;
mod calculator;
mod files;
mod http;
mod json;
mod text;

use crate::{Config, metrics, schema::Schema};
use async_trait::async_trait;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::Arc};
use tracing::{Instrument, Span, field};
use troupe_client::TaskError;

/// On whose behalf a tool is called.
#[derive(Clone, Debug)]
pub struct Caller {
    pub namespace: String,
    /// The same for every attempt of this call, and for no other call.
    pub idempotency_key: String,
}

/// One tool.
#[async_trait]
pub(crate) trait Tool: Send + Sync {
    fn name(&self) -> &'static str;
    /// For the model that may call it.
    fn description(&self) -> &'static str;
    /// JSON Schema of its arguments, an object.
    fn schema(&self) -> Value;
    /// The arguments fit the schema.
    async fn call(&self, arguments: Arguments, caller: &Caller) -> Result<Value, TaskError>;
}

/// Arguments that fit the tool's schema.
pub(crate) struct Arguments(Map<String, Value>);

impl Arguments {
    /// Empty where it is not there.
    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or("")
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name).and_then(Value::as_u64)
    }

    fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    fn value(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or(&Value::Null)
    }
}

/// All tools of this worker.
#[derive(Clone)]
pub struct Toolbox {
    tools: Arc<BTreeMap<&'static str, Entry>>,
}

struct Entry {
    tool: Box<dyn Tool>,
    schema: Schema,
}

/// A tool as a model is told of it.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    pub name: String,
    pub description: String,
    pub schema: Value,
}

impl Toolbox {
    /// The tools that these settings allow.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let mut all: Vec<Box<dyn Tool>> = vec![Box::new(calculator::Calculator)];
        all.extend(json::tools());
        all.extend(text::tools());
        all.extend(http::tools(&config.http)?);
        all.extend(files::tools(&config.files));
        let mut tools = BTreeMap::new();
        for tool in all {
            let schema = Schema::compile(&tool.schema()).map_err(|e| anyhow::anyhow!("tool {}: {e}", tool.name()))?;
            tools.insert(tool.name(), Entry { tool, schema });
        }
        Ok(Self { tools: Arc::new(tools) })
    }

    /// The tools' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.tools.keys().copied()
    }

    /// The tools that an agent's list names: `calculator`, or `text.*` for all whose name begins so.
    pub(crate) fn select(&self, patterns: &[String]) -> Result<Vec<Described>, TaskError> {
        let mut selected = Vec::new();
        for pattern in patterns {
            let before = selected.len();
            for (name, entry) in self.tools.iter() {
                let fits = pattern.strip_suffix('*').map_or(*name == pattern, |prefix| name.starts_with(prefix));
                if fits && !selected.iter().any(|d: &Described| d.name == *name) {
                    let (description, schema) = (entry.tool.description().to_owned(), entry.tool.schema());
                    selected.push(Described { name: (*name).to_owned(), description, schema });
                }
            }
            if selected.len() == before && !self.tools.contains_key(pattern.as_str()) {
                return Err(self.unknown(pattern));
            }
        }
        Ok(selected)
    }

    fn unknown(&self, name: &str) -> TaskError {
        let names: Vec<_> = self.names().collect();
        let name = crate::schema::clip(name, 80);
        TaskError::new("TOOL_NOT_FOUND", format!("there is no tool '{name}' here; there are: {}", names.join(", ")))
    }

    /// Calls a tool for an agent: the call has a span under `parent`, by OpenTelemetry's conventions for generative AI.
    pub(crate) async fn call_for_agent(&self, parent: Span, name: &str, arguments: Value, caller: &Caller) -> Result<Value, TaskError> {
        // Only a name that is there: others are made up by models.
        let known = self.tools.get_key_value(name).map_or("unknown", |(name, _)| *name);
        let span = tracing::info_span!(
            parent: &parent,
            "execute_tool",
            otel.name = format!("execute_tool {known}"),
            otel.status_code = field::Empty,
            gen_ai.operation.name = "execute_tool",
            gen_ai.tool.name = known,
            error.type = field::Empty
        );
        let result = self.call(name, arguments, caller).instrument(span.clone()).await;
        if let Err(error) = &result {
            span.record("error.type", &error.code).record("otel.status_code", "ERROR");
        }
        result
    }

    /// Calls a tool. Null arguments mean none.
    pub async fn call(&self, name: &str, arguments: Value, caller: &Caller) -> Result<Value, TaskError> {
        let Some((name, entry)) = self.tools.get_key_value(name) else { return Err(self.unknown(name)) };
        let result = Self::checked(entry, name, arguments, caller).await;
        let status = result.as_ref().map_or_else(|e| e.code.clone(), |_| "succeeded".to_owned());
        ::metrics::counter!(metrics::TOOL_CALLS, "tool" => *name, "status" => status).increment(1);
        result
    }

    async fn checked(entry: &Entry, name: &str, arguments: Value, caller: &Caller) -> Result<Value, TaskError> {
        let arguments = if arguments.is_null() { Value::Object(Map::new()) } else { arguments };
        if let Some(faults) = entry.schema.faults(&arguments) {
            return Err(TaskError::new("INVALID_INPUT", format!("the arguments of {name} do not fit:\n{faults}")));
        }
        let Value::Object(arguments) = arguments else {
            return Err(TaskError::new("INVALID_INPUT", format!("the arguments of {name} are not an object")));
        };
        entry.tool.call(Arguments(arguments), caller).await
    }
}

/// A call that failed and would fail again.
fn failed(message: impl Into<String>) -> TaskError {
    TaskError::new("TOOL_FAILED", message)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn caller() -> Caller {
        Caller { namespace: "default".to_owned(), idempotency_key: "default/run/step/0".to_owned() }
    }

    pub(crate) async fn call(config: &Config, name: &str, arguments: Value) -> Result<Value, TaskError> {
        Toolbox::new(config).unwrap().call(name, arguments, &caller()).await
    }

    #[tokio::test]
    async fn unknown_tools_and_bad_arguments_are_told() {
        let config = Config::default();
        let error = call(&config, "calculate", json!({})).await.unwrap_err();
        assert_eq!(error.code, "TOOL_NOT_FOUND");
        assert!(error.message.contains("calculator"), "{error}");
        let error = call(&config, "calculator", json!({ "expression": 5, "more": 1 })).await.unwrap_err();
        assert_eq!(error.code, "INVALID_INPUT");
        assert!(error.message.contains("/expression") && error.message.contains("more"), "{error}");
    }

    #[test]
    fn agents_get_the_tools_that_they_name() {
        let toolbox = Toolbox::new(&Config::default()).unwrap();
        let names: Vec<_> = toolbox.select(&["text.*".to_owned(), "calculator".to_owned()]).unwrap().into_iter().map(|d| d.name).collect();
        assert!(
            names.contains(&"text.count".to_owned()) && names.contains(&"calculator".to_owned()) && !names.contains(&"http.get".to_owned())
        );
        assert_eq!(toolbox.select(&["nothing".to_owned()]).unwrap_err().code, "TOOL_NOT_FOUND");
        assert!(!toolbox.names().any(|name| name.starts_with("files.")), "no root, no files");
    }
}
