//! What executors and workers may send, and how much of it.

use crate::{
    chunks::MAX_CHUNK,
    clock::{Millis, unstamp},
    config::Config,
    core::Refused,
    queue::{NewTask, QueueKey, TaskKey},
    roster::Choose,
};
use troupe_domain::{Code, Error, Namespace, id::check_name};
use troupe_proto::common::v1::Failure;
use troupe_proto::scheduler::v1::{Completed, DispatchRequest, Failed, HeldTask, Hello, Task, worker_message::Kind};

/// Tasks that one call explains.
pub const MAX_EXPLAINED: usize = 200;

const MAX_DISPATCHED: usize = 10_000;
const MAX_TOPIC: usize = 256;
const MAX_TASK_ID: usize = 1_024;
const MAX_CAPABILITIES: usize = 100;
const MAX_TEXT: usize = 1_024;
const MAX_CODE: usize = 64;
const MAX_FAILURE: usize = 16 << 10;
const MAX_PRIORITY: u32 = 9;
/// Bytes of a result that can be handed on: it must fit into a message together with who ran the task. Runs have smaller limits.
const MAX_RESULT: usize = 32 << 20;
/// Messages in one request of a worker.
pub const MAX_MESSAGES: usize = 10_000;

/// A list with more items is refused.
pub fn at_most(what: &str, count: usize, most: usize) -> Result<(), Error> {
    if count <= most {
        return Ok(());
    }
    Err(Error::invalid_field(what, format!("has {count} items, at most {most} are allowed")).with_help("send it in several parts"))
}

/// A checked request: what goes into the queue, what fails at once, what is cancelled.
pub struct Dispatched {
    pub tasks: Vec<NewTask>,
    pub refused: Vec<Refused>,
    pub cancels: Vec<(TaskKey, String)>,
}

/// Checks a request. A task whose content is wrong is refused alone; one that cannot even be named ends the stream.
pub fn dispatch(request: DispatchRequest, config: &Config, now: Millis) -> Result<Dispatched, Error> {
    at_most("tasks", request.tasks.len(), MAX_DISPATCHED)?;
    at_most("cancels", request.cancels.len(), MAX_DISPATCHED)?;
    let mut out = Dispatched { tasks: Vec::with_capacity(request.tasks.len()), refused: Vec::new(), cancels: Vec::new() };
    for mut task in request.tasks {
        let key = task_key(&task.namespace, &task.task_id)?;
        key.namespace().clone_into(&mut task.namespace);
        let attempt = task.attempt;
        match new_task(key.clone(), task, config, now) {
            Ok(task) => out.tasks.push(task),
            Err(error) => out.refused.push(Refused { key, attempt, error }),
        }
    }
    for cancel in request.cancels {
        out.cancels.push((task_key(&cancel.namespace, &cancel.task_id)?, cancel.reason));
    }
    Ok(out)
}

fn task_key(namespace: &str, task_id: &str) -> Result<TaskKey, Error> {
    let namespace = Namespace::parse(namespace)?;
    let shape = task_id.split_once('/').is_some_and(|(run, step)| !run.is_empty() && !step.is_empty());
    if !shape || task_id.len() > MAX_TASK_ID {
        let text = format!("must be '<run id>/<step path>' of at most {MAX_TASK_ID} bytes");
        return Err(Error::invalid_field("task_id", text));
    }
    Ok(TaskKey::new(namespace.as_str(), task_id))
}

fn new_task(key: TaskKey, task: Task, config: &Config, now: Millis) -> Result<NewTask, Error> {
    let queue = QueueKey::of(key.namespace(), task.target.as_ref())?;
    if task.attempt == 0 {
        return Err(Error::invalid_field("attempt", "is 0; attempts count from 1"));
    }
    if task.priority > MAX_PRIORITY {
        return Err(Error::invalid_field("priority", format!("is {}; it goes from 0 (first) to {MAX_PRIORITY}", task.priority)));
    }
    if Choose::parse(&task.choose).is_none() {
        return Err(Error::invalid_field("choose", "is no strategy: use least_loaded or round_robin"));
    }
    let timeout = if task.timeout_ms == 0 { config.default_timeout_ms() } else { task.timeout_ms };
    Ok(NewTask {
        key,
        queue,
        since: unstamp(task.enqueued_at.as_ref()).unwrap_or(now),
        not_before: unstamp(task.not_before.as_ref()),
        timeout,
        deadline: unstamp(task.deadline.as_ref()),
        held: None,
        task: Box::new(task),
    })
}

pub fn topic(topic: &str) -> Result<(), Error> {
    if topic.is_empty() || topic.len() > MAX_TOPIC {
        return Err(Error::invalid_field("topic", format!("must have 1 to {MAX_TOPIC} bytes")));
    }
    Ok(())
}

