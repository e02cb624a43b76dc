//! An LLM agent at work: ask the model, call the tools it wants, until it answers. Every call of a model and of a tool is a step of the
//! task's journal, so that a retry continues after the last one and pays for none twice.

mod answer;

use crate::{
    catalog::Agent,
    config::Config,
    model::{Call, CallResult, Message, Models, Reply, Request},
    schema::clip,
    template::Templates,
    tools::{Caller, Toolbox},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use tracing::Span;
use troupe_client::{Context, TaskError};
use troupe_engine::agent::ModelSpec;

/// Tool calls of one answer; what goes beyond is told to the model.
const MAX_CALLS: usize = 16;
/// Bytes of one tool result as the model sees it.
const MAX_RESULT: usize = 64 << 10;

pub(crate) struct Llm {
    models: Models,
    toolbox: Toolbox,
    templates: Arc<Templates>,
    max_turns: u32,
}

/// A tool's outcome as it is recorded.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Outcome {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A task on its way.
struct Talk<'a> {
    context: &'a Context,
    agent: &'a Agent,
    model: &'a ModelSpec,
    request: Request,
    /// What the tools gave, in order, for scripts.
    results: Vec<Value>,
}

impl Llm {
    pub(crate) fn new(config: &Config, models: Models, toolbox: Toolbox, templates: Arc<Templates>) -> Self {
        Self { models, toolbox, templates, max_turns: config.llm.max_turns }
    }

    /// The agent's answer to `input`.
    pub(crate) async fn run(&self, context: &Context, agent: &Agent, input: &Value) -> Result<Value, TaskError> {
        let spec = &agent.spec;
        let model = spec.model.as_ref().ok_or_else(|| TaskError::new("MODEL_NOT_CONFIGURED", "the agent's file names no model"))?;
        let facts = json!({
            "input": input,
            "run": { "id": context.run_id(), "workflow": context.workflow() },
            "step": { "id": context.step_path(), "attempt": context.attempt() },
        });
        let request = Request {
            system: self.system(agent, &facts)?,
            messages: vec![Message::User(self.prompt(context, agent, input, &facts)?)],
            tools: self.toolbox.select(&spec.tools)?,
            turn: 0,
            facts,
        };
        let mut talk = Talk { context, agent, model, request, results: Vec::new() };
        let turns = if spec.limits.max_turns == 0 { self.max_turns } else { spec.limits.max_turns };
        let mut fault = None;
        for turn in 0..turns {
            talk.request.turn = turn;
            let reply = self.ask(&mut talk).await?;
            if !reply.calls.is_empty() {
                self.call_tools(&mut talk, reply).await?;
                continue;
            }
            match answer::read(&reply, agent.output.as_ref()) {
                Ok(output) => return Ok(output),
                Err(message) => {
                    talk.correct(reply.text, &message);
                    fault = Some(message);
                }
            }
        }
        Err(match fault {
            Some(fault) => {
                TaskError::retryable("OUTPUT_INVALID", format!("after {turns} model calls the answer still does not fit: {fault}"))
            }
            None => TaskError::new("TURNS_EXHAUSTED", format!("no answer after {turns} model calls (limits.max_turns of the agent)")),
        })
    }

    fn system(&self, agent: &Agent, facts: &Value) -> Result<String, TaskError> {
        let mut system = self.templates.render("instructions", &agent.spec.instructions, facts)?;
        if let Some(schema) = &agent.spec.output {
            if !system.is_empty() {
                system.push_str("\n\n");
            }
            system.push_str(&answer::wanted(schema));
        }
        Ok(system)
    }

    fn prompt(&self, context: &Context, agent: &Agent, input: &Value, facts: &Value) -> Result<String, TaskError> {
        let mut prompt = match agent.spec.prompt.as_str() {
            "" => input.to_string(),
            template => self.templates.render("prompt", template, facts)?,
        };
        if !context.feedback().is_empty() {
            prompt.push_str("\n\nAn earlier answer was not accepted:\n");
            prompt.push_str(context.feedback());
        }
        Ok(prompt)
    }

