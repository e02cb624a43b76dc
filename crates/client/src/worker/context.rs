//! What a handler knows of its task and may do.

use super::{
    TaskError,
    held::{Key, Stop},
    link::Link,
};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use troupe_domain::Json;
use troupe_proto::{
    common::v1::Record,
    scheduler::v1::{Assignment, Chunk, Progress, Task, worker_message::Kind},
};

/// The largest chunk, in bytes; a larger one is cut into several.
const MAX_CHUNK: usize = 64 << 10;

/// Bytes of a step's name.
const MAX_STEP_NAME: usize = 200;

/// Bounds of the time between two signs of life.
const MIN_BEAT_MS: u64 = 20;
const MAX_BEAT_MS: u64 = 10_000;

/// A task in its handler's hands. Clones speak of the same task.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

struct Inner {
    task: Task,
    agent: String,
    key: Key,
    fence: u64,
    execution: u64,
    stop: Stop,
    link: Arc<Link>,
    journal: Mutex<Journal>,
}

/// The step journal as this execution sees it.
struct Journal {
    /// What earlier attempts recorded, in order, without gaps.
    records: Vec<Record>,
    /// The place of the next step.
    next: usize,
    /// A step runs.
    open: bool,
    last_sign: Instant,
}

/// Closes the step when its future ends or is dropped.
struct OpenStep<'a>(&'a Inner);

impl Drop for OpenStep<'_> {
    fn drop(&mut self) {
        self.0.journal().open = false;
    }
}

impl Inner {
    fn journal(&self) -> std::sync::MutexGuard<'_, Journal> {
        // Nothing that holds this lock panics.
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Context {
    pub(crate) fn new(assignment: Assignment, key: Key, execution: u64, stop: Stop, link: Arc<Link>) -> Self {
        let Assignment { task, fence, agent, .. } = assignment;
        let mut task = task.unwrap_or_default();
        let mut records = std::mem::take(&mut task.records);
        records.sort_by_key(|record| record.index);
        // A record behind a gap cannot be replayed in order.
        let whole = records.iter().enumerate().take_while(|(at, record)| u32::try_from(*at) == Ok(record.index)).count();
        records.truncate(whole);
        let journal = Mutex::new(Journal { records, next: 0, open: false, last_sign: Instant::now() });
        Self { inner: Arc::new(Inner { task, agent, key, fence, execution, stop, link, journal }) }
    }

    /// `"<run id>/<step path>"`, stable over attempts.
    pub fn task_id(&self) -> &str {
        &self.inner.task.task_id
    }

    pub fn run_id(&self) -> &str {
        &self.inner.task.run_id
    }

    pub fn namespace(&self) -> &str {
        &self.inner.task.namespace
    }

    pub fn workflow(&self) -> &str {
        &self.inner.task.workflow
    }

    /// The step instance's path: `analyse[3]`.
    pub fn step_path(&self) -> &str {
        &self.inner.task.step
    }

    /// The agent that was chosen; empty for a tool.
    pub fn agent(&self) -> &str {
        &self.inner.agent
    }

    /// From 1.
    pub fn attempt(&self) -> u32 {
        self.inner.task.attempt
    }

    /// The number of the delivery that this execution began with: the greater one is the later one of an attempt.
    pub fn fence(&self) -> u64 {
        self.inner.fence
    }

    /// Everything that the scheduler sent of the task; its records are in the step journal instead.
    pub fn task(&self) -> &Task {
        &self.inner.task
    }

    /// What was wrong with the output of the attempt before; empty when nothing was.
    pub fn feedback(&self) -> &str {
        &self.inner.task.feedback
    }

    /// The same for every attempt of this task, and for no other task: for systems that refuse to do a thing twice. Side effects
    /// of one task are told apart by a suffix of one's own.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}", self.namespace(), self.task_id())
    }

    /// The idempotency key of the side effect in the step that runs, or comes next.
    pub fn step_key(&self) -> String {
        format!("{}/{}", self.idempotency_key(), self.inner.journal().next)
    }

    /// The input as JSON text.
    pub fn input(&self) -> Result<Json, TaskError> {
        Json::parse(self.input_bytes(), "input").map_err(|e| TaskError::new("INVALID_INPUT", e.message))
    }

    pub(crate) fn input_bytes(&self) -> &[u8] {
        if self.inner.task.input.is_empty() { b"null" } else { &self.inner.task.input }
    }

    /// Runs `work` once and for all: its result is durable before this returns, and every later attempt gets it without running
    /// `work` again. Steps of one task run one after the other and have the same names in the same order in every attempt.
    ///
    /// A failure of `work` is not recorded. Fails with `INVALID_STEP` for a name that is empty or longer than 200 bytes,
    /// `NON_DETERMINISTIC` when an earlier attempt recorded another step at this place, `STEP_OVERLAP` inside of or beside another
    /// step, `CANCELLED` when the task is stopped while the record is on its way.
    pub async fn step<T, F, Fut>(&self, name: &str, work: F) -> Result<T, TaskError>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, TaskError>>,
    {
        let inner = &*self.inner;
        if name.is_empty() || name.len() > MAX_STEP_NAME {
            return Err(TaskError::new("INVALID_STEP", format!("a step's name has 1 to {MAX_STEP_NAME} bytes")));
        }
        let index = {
            let mut journal = inner.journal();
            if journal.open {
                let message = format!("step '{name}' began while another step of the task was running: steps run one after the other");
                return Err(TaskError::new("STEP_OVERLAP", message));
            }
            if let Some(record) = journal.records.get(journal.next) {
                let value = replay(record, name)?;
                journal.next += 1;
                return Ok(value);
            }
            journal.open = true;
            journal.next
        };
        let _open = OpenStep(inner);
        let result = work().await?;
        self.record(index, name, &result).await?;
        Ok(result)
    }