/// Checks a Hello, and puts the default namespace where none is named.
pub fn hello(hello: &mut Hello, config: &Config) -> Result<(), Error> {
    if hello.namespace != "*" {
        hello.namespace = Namespace::parse(&hello.namespace)?.to_string();
    }
    if hello.worker_id.is_empty() || hello.worker_id.len() > MAX_TEXT {
        return Err(Error::invalid_field("worker_id", format!("must have 1 to {MAX_TEXT} bytes")));
    }
    if hello.slots == 0 || hello.slots > config.max_slots {
        return Err(Error::invalid_field("slots", format!("is {}; it must be 1 to {} (max_slots)", hello.slots, config.max_slots)));
    }
    hello.client = hello.client.chars().take(MAX_TEXT).collect();
    at_most("agents and tools", hello.agents.len() + hello.tools.len(), config.max_served as usize)?;
    at_most("held", hello.held.len(), 2 * config.max_slots as usize)?;
    for (i, agent) in hello.agents.iter().enumerate() {
        let at = |field: &str| format!("agents[{i}].{field}");
        let name = |text: &str, field: &str| check_name(text).map_err(|message| Error::invalid_field(at(field), message));
        name(&agent.name, "name")?;
        at_most(&at("capabilities"), agent.capabilities.len(), MAX_CAPABILITIES)?;
        agent.capabilities.iter().try_for_each(|capability| name(capability, "capabilities"))?;
        if agent.version.len() > MAX_TEXT {
            return Err(Error::invalid_field(at("version"), format!("is longer than {MAX_TEXT} bytes")));
        }
        if !agent.namespace.is_empty() {
            name(&agent.namespace, "namespace")?;
            if hello.namespace != "*" && agent.namespace != hello.namespace {
                return Err(Error::new(Code::PermissionDenied, format!("{} is not the worker's namespace", at("namespace"))));
            }
        }
    }
    for tool in &hello.tools {
        check_name(tool).map_err(|message| Error::invalid_field("tools", message))?;
    }
    let scope = hello.namespace.clone();
    hello.held.iter_mut().try_for_each(|task| held(task, &scope))
}

fn held(task: &mut HeldTask, scope: &str) -> Result<(), Error> {
    own_task(&mut task.namespace, &task.task_id, task.fence, scope)
}

/// A task of which a worker speaks must be of its namespace.
fn own_task(namespace: &mut String, task_id: &str, fence: u64, scope: &str) -> Result<(), Error> {
    *namespace = task_key(namespace, task_id)?.namespace().to_owned();
    if fence == 0 {
        return Err(Error::invalid_field("fence", "is 0; repeat the one of the assignment"));
    }
    if scope != "*" && namespace != scope {
        return Err(Error::new(Code::PermissionDenied, format!("task {task_id} is not of the worker's namespace")));
    }
    Ok(())
}

/// The failure that an output is that no message can carry.
fn too_large(done: &mut Completed) -> Kind {
    let message = format!("the output has {} bytes; no more than {MAX_RESULT} can be handed on", done.output.len());
    Kind::Failed(Failed {
        namespace: std::mem::take(&mut done.namespace),
        task_id: std::mem::take(&mut done.task_id),
        fence: done.fence,
        attempt: done.attempt,
        failure: Some(Failure { code: Code::PayloadTooLarge.name().to_owned(), message, retryable: false, retry_after_ms: 0 }),
    })
}

/// Checks one message of a worker of `scope`. `None`: it is left out (a chunk too large for watchers).
pub fn message(mut kind: Kind, scope: &str, config: &Config) -> Result<Option<Kind>, Error> {
    match &mut kind {
        Kind::Hello(again) => {
            hello(again, config)?;
            if again.namespace != scope {
                return Err(Error::invalid_field("namespace", "cannot change within a stream").with_help("open another stream"));
            }
        }
        Kind::Progress(m) => {
            own_task(&mut m.namespace, &m.task_id, m.fence, scope)?;
            m.message = m.message.chars().take(MAX_TEXT).collect();
        }
        Kind::Chunk(m) => {
            own_task(&mut m.namespace, &m.task_id, m.fence, scope)?;
            if m.data.len() > MAX_CHUNK || check_name(&m.kind).is_err() {
                crate::metrics::error("bad_chunk");
                return Ok(None);
            }
        }
        Kind::Record(m) => {
            own_task(&mut m.namespace, &m.task_id, m.fence, scope)?;
            if m.name.len() > MAX_TEXT {
                return Err(Error::invalid_field("record.name", format!("is longer than {MAX_TEXT} bytes")));
            }
            if m.value.len() > MAX_RESULT {
                let message = format!("a record has {} bytes; no more than {MAX_RESULT} can be handed on", m.value.len());
                return Err(Error::new(Code::PayloadTooLarge, message).with_help("record a reference to large data instead"));
            }
        }
        Kind::Completed(m) => {
            own_task(&mut m.namespace, &m.task_id, m.fence, scope)?;
            if m.output.len() > MAX_RESULT {
                return Ok(Some(too_large(m)));
            }
        }
        Kind::Failed(m) => {
            own_task(&mut m.namespace, &m.task_id, m.fence, scope)?;
            let failure = m.failure.get_or_insert_with(|| Failure { retryable: true, ..Failure::default() });
            failure.code = failure.code.chars().take(MAX_CODE).collect();
            failure.message = failure.message.chars().take(MAX_FAILURE).collect();
            if failure.code.is_empty() {
                "FAILED".clone_into(&mut failure.code);
            }
        }
        Kind::Draining(_) => {}
    }
    Ok(Some(kind))
}
