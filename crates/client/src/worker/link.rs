//! What handlers want to send, and what the scheduler has said of it. Outlives streams.
//!
//! Records and results stay here until they are acknowledged; each new stream sends them again. Progress and chunks are sent once.

use super::{
    TaskError,
    held::{Held, Key, PendingRecord, Stop, message},
};
use bytes::Bytes;
use prost::Message;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{Notify, oneshot, watch};
use troupe_domain::Json;
use troupe_proto::scheduler::v1::{Ack, HeldTask, WorkerMessage, worker_message::Kind};

/// Messages of one batch.
const BATCH_MESSAGES: usize = 512;
/// Bytes after which a batch takes no further message.
const BATCH_BYTES: usize = 1 << 20;
/// Chunks and progress that may wait for the stream, in bytes. What does not fit is dropped: it is not durable anyway.
const LOOSE_BYTES: usize = 8 << 20;

/// Bytes of a chunk to which no further one is joined.
const MERGED_BYTES: usize = 8 << 10;

enum Out {
    Loose(WorkerMessage),
    Record(Key, u32),
    Result(Key),
}

#[derive(Default)]
struct State {
    out: VecDeque<Out>,
    loose_bytes: usize,
    held: HashMap<Key, Held>,
}

#[derive(Default)]
pub(crate) struct Link {
    state: Mutex<State>,
    wake: Notify,
    executions: AtomicU64,
    /// Chunks that did not fit.
    dropped: AtomicU64,
    count: watch::Sender<usize>,
    lease_ms: AtomicU64,
}

/// What to do with a task that was assigned.
pub(crate) enum Taken {
    /// Execute it.
    New { execution: u64, stop: Stop },
    /// It runs here already, or its result waits here: nothing but the fence changes.
    Held,
    /// A newer delivery of it is here.
    Stale,
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; were it to, the state is still whole: every change is one statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_lease_ms(&self, lease: u64) {
        self.lease_ms.store(lease, Ordering::Relaxed);
    }

    pub(crate) fn lease_ms(&self) -> u64 {
        self.lease_ms.load(Ordering::Relaxed)
    }

    /// Takes a delivery. The same attempt under a newer fence is not executed twice: what runs goes on under the new fence, and a
    /// result that waits is sent under it.
    pub(crate) fn take(&self, key: &Key, attempt: u32, fence: u64) -> Taken {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(held) = state.held.get_mut(key) {
            if fence < held.fence || attempt < held.attempt {
                return Taken::Stale;
            }
            if attempt == held.attempt && !held.stop.token.is_cancelled() {
                held.fence = fence;
                let records = held.records.keys().map(|index| Out::Record(key.clone(), *index));
                state.out.extend(records);
                if held.result.is_some() {
                    state.out.push_back(Out::Result(key.clone()));
                }
                self.wake.notify_one();
                return Taken::Held;
            }
            held.stop.set("a newer delivery of the task has overtaken this one");
        }
        let execution = self.executions.fetch_add(1, Ordering::Relaxed);
        let stop = Stop::default();
        let held = Held {
            first_fence: fence,
            fence,
            attempt,
            execution,
            stop: stop.clone(),
            records: std::collections::BTreeMap::new(),
            result: None,
        };
        state.held.insert(key.clone(), held);
        self.count.send_replace(state.held.len());
        Taken::New { execution, stop }
    }

    /// Puts a record out. The receiver hears whether it is durable; it errors when the task is forgotten.
    pub(crate) fn record(&self, key: &Key, execution: u64, index: u32, name: &str, value: Bytes) -> oneshot::Receiver<Result<(), String>> {
        let (waiter, receiver) = oneshot::channel();
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(held) = state.held.get_mut(key).filter(|held| held.execution == execution) {
            held.records.insert(index, PendingRecord { name: name.to_owned(), value, waiter });
            state.out.push_back(Out::Record(key.clone(), index));
            self.wake.notify_one();
        }
        receiver
    }

    /// Puts a result out. Nothing happens when the task was forgotten or overtaken.
    pub(crate) fn finish(&self, key: &Key, execution: u64, outcome: Result<Json, TaskError>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(held) = state.held.get_mut(key).filter(|held| held.execution == execution) {
            held.result = Some(outcome);
            state.out.push_back(Out::Result(key.clone()));
            self.wake.notify_one();
        }
    }

    /// Sends something that may get lost. `make` gets the task's current fence.
    pub(crate) fn loose(&self, key: &Key, execution: u64, make: impl FnOnce(u64) -> Kind) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(held) = state.held.get(key).filter(|held| held.execution == execution) else { return };
        let kind = make(held.fence);
        if let Some(added) = state.out.back_mut().and_then(|last| merge(last, &kind)) {
            state.loose_bytes += added;
            return;
        }
        let item = message(kind);
        let size = item.encoded_len();
        if state.loose_bytes + size > LOOSE_BYTES {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.loose_bytes += size;
        state.out.push_back(Out::Loose(item));
        self.wake.notify_one();
    }

