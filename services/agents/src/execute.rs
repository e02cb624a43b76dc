//! Gives each task to what its agent is, and checks what goes in and comes out.

use crate::{
    catalog::{Agent, Catalog},
    config::{Config, span},
    llm::Llm,
    metrics,
    sandbox::{Host, Job, Limits, Sandbox},
    schema::Schema,
    tools::{Caller, Described, Toolbox},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::runtime::Handle;
use tracing::Span;
use troupe_client::{Context, Json, TaskError};
use troupe_engine::agent::AgentKind;
use troupe_proto::common::v1::target::Kind as TargetKind;

pub(crate) struct Executor {
    pub catalog: Arc<Catalog>,
    pub toolbox: Toolbox,
    pub llm: Llm,
    pub sandbox: Sandbox,
    pub config: Config,
}

impl Executor {
    /// One task.
    pub(crate) async fn execute(&self, context: Context, input: Json) -> Result<Json, TaskError> {
        let begun = Instant::now();
        let target = context.task().target.as_ref().and_then(|target| target.kind.as_ref());
        let (kind, result) = match target {
            Some(TargetKind::Tool(tool)) => ("tool", self.tool(&context, tool, &input).await),
            _ => match self.agent(&context) {
                Ok(agent) if agent.spec.kind == AgentKind::Llm => ("llm", self.llm(&context, &agent, &input).await),
                Ok(agent) => ("code", self.code(&context, &agent, &input).await),
                Err(error) => ("unknown", Err(error)),
            },
        };
        let result = result.and_then(|output| self.fits(output));
        let status = if result.is_ok() { "succeeded" } else { "failed" };
        ::metrics::counter!(metrics::TASKS, "kind" => kind, "status" => status).increment(1);
        ::metrics::histogram!(metrics::TASK_DURATION, "kind" => kind).record(begun.elapsed().as_secs_f64());
        result
    }

    fn agent(&self, context: &Context) -> Result<Arc<Agent>, TaskError> {
        let agent = self.catalog.get(context.namespace(), context.agent());
        let agent = agent.ok_or_else(|| {
            TaskError::retryable("AGENT_NOT_SERVED", format!("the agent '{}' is not served by this worker any more", context.agent()))
        })?;
        agent.check()?;
        Ok(agent)
    }

    fn fits(&self, output: Json) -> Result<Json, TaskError> {
        if output.len() <= self.config.max_output_bytes {
            return Ok(output);
        }
        let limit = self.config.max_output_bytes;
        Err(TaskError::new(
            "OUTPUT_TOO_LARGE",
            format!("the output has {} bytes, and {limit} are allowed (agents.max_output_bytes)", output.len()),
        ))
    }

    /// A `tool` step: one call, recorded.
    async fn tool(&self, context: &Context, tool: &str, input: &Json) -> Result<Json, TaskError> {
        // Its span is that of the task.
        let result = context
            .step(&format!("tool:{tool}"), || {
                let caller = caller(context);
                async move { context.waiting(self.toolbox.call(tool, input.to_value(), &caller)).await }
            })
            .await?;
        Ok(Json::from(result))
    }

    async fn llm(&self, context: &Context, agent: &Agent, input: &Json) -> Result<Json, TaskError> {
        let input = input.to_value();
        check_input(agent, &input)?;
        Ok(Json::from(self.llm.run(context, agent, &input).await?))
    }

    async fn code(&self, context: &Context, agent: &Agent, input: &Json) -> Result<Json, TaskError> {
        if agent.input.is_some() {
            check_input(agent, &input.to_value())?;
        }
        let host = TaskHost {
            context: context.clone(),
            toolbox: self.toolbox.clone(),
            allowed: self.toolbox.select(&agent.spec.tools)?,
            handle: Handle::current(),
            calls: AtomicU32::new(0),
            span: Span::current(),
        };
        let job = Job {
            code: agent.spec.code.clone(),
            input: input.as_str().to_owned(),
            facts: json!({
                "agent": agent.spec.agent,
                "step": context.step_path(),
                "run": context.run_id(),
                "workflow": context.workflow(),
                "namespace": context.namespace(),
                "attempt": context.attempt(),
                "feedback": context.feedback(),
            }),
            limits: self.limits(agent)?,
            seed: seed(context),
            now_ms: enqueued_ms(context),
            host: Arc::new(host),
        };
        let text = context.waiting(self.sandbox.run(job)).await?;
        let output = Json::parse(text.as_bytes(), "output").map_err(|e| TaskError::new("OUTPUT_INVALID", e.message))?;
        if let Some(faults) = agent.output.as_ref().and_then(|schema: &Schema| schema.faults(&output.to_value())) {
            // The same code gives the same output: another attempt would not help.
            return Err(TaskError::new("OUTPUT_INVALID", format!("the output does not fit the agent's schema:\n{faults}")));
        }
        Ok(output)
    }

    fn limits(&self, agent: &Agent) -> Result<Limits, TaskError> {
        let (settings, own) = (&self.config.sandbox, &agent.spec.limits);
        let time = match own.timeout.as_str() {
            "" => span(&settings.timeout),
            text => troupe_domain::parse_span(text).map_err(|e| TaskError::new("AGENT_INVALID", format!("limits.timeout: {e}")))?,
        };
        let mib = if own.memory_mib == 0 { settings.memory_mib } else { own.memory_mib };
        Ok(Limits {
            time: time.min(span(&settings.max_timeout)).max(Duration::from_millis(1)),
            memory_bytes: (mib.min(settings.max_memory_mib) as usize) << 20,
            stack_bytes: (settings.stack_kib as usize) << 10,
            output_bytes: self.config.max_output_bytes,
            log_lines: settings.max_log_lines,
        })
    }
}

fn check_input(agent: &Agent, input: &Value) -> Result<(), TaskError> {
    match agent.input.as_ref().and_then(|schema| schema.faults(input)) {
        Some(faults) => {
            Err(TaskError::new("INVALID_INPUT", format!("the input does not fit the schema of {}:\n{faults}", agent.spec.agent)))
        }
        None => Ok(()),
    }
}

/// On whose behalf a tool is called inside a step of the task's journal.
fn caller(context: &Context) -> Caller {
    Caller { namespace: context.namespace().to_owned(), idempotency_key: context.step_key() }
}

/// Of the task, not of the attempt: a retry sees the same chance.
fn seed(context: &Context) -> [u32; 4] {
    let digest = Sha256::digest(context.idempotency_key().as_bytes());
    let mut seed = [0; 4];
    for (word, bytes) in seed.iter_mut().zip(digest.chunks_exact(4)) {
        *word = bytes.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte));
    }
    seed
}

