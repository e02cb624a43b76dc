//! Models of real providers, through genai.

use super::{Call, Message, Model, Models, Reply, Request, Sink, Usage, call_id, classify::classify, label};
use crate::tools::Described;
use async_trait::async_trait;
use futures::StreamExt;
use genai::{
    ModelIden, ServiceTarget,
    adapter::AdapterKind,
    chat::{
        ChatMessage, ChatOptions, ChatRequest, ChatStreamEvent, ContentPart, MessageContent, StopReason, StreamEnd, Tool, ToolCall,
        ToolResponse,
    },
    resolver::{AuthData, Endpoint},
};
use troupe_client::TaskError;
use troupe_engine::agent::ModelSpec;

/// Stands in for a key where a server of one's own wants none; the header must hold something.
const NO_KEY: &str = "none";
/// What a variable that an agent file names as its key must end with, so that it cannot name just any secret.
const KEY_SUFFIX: &str = "_API_KEY";

pub(super) struct Provider {
    client: genai::Client,
    model: ModelIden,
    access: Access,
    label: String,
    options: ChatOptions,
    max_answer_bytes: usize,
}

/// Where a model is, and what opens it.
struct Access {
    /// None: the provider's own.
    base_url: Option<String>,
    key: Option<String>,
    /// For messages: where the key comes from.
    key_from: String,
}

impl Provider {
    /// Fails with `MODEL_NOT_CONFIGURED` when the provider is not known or its key is missing.
    pub(super) fn new(spec: &ModelSpec, models: &Models) -> Result<Self, TaskError> {
        let label = label(spec);
        let adapter = adapter(&spec.provider)?;
        if spec.name.is_empty() {
            return Err(TaskError::new("MODEL_NOT_CONFIGURED", format!("the agent names no model of {}: set model.name", spec.provider)));
        }
        let access = access(spec, adapter, models, &label)?;
        let mut options = ChatOptions::default()
            .with_capture_usage(true)
            .with_capture_content(true)
            .with_capture_tool_calls(true)
            // Otherwise some providers are asked for their largest answer.
            .with_max_tokens(spec.max_tokens.unwrap_or(models.config.max_tokens))
            .with_stream_header_timeout(models.first_byte_timeout())
            .with_stream_read_timeout(models.idle_timeout());
        options.temperature = spec.temperature;
        Ok(Self {
            client: models.client.clone(),
            model: ModelIden::new(adapter, spec.name.clone()),
            access,
            label,
            options,
            max_answer_bytes: models.config.max_answer_bytes,
        })
    }

    async fn target(&self) -> Result<ServiceTarget, TaskError> {
        let resolved = self.client.resolve_service_target(self.model.clone()).await;
        let mut target = resolved.map_err(|e| classify(&e, &self.label, &self.access.key_from))?;
        if let Some(url) = &self.access.base_url {
            target.endpoint = Endpoint::from_owned(url.clone());
        }
        target.auth = AuthData::from_single(self.access.key.clone().unwrap_or_else(|| NO_KEY.to_owned()));
        Ok(target)
    }
}

fn adapter(provider: &str) -> Result<AdapterKind, TaskError> {
    let name = match provider {
        "google" => "gemini",
        other => other,
    };
    AdapterKind::from_lower_str(name).ok_or_else(|| {
        let known = "anthropic, openai, gemini, ollama, mistral, groq, deepseek, xai, cohere, open_router, bedrock_api, scripted";
        TaskError::new("MODEL_NOT_CONFIGURED", format!("there is no provider '{provider}'; there are {known} and others"))
    })
}

/// Fails with `MODEL_NOT_CONFIGURED` when a key is needed and is not there.
fn access(spec: &ModelSpec, adapter: AdapterKind, models: &Models, label: &str) -> Result<Access, TaskError> {
    let read = |name: &str| (models.environment)(name).filter(|value| !value.is_empty());
    let missing = |name: &str| TaskError::new("MODEL_NOT_CONFIGURED", format!("{label} needs a key: set the environment variable {name}"));
    // The operator's own endpoint ("OPENAI_BASE_URL") is as trusted as the operator's key.
    let operators = adapter.default_key_env_name().and_then(|name| read(&name.replace(KEY_SUFFIX, "_BASE_URL")));
    let own = spec.base_url.is_some() || operators.is_some();
    let base_url = spec.base_url.clone().or(operators).map(|url| with_slash(&url));
    if let Some(name) = &spec.api_key_env {
        if !name.ends_with(KEY_SUFFIX) {
            let message = format!("model.api_key_env is '{name}', but only variables whose name ends with {KEY_SUFFIX} are read");
            return Err(TaskError::new("MODEL_NOT_CONFIGURED", message));
        }
        let key = read(name).ok_or_else(|| missing(name))?;
        return Ok(Access { base_url, key: Some(key), key_from: name.clone() });
    }
    let Some(name) = adapter.default_key_env_name() else {
        return Ok(Access { base_url, key: None, key_from: "nothing".to_owned() });
    };
    let trusted = match &spec.base_url {
        Some(url) => models.config.trusted_base_urls.iter().any(|prefix| with_slash(url).starts_with(prefix.as_str())),
        None => true,
    };
    match read(name) {
        Some(key) if trusted => Ok(Access { base_url, key: Some(key), key_from: name.to_owned() }),
        // A server of one's own may want no key.
        _ if own => Ok(Access { base_url, key: None, key_from: "model.api_key_env in the agent's file".to_owned() }),
        _ => Err(missing(name)),
    }
}