    /// Sends a message about the worker itself.
    pub(crate) fn tell(&self, kind: Kind) {
        let item = message(kind);
        let mut guard = self.lock();
        guard.loose_bytes += item.encoded_len();
        guard.out.push_back(Out::Loose(item));
        self.wake.notify_one();
    }

    /// The server took note of a record or a result.
    pub(crate) fn acknowledge(&self, ack: &Ack) {
        let key = Key { namespace: ack.namespace.clone(), task_id: ack.task_id.clone() };
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(held) = state.held.get_mut(&key) else { return };
        // An answer to an older attempt, or the refusal of an older delivery, says nothing of this one.
        if ack.fence < held.first_fence || (!ack.applied && ack.fence < held.fence) {
            return;
        }
        match ack.record_index {
            Some(index) if ack.applied => {
                if let Some(record) = held.records.remove(&index) {
                    // The handler may have stopped waiting.
                    let _ = record.waiter.send(Ok(()));
                }
            }
            _ if ack.applied && held.result.is_none() => {}
            _ => {
                if !ack.applied {
                    tracing::debug!(task.id = key.task_id, reason = ack.message, "task overtaken or refused");
                }
                self.forget(state, &key, if ack.message.is_empty() { "the task was overtaken" } else { &ack.message });
            }
        }
    }

    /// The server wants the task no more: stops it, says once that it stopped, forgets it.
    pub(crate) fn cancel(&self, key: &Key, fence: u64, reason: &str) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(held) = state.held.get(key).filter(|held| fence == 0 || fence >= held.fence) else { return };
        let item = held.failed_message(key, &TaskError::cancelled(reason));
        self.forget(state, key, reason);
        state.loose_bytes += item.encoded_len();
        state.out.push_back(Out::Loose(item));
        self.wake.notify_one();
    }

    fn forget(&self, state: &mut State, key: &Key, reason: &str) {
        if let Some(held) = state.held.remove(key) {
            held.stop.set(reason);
            for (_, record) in held.records {
                let _ = record.waiter.send(Err(reason.to_owned()));
            }
        }
        self.count.send_replace(state.held.len());
    }

    /// A new stream begins: what waits is what is not acknowledged. Answers with the tasks held.
    pub(crate) fn restart(&self) -> Vec<HeldTask> {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.out.clear();
        state.loose_bytes = 0;
        for (key, held) in &state.held {
            state.out.extend(held.records.keys().map(|index| Out::Record(key.clone(), *index)));
            if held.result.is_some() {
                state.out.push_back(Out::Result(key.clone()));
            }
        }
        self.wake.notify_one();
        state.held.iter().map(|(key, held)| held.listed(key)).collect()
    }

    /// What waits to be sent, at least one message.
    pub(crate) async fn batch(&self) -> Vec<WorkerMessage> {
        loop {
            let batch = self.drain();
            if !batch.is_empty() {
                return batch;
            }
            self.wake.notified().await;
        }
    }

    fn drain(&self) -> Vec<WorkerMessage> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_MESSAGES && bytes < BATCH_BYTES {
            let Some(out) = state.out.pop_front() else { break };
            let item = match out {
                Out::Loose(item) => {
                    state.loose_bytes = state.loose_bytes.saturating_sub(item.encoded_len());
                    Some(item)
                }
                Out::Record(key, index) => state.held.get(&key).and_then(|held| held.record_message(&key, index)),
                Out::Result(key) => state.held.get(&key).and_then(|held| held.result_message(&key)),
            };
            if let Some(item) = item {
                bytes += item.encoded_len();
                batch.push(item);
            }
        }
        batch
    }

    /// Stops everything: the worker is ending.
    pub(crate) fn abandon(&self, reason: &str) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let keys: Vec<Key> = state.held.keys().cloned().collect();
        for key in keys {
            self.forget(state, &key, reason);
        }
    }

    /// Ends when no task is held.
    pub(crate) async fn idle(&self) {
        let mut count = self.count.subscribe();
        // The sender lives as long as `self`: there is always an answer.
        let _ = count.wait_for(|count| *count == 0).await;
    }

    /// Chunks dropped since the last time this was asked.
    pub(crate) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

/// Joins texts, and lines of a log, that wait one behind the other: watchers want few large chunks rather than many small ones.
/// Answers with the bytes that were added.
fn merge(last: &mut Out, next: &Kind) -> Option<usize> {
    let (Out::Loose(WorkerMessage { kind: Some(Kind::Chunk(last)) }), Kind::Chunk(next)) = (last, next) else { return None };
    let separator: &[u8] = match next.kind.as_str() {
        "text" => b"",
        "log" => b"\n",
        _ => return None,
    };
    let same = (&last.namespace, &last.task_id, last.fence, &last.kind) == (&next.namespace, &next.task_id, next.fence, &next.kind);
    let before = last.data.len();
    if !same || before + next.data.len() > MERGED_BYTES {
        return None;
    }
    last.data = [&last.data, separator, &next.data].concat().into();
    Some(last.data.len() - before)
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