/// When the task was put into its queue; 0 where nobody said.
fn enqueued_ms(context: &Context) -> i64 {
    context.task().enqueued_at.as_ref().map_or(0, |at| at.seconds * 1000 + i64::from(at.nanos / 1_000_000))
}

/// A task as its code sees it.
struct TaskHost {
    context: Context,
    toolbox: Toolbox,
    allowed: Vec<Described>,
    handle: Handle,
    calls: AtomicU32,
    /// The task's: the sandbox has a thread of its own, which is in no span.
    span: Span,
}

impl Host for TaskHost {
    fn log(&self, line: &str) {
        self.context.chunk("log", line.as_bytes());
    }

    fn progress(&self, fraction: f64) {
        self.context.progress(fraction, "");
    }

    fn tool(&self, name: &str, arguments: Value) -> Result<Value, TaskError> {
        if !self.allowed.iter().any(|tool| tool.name == name) {
            let name = crate::schema::clip(name, 100);
            return Err(TaskError::new("TOOL_NOT_FOUND", format!("'{name}' is not among the tools in the agent's file")));
        }
        let step = format!("tool:{name}:{}", self.calls.fetch_add(1, Ordering::Relaxed));
        // This is the sandbox's own thread, not one of the runtime's: it may wait.
        self.handle.block_on(self.context.step(&step, || {
            let caller = caller(&self.context);
            async move { self.context.waiting(self.toolbox.call_for_agent(self.span.clone(), name, arguments, &caller)).await }
        }))
    }

    fn is_stopped(&self) -> bool {
        self.context.is_cancelled()
    }
}