    async fn ask(&self, talk: &mut Talk<'_>) -> Result<Reply, TaskError> {
        talk.refresh();
        let Talk { context, model, request, .. } = &*talk;
        let name = format!("model:{}", request.turn);
        context
            .step(&name, || async {
                let sink = |text: &str| context.text(text);
                let note = |text: &str| context.chunk("log", text.as_bytes());
                let reply = context.waiting(self.models.ask(model, request, &sink, &note)).await?;
                if reply.is_scripted() {
                    note("scripted model: no language model was called");
                }
                if reply.cut {
                    note("the answer was cut at the limit of tokens (model.max_tokens)");
                }
                context.json("usage", &reply.usage_chunk());
                Ok(reply)
            })
            .await
    }

    async fn call_tools(&self, talk: &mut Talk<'_>, reply: Reply) -> Result<(), TaskError> {
        let mut results = Vec::new();
        for (at, call) in reply.calls.iter().enumerate() {
            let outcome = if at < MAX_CALLS { self.call_tool(talk, at, call).await? } else { too_many() };
            let content = match &outcome {
                Outcome { error: Some(error), .. } => format!("error: {error}"),
                Outcome { result, .. } => result.clone().unwrap_or(Value::Null).to_string(),
            };
            let content = clip(&content, MAX_RESULT);
            results.push(CallResult { id: call.id.clone(), name: call.name.clone(), content });
            talk.results.push(json!(outcome));
        }
        talk.request.messages.push(Message::Assistant { text: reply.text, calls: reply.calls });
        talk.request.messages.push(Message::Results(results));
        Ok(())
    }

    /// One call. A tool's failure is the model's to handle, so it is recorded like a result.
    async fn call_tool(&self, talk: &Talk<'_>, at: usize, call: &Call) -> Result<Outcome, TaskError> {
        let known = talk.request.tools.iter().any(|tool| tool.name == call.name);
        let name = format!("tool:{}:{}:{at}", if known { &call.name } else { "unknown" }, talk.request.turn);
        let context = talk.context;
        context
            .step(&name, || async {
                context
                    .json("tool_call", &json!({ "tool": clip(&call.name, 100), "arguments": call.arguments, "turn": talk.request.turn }));
                if !known {
                    let names: Vec<_> = talk.request.tools.iter().map(|tool| tool.name.as_str()).collect();
                    return Ok(Outcome { result: None, error: Some(format!("there is no such tool; there are: {}", names.join(", "))) });
                }
                let caller = Caller { namespace: context.namespace().to_owned(), idempotency_key: context.step_key() };
                let result = self.toolbox.call_for_agent(Span::current(), &call.name, call.arguments.clone(), &caller);
                Ok(match context.waiting(result).await {
                    Ok(result) => Outcome { result: Some(result), error: None },
                    Err(error) => Outcome { result: None, error: Some(error.to_string()) },
                })
            })
            .await
    }
}

fn too_many() -> Outcome {
    Outcome { result: None, error: Some(format!("not called: at most {MAX_CALLS} calls in one answer")) }
}

impl Talk<'_> {
    /// Tells templates of scripts where the task is.
    fn refresh(&mut self) {
        self.request.facts["turn"] = json!(self.request.turn);
        self.request.facts["results"] = json!(self.results);
        self.request.facts["last"] = self.results.last().cloned().unwrap_or(Value::Null);
    }

    /// The answer does not fit: the model hears why.
    fn correct(&mut self, text: String, fault: &str) {
        self.context.chunk("log", format!("the answer of {} does not fit its schema; asking again", self.agent.spec.agent).as_bytes());
        self.request.messages.push(Message::Assistant { text, calls: Vec::new() });
        let message = format!("That answer was not accepted:\n{fault}\nAnswer again, with the corrected JSON value and nothing else.");
        self.request.messages.push(Message::User(message));
    }
}
