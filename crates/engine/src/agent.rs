//! Agent files: YAML or JSON to an [`AgentSpec`], with the place of every mistake.

mod read;

use crate::{Limits, language::document::Doc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use troupe_domain::Fault;

/// What an agent is, as its file says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    /// The agent's name.
    pub agent: String,
    #[serde(default)]
    pub version: String,
    pub kind: AgentKind,
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// For people and for choosing by meaning.
    #[serde(default)]
    pub description: String,
    /// `llm`: the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSpec>,
    /// `llm`: the system prompt, a Jinja template over `input`, `run` and `step`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instructions: String,
    /// `llm`: the user prompt, a Jinja template; the input as JSON where none is written.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prompt: String,
    /// `code`: JavaScript; the module's default export (or function `run`) takes (input, ctx).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// `llm`: tools it may call.
    #[serde(default)]
    pub tools: Vec<String>,
    /// JSON Schema of the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// JSON Schema of the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    #[serde(default)]
    pub limits: AgentLimits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentKind {
    /// A language model with tools, run by the built-in worker.
    Llm,
    /// JavaScript in the sandbox of the built-in worker.
    Code,
    /// A process of the user's own.
    Worker,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// `anthropic`, `openai`, `gemini`, `ollama`, ... or `scripted`.
    pub provider: String,
    /// The model's name. Not needed for `scripted`.
    #[serde(default)]
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// The endpoint, for OpenAI-compatible servers of one's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// The environment variable that holds the key; the provider's usual one where none is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// `scripted`: replies in order; a text, or `{ tool, arguments }`, or `{ text }`. Texts are Jinja templates over `input` and `turn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub script: Vec<Value>,
    /// Tried in order when the model before is not to be had (no key, refused, unavailable).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<ModelSpec>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AgentLimits {
    /// Tasks at once, over all workers of one scheduler; 0: no limit.
    pub concurrency: u32,
    /// Tasks a time, in each scheduler: `60/m`, `5/s`, `1000/h`; empty: no limit.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rate: String,
    /// `llm`: model calls in one task; 0: the default, 20.
    pub max_turns: u32,
    /// `code`: time of one call, like `5s`; empty: the worker's default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub timeout: String,
    /// `code`: memory of one call in MiB; 0: the worker's default.
    pub memory_mib: u32,
}

/// Reads an agent file. All mistakes that can be seen together are reported together, in the order of the file.
pub fn parse(source: &str, limits: &Limits) -> Result<AgentSpec, Vec<Fault>> {
    let doc = Doc::read(source, limits).map_err(|fault| vec![fault])?;
    read::agent(&doc, limits)
}

/// The JSON Schema of agent files.
pub fn agent_schema() -> Value {
    schemars::schema_for!(AgentSpec).to_value()
}