    async fn record<T: Serialize>(&self, index: usize, name: &str, result: &T) -> Result<(), TaskError> {
        let inner = &*self.inner;
        let value = serde_json::to_vec(result).map_err(|e| TaskError::new("OUTPUT_INVALID", format!("step '{name}' is not JSON: {e}")))?;
        if value.len() > crate::MAX_PAYLOAD_BYTES {
            let message = format!("the result of step '{name}' has {} bytes, and {} are allowed", value.len(), crate::MAX_PAYLOAD_BYTES);
            return Err(TaskError::new("OUTPUT_TOO_LARGE", message));
        }
        let position = u32::try_from(index).map_err(|_| TaskError::new("OUTPUT_INVALID", "too many steps"))?;
        let durable = inner.link.record(&inner.key, inner.execution, position, name, Bytes::from(value));
        inner.journal().next = index + 1;
        tokio::select! {
            biased;
            // However long the journal is away: the task is in good hands here, and its lease must not end meanwhile.
            answer = self.waiting(durable) => match answer {
                Ok(Ok(())) => Ok(()),
                Ok(Err(reason)) => Err(TaskError::cancelled(&reason)),
                Err(_) => Err(inner.stop.error()),
            },
            () = inner.stop.token.cancelled() => Err(inner.stop.error()),
        }
    }

    /// Says how far the task is, from 0 to 1 (negative: nobody knows), which also renews its lease.
    pub fn progress(&self, fraction: f64, message: impl Into<String>) {
        let fraction = if fraction.is_finite() { fraction.min(1.0) } else { -1.0 };
        let message = message.into();
        self.inner.journal().last_sign = Instant::now();
        self.send(|key, fence| Kind::Progress(Progress { namespace: key.namespace, task_id: key.task_id, fence, fraction, message }));
    }

    /// Renews the lease, at most as often as that needs. To be called by the code that works, not by a timer beside it.
    pub fn heartbeat(&self) {
        let lease = Duration::from_millis(self.inner.link.lease_ms());
        if self.inner.journal().last_sign.elapsed() > lease / 4 {
            self.progress(-1.0, "");
        }
    }

    /// Waits for `work` and renews the lease meanwhile: for waits that have a time limit of their own (a call of a model, a request).
    pub async fn waiting<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            let beat = Duration::from_millis((self.inner.link.lease_ms() / 3).clamp(MIN_BEAT_MS, MAX_BEAT_MS));
            match tokio::time::timeout(beat, &mut work).await {
                Ok(result) => return result,
                Err(_) => self.heartbeat(),
            }
        }
    }

    /// Streams text to those who watch the run. Not durable.
    pub fn text(&self, text: &str) {
        self.chunk("text", text.as_bytes());
    }

    /// Streams a JSON value to those who watch the run. Not durable.
    pub fn json(&self, kind: &str, value: &Value) {
        self.chunk_once(kind, Bytes::from(value.to_string()));
    }

    /// Streams bytes to those who watch the run; kinds are text, log, json, tool_call, usage. Not durable: what the stream cannot
    /// take in time is dropped. Long ones are cut into several, between characters where they are text.
    pub fn chunk(&self, kind: &str, data: &[u8]) {
        let mut rest = data;
        while rest.len() > MAX_CHUNK {
            let cut = (MAX_CHUNK - 3..=MAX_CHUNK).rev().find(|at| rest[*at] & 0xC0 != 0x80).unwrap_or(MAX_CHUNK);
            self.chunk_once(kind, Bytes::copy_from_slice(&rest[..cut]));
            rest = &rest[cut..];
        }
        if !rest.is_empty() {
            self.chunk_once(kind, Bytes::copy_from_slice(rest));
        }
    }

    fn chunk_once(&self, kind: &str, data: Bytes) {
        let kind = kind.to_owned();
        self.inner.journal().last_sign = Instant::now();
        self.send(|key, fence| Kind::Chunk(Chunk { namespace: key.namespace, task_id: key.task_id, fence, kind, data }));
    }

    fn send(&self, make: impl FnOnce(Key, u64) -> Kind) {
        let inner = &*self.inner;
        inner.link.loose(&inner.key, inner.execution, |fence| make(inner.key.clone(), fence));
    }

    /// Ends when the task shall stop.
    pub async fn cancelled(&self) {
        self.inner.stop.token.cancelled().await;
    }

    pub fn is_cancelled(&self) -> bool {
        self.inner.stop.token.is_cancelled()
    }

    /// Cancelled when the task shall stop.
    pub fn cancel_token(&self) -> &CancellationToken {
        &self.inner.stop.token
    }
}

fn replay<T: DeserializeOwned>(record: &Record, name: &str) -> Result<T, TaskError> {
    if record.name != name {
        let message = format!(
            "step {} is '{name}' now, but an earlier attempt recorded '{}': the steps of a task must be the same in every attempt",
            record.index, record.name
        );
        return Err(TaskError::new("NON_DETERMINISTIC", message));
    }
    let value: &[u8] = if record.value.is_empty() { b"null" } else { &record.value };
    serde_json::from_slice(value).map_err(|e| {
        TaskError::new("NON_DETERMINISTIC", format!("the recorded result of step '{name}' does not fit its type any more: {e}"))
    })
}
