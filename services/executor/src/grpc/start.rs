//! Starting runs.

use super::{Api, short};
use crate::{
    defaults,
    message::{Answer, Done, Intent, Start},
    run::{Key, now},
    trace, view,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tracing::Instrument;
use troupe_domain::{Error, Json, Name, Namespace, Result, RunId, sha256_hex};
use troupe_engine::{Definition, Event, EventKind, event::Started};
use troupe_proto::{common::v1::target::Kind, executor::v1 as wire};
use troupe_wire::to_duration;

const MAX_KEY: usize = 255;
const MAX_LABEL_NAME: usize = 63;
const MAX_LABEL_VALUE: usize = 255;
const DEFAULT_PRIORITY: u32 = 5;
const LOWEST_PRIORITY: u32 = 9;

/// What both ways to start a run ask for.
struct Wanted {
    namespace: Namespace,
    definition: Arc<Definition>,
    input: Json,
    priority: Option<u32>,
    labels: HashMap<String, String>,
    deadline: Option<Duration>,
    idempotency_key: String,
}

impl Api {
    pub(super) async fn start_run(&self, request: wire::StartRunRequest, traceparent: String) -> Result<wire::StartRunResponse> {
        self.shared.accepting()?;
        let namespace = Namespace::parse(&request.namespace)?;
        Name::parse(&request.workflow, "workflow")?;
        short(&request.version, "version", MAX_KEY)?;
        let input = self.payload(&request.input, "input")?;
        let definition = self.shared.definitions.resolve(&namespace, &request.workflow, &request.version).await?;
        let deadline = positive(request.deadline.as_ref(), "deadline")?;
        let (labels, idempotency_key) = (request.labels, request.idempotency_key);
        let wanted = Wanted { namespace, definition, input, priority: request.priority, labels, deadline, idempotency_key };
        let (run, created) = self.begin_and_wait(wanted, request.wait, traceparent).await?;
        Ok(wire::StartRunResponse { run: Some(run), created })
    }

    pub(super) async fn submit_task(&self, request: wire::SubmitTaskRequest, traceparent: String) -> Result<wire::SubmitTaskResponse> {
        self.shared.accepting()?;
        let namespace = Namespace::parse(&request.namespace)?;
        let timeout = positive(request.timeout.as_ref(), "timeout")?;
        let input = self.payload(&request.input, "input")?;
        let source = task_source(request.target.and_then(|target| target.kind), request.attempts, timeout)?;
        let definition = self.shared.definitions.synthesize(&namespace, &source).await?;
        let wanted = Wanted {
            namespace,
            definition,
            input,
            priority: request.priority,
            labels: request.labels,
            deadline: None,
            idempotency_key: request.idempotency_key,
        };
        let (run, created) = self.begin_and_wait(wanted, request.wait, traceparent).await?;
        Ok(wire::SubmitTaskResponse { run: Some(run), created })
    }

    /// The run, as it is when the wait that was asked for is over, and whether this call created it.
    async fn begin_and_wait(&self, wanted: Wanted, wait: Option<prost_types::Duration>, traceparent: String) -> Result<(wire::Run, bool)> {
        if wait.is_some() && to_duration(wait.as_ref()).is_none() {
            return Err(Error::invalid_field("wait", "must not be less than 0; what is longer than 10 minutes is cut to that"));
        }
        let namespace = wanted.namespace.to_string();
        let answer = self.begin(wanted, traceparent).await?;
        let (run, created) = (view::row(&answer.summary), matches!(answer.done, Done::Created));
        if wait.is_none() {
            return Ok((run, created));
        }
        let request = wire::WaitRunRequest { namespace, run_id: run.run_id.clone(), timeout: wait };
        match self.wait_run(request, false).await {
            Ok(waited) => Ok((waited.run.unwrap_or(run), created)),
            // It has started all the same: who asked is told of it, and may wait again.
            Err(error) => {
                tracing::warn!(run.id = run.run_id, %error, "a start could not wait for the end");
                Ok((run, created))
            }
        }
    }

    async fn begin(&self, wanted: Wanted, traceparent: String) -> Result<Answer> {
        let Wanted { namespace, definition, input, priority, labels, deadline, idempotency_key } = wanted;
        short(&idempotency_key, "idempotency_key", MAX_KEY)?;
        self.check_labels(&labels)?;
        let priority = priority.unwrap_or(DEFAULT_PRIORITY);
        if priority > LOWEST_PRIORITY {
            return Err(Error::invalid_field("priority", format!("is {priority}: it goes from 0 (first) to {LOWEST_PRIORITY}")));
        }
        let input = defaults::accept(definition.input.as_ref(), input)?;
        let fresh = idempotency_key.is_empty();
        let run = if fresh { self.shared.router.fresh_id() } else { RunId::for_key(&namespace, &idempotency_key) };
        let (span, traceparent) = trace::invocation(&definition.name, &namespace, run, traceparent);
        let started = Started {
            namespace: namespace.clone(),
            run,
            priority,
            labels: labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect::<BTreeMap<_, _>>(),
            deadline: deadline.and_then(|span| now().checked_add_signed(chrono::TimeDelta::from_std(span).ok()?)),
            parent: None,
            env: self.shared.env.clone(),
            limits: Some(Box::new(self.shared.config.limits.clone())),
            traceparent: traceparent.clone(),
        };
        let event = Event::with(EventKind::Started(Box::new(started)), input);
        let start = Arc::new(Start { definition, event, fork: None, labels, priority });
        self.shared.router.call(Key { namespace, run }, traceparent, Intent::Start { start, fresh }).instrument(span).await
    }

    fn check_labels(&self, labels: &HashMap<String, String>) -> Result<()> {
        let limit = self.shared.config.max_labels;
        if labels.len() > limit {
            return Err(Error::invalid_field("labels", format!("has {} entries; executor.max_labels allows {limit}", labels.len())));
        }
        for (name, value) in labels {
            if name.is_empty() {
                return Err(Error::invalid_field("labels", "has an entry without a name"));
            }
            short(name, "labels", MAX_LABEL_NAME)?;
            short(value, &format!("labels.{name}"), MAX_LABEL_VALUE)?;
        }
        Ok(())
    }
}

/// A span that is not there, or longer than nothing and no longer than durations may be.
fn positive(wire: Option<&prost_types::Duration>, path: &str) -> Result<Option<Duration>> {
    let Some(wire) = wire else { return Ok(None) };
    match to_duration(Some(wire)) {
        Some(span) if !span.is_zero() && span <= troupe_domain::span::MAX_SPAN => Ok(Some(span)),
        _ => Err(Error::invalid_field(path, "must be longer than 0 and at most ten years")),
    }
}

/// The workflow of one step that a single task is.
fn task_source(target: Option<Kind>, attempts: u32, timeout: Option<Duration>) -> Result<String> {
    let (kind, name) = match &target {
        Some(Kind::Agent(name)) => ("agent", name),
        Some(Kind::Capability(name)) => ("capability", name),
        Some(Kind::Tool(name)) => ("tool", name),
        None => return Err(Error::invalid_field("target", "is missing: name an agent, a capability or a tool")),
    };
    Name::parse(name, &format!("target.{kind}"))?;
    let mut step = json!({ "with": "${ input }" });
    match kind {
        "capability" => step["agent"] = json!({ "capability": name }),
        _ => step[kind] = Value::from(name.as_str()),
    }
    if attempts > 0 {
        step["retry"] = json!({ "attempts": attempts });
    }
    if let Some(timeout) = timeout {
        step["timeout"] = Value::from(troupe_domain::format_span(timeout.max(Duration::from_millis(1))));
    }
    let source = json!({ "workflow": task_name(kind, name), "steps": { "task": step }, "output": "${ steps.task.output }" });
    Ok(source.to_string())
}

/// `task.agent.NAME`; where that is too long for a name, its end is replaced by a digest.
fn task_name(kind: &str, name: &str) -> String {
    let full = format!("{}{kind}.{name}", crate::definitions::RESERVED);
    if full.len() <= troupe_domain::id::MAX_NAME {
        return full;
    }
    // Names are ASCII, so any place is between two characters.
    format!("{}.{}", &full[..troupe_domain::id::MAX_NAME - 9], &sha256_hex(&full)[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tasks_are_names_and_differ() {
        let (a, b) = (format!("{}a", "n".repeat(62)), format!("{}b", "n".repeat(62)));
        let (a, b) = (task_name("capability", &a), task_name("capability", &b));
        assert_ne!(a, b);
        assert!(Name::parse(&a, "").is_ok() && Name::parse(&b, "").is_ok());
        assert_eq!(task_name("tool", "http.post"), "task.tool.http.post");
    }

    #[test]
    fn a_task_without_a_target_is_refused() {
        assert!(task_source(None, 0, None).is_err());
        assert!(task_source(Some(Kind::Agent("no name".into())), 0, None).is_err());
    }
}
