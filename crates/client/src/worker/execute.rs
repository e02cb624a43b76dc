//! One task, from its assignment to its result.

use super::{
    Context, Handler, TaskError,
    error::Outcome,
    held::{Key, Stop},
    link::{Link, Taken},
};
use crate::spawn::spawn;
use futures::FutureExt;
use std::{any::Any, collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use tracing::{Span, field};
use troupe_proto::{
    common::v1::target::Kind as TargetKind,
    scheduler::v1::{Assignment, Task},
};

/// The handlers of a worker, and room for their tasks.
pub(crate) struct Executor {
    pub link: Arc<Link>,
    pub slots: Arc<Semaphore>,
    pub agents: HashMap<String, Handler>,
    pub tools: HashMap<String, Handler>,
    pub any: Option<Handler>,
    pub cancel_grace: Duration,
}

impl Executor {
    /// Begins an assignment, unless it is held already.
    pub(crate) fn begin(self: &Arc<Self>, assignment: Assignment) {
        let Some(task) = &assignment.task else {
            tracing::warn!("assignment without a task ignored");
            return;
        };
        let key = Key { namespace: task.namespace.clone(), task_id: task.task_id.clone() };
        let (execution, stop) = match self.link.take(&key, task.attempt, assignment.fence) {
            Taken::New { execution, stop } => (execution, stop),
            Taken::Held | Taken::Stale => return,
        };
        let span = span_of(task, &assignment.agent);
        let handler = self.handler(task, &assignment.agent);
        let context = Context::new(assignment, key.clone(), execution, stop.clone(), Arc::clone(&self.link));
        let this = Arc::clone(self);
        spawn(span, async move {
            let outcome = this.execute(handler, context, &stop).await;
            if let Err(error) = &outcome {
                let span = Span::current();
                span.record("error.type", &error.code).record("otel.status_code", "ERROR");
                tracing::debug!(code = error.code, message = error.message, "task failed");
            }
            this.link.finish(&key, execution, outcome);
        });
    }

    fn handler(&self, task: &Task, agent: &str) -> Option<Handler> {
        let target = task.target.as_ref().and_then(|target| target.kind.as_ref());
        let own = match target {
            Some(TargetKind::Tool(tool)) => self.tools.get(tool),
            Some(TargetKind::Agent(name)) if agent.is_empty() => self.agents.get(name),
            _ => self.agents.get(agent),
        };
        own.or(self.any.as_ref()).cloned()
    }

    async fn execute(&self, handler: Option<Handler>, context: Context, stop: &Stop) -> Outcome {
        let Some(handler) = handler else {
            return Err(TaskError::retryable("AGENT_NOT_SERVED", "this worker does not serve what the task is for"));
        };
        // More than there are slots wait here; the semaphore is never closed.
        let _slot = tokio::select! {
            permit = self.slots.acquire() => permit.ok(),
            () = stop.token.cancelled() => return Err(stop.error()),
        };
        // A panic may also happen before the handler's first await, outside its future.
        let work = AssertUnwindSafe(async { handler(context).await }).catch_unwind();
        tokio::pin!(work);
        let ended = tokio::select! {
            ended = &mut work => ended,
            () = stop.token.cancelled() => {
                // Dropping the future is what stops a handler that does not listen.
                let _ = tokio::time::timeout(self.cancel_grace, work).await;
                return Err(stop.error());
            }
        };
        ended.unwrap_or_else(|panic| {
            let message = format!("the handler panicked: {}", panic_text(&*panic));
            tracing::error!(message, "handler panicked");
            Err(TaskError::retryable("PANIC", message))
        })
    }
}

/// A span whose name and fields are known when this is compiled, as `tracing` wants it.
macro_rules! execution_span {
    ($task:ident, $operation:literal, $($field:ident).+ = $name:ident) => {
        tracing::info_span!(
            parent: None,
            $operation,
            otel.name = format!(concat!($operation, " {}"), $name),
            otel.kind = "consumer",
            otel.status_code = field::Empty,
            gen_ai.operation.name = $operation,
            $($field).+ = $name,
            error.type = field::Empty,
            task.id = $task.task_id,
            run.id = $task.run_id,
            run.namespace = $task.namespace,
            run.workflow = $task.workflow,
            step = $task.step,
            attempt = $task.attempt
        )
    };
}

/// The span of an execution, in the run's trace. Names are those of OpenTelemetry's conventions for generative AI.
fn span_of(task: &Task, agent: &str) -> Span {
    let target = task.target.as_ref().and_then(|target| target.kind.as_ref());
    let span = match target {
        Some(TargetKind::Tool(tool)) => execution_span!(task, "execute_tool", gen_ai.tool.name = tool),
        _ => execution_span!(task, "invoke_agent", gen_ai.agent.name = agent),
    };
    troupe_wire::trace::adopt_traceparent(&span, &task.traceparent);
    span
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