/// Paths are joined to it: without the slash the last part would be replaced.
fn with_slash(url: &str) -> String {
    if url.ends_with('/') { url.to_owned() } else { format!("{url}/") }
}

#[async_trait]
impl Model for Provider {
    async fn reply(&self, request: &Request, sink: Sink<'_>) -> Result<Reply, TaskError> {
        let failed = |error: &genai::Error| classify(error, &self.label, &self.access.key_from);
        let target = self.target().await?;
        let response = self.client.exec_chat_stream(target, chat(request), Some(&self.options)).await.map_err(|e| failed(&e))?;
        let mut stream = response.stream;
        let mut bytes = 0;
        while let Some(event) = stream.next().await {
            match event.map_err(|e| failed(&e))? {
                ChatStreamEvent::Chunk(chunk) => {
                    bytes += chunk.content.len();
                    if bytes > self.max_answer_bytes {
                        let message = format!("{} answered with more than {} bytes", self.label, self.max_answer_bytes);
                        return Err(TaskError::new("OUTPUT_TOO_LARGE", message));
                    }
                    sink(&chunk.content);
                }
                ChatStreamEvent::End(end) => return self.ended(request, end),
                _ => {}
            }
        }
        Err(TaskError::retryable("MODEL_UNAVAILABLE", format!("{} broke off its answer", self.label)))
    }
}

impl Provider {
    fn ended(&self, request: &Request, mut end: StreamEnd) -> Result<Reply, TaskError> {
        if let Some(StopReason::ContentFilter(reason)) = &end.captured_stop_reason {
            return Err(TaskError::new("MODEL_REFUSED", format!("{} refused to answer ({reason})", self.label)));
        }
        let cut = matches!(end.captured_stop_reason, Some(StopReason::MaxTokens(_)));
        let usage = end.captured_usage.take().unwrap_or_default();
        let tokens = |count: Option<i32>| count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        let (mut text, mut calls) = (String::new(), Vec::new());
        for part in end.captured_content.into_iter().flat_map(MessageContent::into_parts) {
            match part {
                ContentPart::Text(part) => text.push_str(&part),
                ContentPart::ToolCall(call) => calls.push(own_call(request, calls.len(), call)),
                _ => {}
            }
        }
        Ok(Reply {
            model: self.label.clone(),
            text,
            calls,
            usage: Usage { input_tokens: tokens(usage.prompt_tokens), output_tokens: tokens(usage.completion_tokens) },
            cut,
        })
    }
}

fn own_call(request: &Request, position: usize, call: ToolCall) -> Call {
    let known = request.tools.iter().find(|tool| wire_name(&tool.name) == call.fn_name);
    Call {
        id: call_id(request.turn, position),
        name: known.map_or(call.fn_name, |tool| tool.name.clone()),
        arguments: call.fn_arguments,
        signatures: call.thought_signatures.unwrap_or_default(),
    }
}

/// Providers allow no dot in a tool's name.
fn wire_name(name: &str) -> String {
    name.replace('.', "__")
}

fn chat(request: &Request) -> ChatRequest {
    let messages: Vec<ChatMessage> = request.messages.iter().map(chat_message).collect();
    let mut chat = ChatRequest::new(messages);
    if !request.system.is_empty() {
        chat = chat.with_system(&request.system);
    }
    if !request.tools.is_empty() {
        chat = chat.with_tools(request.tools.iter().map(chat_tool));
    }
    chat
}

fn chat_tool(tool: &Described) -> Tool {
    Tool::new(wire_name(&tool.name)).with_description(&tool.description).with_schema(tool.schema.clone())
}

fn chat_message(message: &Message) -> ChatMessage {
    match message {
        Message::User(text) => ChatMessage::user(text.clone()),
        Message::Assistant { text, calls } => {
            let mut parts = Vec::new();
            if !text.is_empty() {
                parts.push(ContentPart::Text(text.clone()));
            }
            parts.extend(calls.iter().map(|call| {
                ContentPart::ToolCall(ToolCall {
                    call_id: call.id.clone(),
                    fn_name: wire_name(&call.name),
                    fn_arguments: call.arguments.clone(),
                    thought_signatures: (!call.signatures.is_empty()).then(|| call.signatures.clone()),
                })
            }));
            ChatMessage::assistant(MessageContent::from_parts(parts))
        }
        Message::Results(results) => {
            let responses = results.iter().map(|result| ToolResponse {
                call_id: result.id.clone(),
                fn_name: Some(wire_name(&result.name)),
                content: result.content.clone(),
            });
            ChatMessage::tool(MessageContent::from_tool_responses(responses.collect()))
        }
    }
}
