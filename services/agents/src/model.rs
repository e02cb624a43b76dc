//! What the agent loop knows of a language model. Providers are behind it, one file each.

mod classify;
mod provider;
mod scripted;

use crate::{
    config::{LlmConfig, span},
    metrics,
    template::Templates,
    tools::Described,
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{sync::Arc, time::Instant};
use tracing::{Instrument, field};
use troupe_client::TaskError;
use troupe_engine::agent::ModelSpec;

/// How deep fallbacks may nest, and how many there may be.
const MAX_MODELS: usize = 8;

/// Reads a variable of the environment.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Takes text as it comes.
pub(crate) type Sink<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// One call of a model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub system: String,
    pub messages: Vec<Message>,
    pub tools: Vec<Described>,
    /// Model calls of this task before this one.
    pub turn: u32,
    /// What templates of scripts see: input, run, step, turn, results, last.
    pub facts: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Message {
    User(String),
    Assistant {
        text: String,
        calls: Vec<Call>,
    },
    /// The results of all calls of the message before.
    Results(Vec<CallResult>),
}

/// A tool call that a model wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// Ours, unique in the task: providers' own are not always.
    pub id: String,
    pub name: String,
    pub arguments: Value,
    /// What the provider wants back with the call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct CallResult {
    pub id: String,
    pub name: String,
    /// JSON, or a text that begins with "error".
    pub content: String,
}

/// What a model answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// "provider/name"; "scripted" where no model was called.
    pub model: String,
    pub text: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<Call>,
    pub usage: Usage,
    /// The answer was cut at the limit of tokens.
    #[serde(default)]
    pub cut: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub input_tokens: u32,
    pub output_tokens: u32,
}

/// A model of one provider, ready to be called.
#[async_trait]
pub(crate) trait Model: Send + Sync {
    /// Fails with `RATE_LIMITED`, `MODEL_UNAVAILABLE`, `MODEL_REFUSED`, `MODEL_NOT_CONFIGURED` or `INVALID_INPUT`.
    async fn reply(&self, request: &Request, sink: Sink<'_>) -> Result<Reply, TaskError>;
}

/// Makes models of their specs.
pub(crate) struct Models {
    client: genai::Client,
    config: LlmConfig,
    environment: Environment,
    templates: Arc<Templates>,
}

impl Models {
    pub(crate) fn new(config: &LlmConfig, environment: Environment, templates: Arc<Templates>) -> anyhow::Result<Self> {
        // Redirects could carry a key to another host.
        let http = reqwest::Client::builder()
            .connect_timeout(std::time::Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let client = genai::Client::builder().with_reqwest(http).build().map_err(|e| anyhow::anyhow!("{e}"))?;
        Ok(Self { client, config: config.clone(), environment, templates })
    }

    fn make(&self, spec: &ModelSpec) -> Result<Box<dyn Model>, TaskError> {
        if spec.provider == scripted::PROVIDER {
            return Ok(Box::new(scripted::Scripted::new(spec, Arc::clone(&self.templates))));
        }
        Ok(Box::new(provider::Provider::new(spec, self)?))
    }

    /// Asks the model, and where it is not to be had its fallbacks in order. `note` hears of each that was not.
    pub(crate) async fn ask(&self, spec: &ModelSpec, request: &Request, sink: Sink<'_>, note: Sink<'_>) -> Result<Reply, TaskError> {
        let mut chain = Vec::new();
        flatten(spec, &mut chain);
        let mut failure: Option<TaskError> = None;
        for spec in chain {
            match self.ask_one(spec, request, sink).await {
                Ok(reply) => return Ok(reply),
                Err(error) => {
                    note(&format!("model {} is not to be had: {error}", label(spec)));
                    let lasting = error.code == "INVALID_INPUT";
                    failure = Some(worse(failure, error));
                    if lasting {
                        break;
                    }
                }
            }
        }
        Err(failure.unwrap_or_else(|| TaskError::new("MODEL_NOT_CONFIGURED", "the agent names no model")))
    }

    async fn ask_one(&self, spec: &ModelSpec, request: &Request, sink: Sink<'_>) -> Result<Reply, TaskError> {
        // Names by OpenTelemetry's conventions for generative AI.
        let call = tracing::info_span!(
            "chat",
            otel.name = format!("chat {}", spec.name),
            otel.kind = "client",
            otel.status_code = field::Empty,
            gen_ai.operation.name = "chat",
            gen_ai.provider.name = spec.provider,
            gen_ai.request.model = spec.name,
            gen_ai.response.model = field::Empty,
            gen_ai.usage.input_tokens = field::Empty,
            gen_ai.usage.output_tokens = field::Empty,
            error.type = field::Empty
        );
        let begun = Instant::now();
        let result = async { self.make(spec)?.reply(request, sink).await }.instrument(call.clone()).await;
        let status = result.as_ref().map_or_else(|e| e.code.clone(), |_| "succeeded".to_owned());
        ::metrics::counter!(metrics::MODEL_CALLS, "provider" => spec.provider.clone(), "status" => status.clone()).increment(1);
        match &result {
            Ok(reply) => {
                let Usage { input_tokens, output_tokens } = reply.usage;
                call.record("gen_ai.response.model", &reply.model);
                call.record("gen_ai.usage.input_tokens", input_tokens);
                call.record("gen_ai.usage.output_tokens", output_tokens);
                for (direction, tokens) in [("input", input_tokens), ("output", output_tokens)] {
                    let provider = spec.provider.clone();
                    ::metrics::counter!(metrics::TOKENS, "provider" => provider, "direction" => direction).increment(u64::from(tokens));
                }
                tracing::debug!(
                    model = reply.model,
                    input_tokens,
                    output_tokens,
                    duration_ms = begun.elapsed().as_millis(),
                    "model answered"
                );
            }
            Err(_) => {
                call.record("error.type", status).record("otel.status_code", "ERROR");
            }
        }
        result
    }

    fn first_byte_timeout(&self) -> std::time::Duration {
        span(&self.config.first_byte_timeout)
    }

    fn idle_timeout(&self) -> std::time::Duration {
        span(&self.config.idle_timeout)
    }
}

/// The model and its fallbacks in the order in which they are tried.
fn flatten<'a>(spec: &'a ModelSpec, chain: &mut Vec<&'a ModelSpec>) {
    if chain.len() < MAX_MODELS {
        chain.push(spec);
        for fallback in &spec.fallback {
            flatten(fallback, chain);
        }
    }
}

/// Of two failures the one to be told: one that a later attempt may cure comes before one that it would not.
fn worse(before: Option<TaskError>, now: TaskError) -> TaskError {
    match before {
        Some(before) if before.retryable || !now.retryable => {
            TaskError { message: format!("{}; then {}: {}", before.message, now.code, now.message), ..before }
        }
        Some(before) => TaskError { message: format!("{}; before that {}: {}", now.message, before.code, before.message), ..now },
        None => now,
    }
}

fn label(spec: &ModelSpec) -> String {
    if spec.name.is_empty() { spec.provider.clone() } else { format!("{}/{}", spec.provider, spec.name) }
}

impl Reply {
    /// For those who watch.
    pub(crate) fn usage_chunk(&self) -> Value {
        json!({ "model": self.model, "input_tokens": self.usage.input_tokens, "output_tokens": self.usage.output_tokens })
    }

    pub(crate) fn is_scripted(&self) -> bool {
        self.model == scripted::PROVIDER
    }
}

/// The id of a call, ours.
fn call_id(turn: u32, position: usize) -> String {
    format!("call_{turn}_{position}")
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
