//! Tasks that workers have ahead of the queue. A new task goes to a worker that has room at once; the queue hears of it only if it lasts,
//! so that a short one costs no way there and back, and goes on while the queue is away. Until then this scheduler answers for it: should
//! it die, executors see their streams end and dispatch again what is pending.

use super::{
    Core, Timer,
    dispatch::{ELSEWHERE, FULL_RETRY_MS, NEWER, full},
};
use crate::{
    clock::Millis,
    metrics::Ending,
    queue::{Delivery, Enqueued, Handle, NewTask, QueueKey, TaskKey},
    roster::ConnId,
};
use std::collections::{BTreeSet, HashMap, HashSet};
use troupe_domain::Error;
use troupe_proto::common::v1::Record;

/// After so long the queue hears of a task, in milliseconds. It is shorter than any way by which another scheduler could be given the
/// task: an executor that has lost a stream waits for longer before it dispatches again.
const NOTE_AFTER: Millis = 10;

/// A result on its way into the journal is not noted for so much longer.
const NOTE_END_AFTER: Millis = 30;

/// After a failure.
const NOTE_AGAIN: Millis = 200;

/// Times of a task that are shorter than this have to be kept by the queue from the start.
const SHORTEST: Millis = 1_000;

/// So many queues that wait are compared with a new task's.
const MOST_HEADS: usize = 8;

#[derive(Default)]
pub(super) struct Ahead {
    tasks: HashMap<TaskKey, NewTask>,
    /// By when the queue is to hear of them; some have ended since.
    order: BTreeSet<(Millis, TaskKey)>,
    /// Ended attempts that the queue has never heard of. Who dispatches one of them again does not know of its end.
    ended: HashMap<TaskKey, (u64, u32)>,
}

impl Ahead {
    fn add(&mut self, task: NewTask, now: Millis) {
        self.order.insert((now + NOTE_AFTER, task.key.clone()));
        self.tasks.insert(task.key.clone(), task);
    }

    pub(super) fn has(&self, key: &TaskKey) -> bool {
        self.tasks.contains_key(key)
    }

    /// Forgets an attempt that counts no more, or that the queue knows now. False: it was not here.
    pub(super) fn forget(&mut self, key: &TaskKey, attempt: u32) -> bool {
        let is_here = self.tasks.get(key).is_some_and(|task| task.task.attempt == attempt);
        is_here && self.tasks.remove(key).is_some()
    }

    /// Forgets a task whatever its attempt.
    pub(super) fn cancel(&mut self, key: &TaskKey) {
        self.tasks.remove(key);
    }

    /// Whether the attempt has ended, and the queue does not know it yet.
    pub(super) fn has_ended(&self, key: &TaskKey, attempt: u32) -> bool {
        self.ended.get(key).is_some_and(|(_, ended)| *ended >= attempt)
    }

    /// The end of an attempt is in the journal. False: the queue knows the task and has to be told.
    pub(super) fn finish(&mut self, handle: &Handle, attempt: u32) -> bool {
        let was_ahead = self.forget(&handle.key, attempt);
        if was_ahead {
            self.ended.insert(handle.key.clone(), (handle.fence, attempt));
        }
        was_ahead
    }

    /// Keeps an acknowledged record with its task.
    pub(super) fn record(&mut self, key: &TaskKey, record: Record) -> Option<Record> {
        let Some(task) = self.tasks.get_mut(key) else { return Some(record) };
        if task.task.records.iter().all(|known| known.index != record.index) {
            task.task.records.push(record);
        }
        None
    }

    /// Those the queue is to hear of by now.
    fn due(&mut self, now: Millis) -> Vec<(Millis, TaskKey)> {
        let mut due = Vec::new();
        while self.order.first().is_some_and(|(at, _)| *at <= now)
            && let Some((at, key)) = self.order.pop_first()
        {
            if self.tasks.contains_key(&key) {
                due.push((at, key));
            }
        }
        due
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty() && self.ended.is_empty()
    }
}

impl Core {
    /// Gives a task to a worker that has room. Not where something else is to be had there first, and not where somebody may have seen the
    /// task before. The task comes back when it has to go into the queue.
    pub(super) async fn give_first(&mut self, mut new: NewTask) -> Option<NewTask> {
        if !self.may_give_first(&new) {
            return Some(new);
        }
        let fence = self.queue.fence(self.now);
        if fence <= new.task.last_fence {
            return Some(new);
        }
        let (key, queue) = (new.key.clone(), new.queue.clone());
        self.place(Delivery { key, queue, task: (*new.task).clone(), fence, number: 1, avoid: None }).await;
        let Some(running) = self.running.get_mut(&new.key).filter(|running| running.fence == fence) else { return Some(new) };
        running.queue = None;
        new.task.last_fence = fence;
        if self.ahead.is_empty() {
            self.set_timer(self.now + NOTE_AFTER, Timer::Note);
        }
        self.ahead.add(new, self.now);
        None
    }

    fn may_give_first(&mut self, new: &NewTask) -> bool {
        let patient = new.timeout >= SHORTEST && new.deadline.is_none_or(|at| at >= self.now + SHORTEST);
        new.task.first
            && patient
            && new.not_before.is_none_or(|at| at <= self.now)
            && self.may_assign()
            && !self.running.contains_key(&new.key)
            && !self.ahead.has(&new.key)
            && !self.others_wait(&new.queue)
            && self.roster.room(&new.queue, self.now) > 0
    }

    /// Whether a worker of this queue may owe its room to something that waits already.
    fn others_wait(&self, queue: &QueueKey) -> bool {
        match self.heads.len() + self.dirty.len() {
            0 => return false,
            1..=MOST_HEADS => {}
            _ => return true,
        }
        let own: HashSet<ConnId> = self.roster.servers_of(queue).into_iter().collect();
        let mut waiting = self.heads.keys().chain(self.dirty.keys());
        waiting.any(|other| other == queue || self.roster.servers_of(other).iter().any(|conn| own.contains(conn)))
    }

    /// The end of an attempt is in the journal.
    pub(super) fn finished(&mut self, handle: Handle, attempt: u32) {
        let is_timed = !self.ahead.is_empty();
        if !self.ahead.finish(&handle, attempt) {
            self.batch.finished.push((handle, attempt));
        } else if !is_timed {
            self.set_timer(self.now + NOTE_AFTER, Timer::Note);
        }
    }

    /// Tells the queue of tasks that last, and of short ones that have ended.
    pub(super) async fn note(&mut self) {
        let due = self.ahead.due(self.now);
        let (ending, lasting): (Vec<_>, Vec<_>) = due.into_iter().partition(|(at, key)| {
            let ends = self.ahead.tasks.get(key).is_some_and(|task| self.reports.is_ending(key, task.task.attempt));
            ends && self.now < *at + NOTE_END_AFTER
        });
        self.ahead.order.extend(ending);
        self.note_these(lasting.into_iter().map(|(_, key)| key).collect()).await;
        self.bury().await;
        if !self.ahead.is_empty() {
            self.set_timer(self.now + NOTE_AFTER, Timer::Note);
        }
    }

    /// Tells the queue of everything, before somebody asks it.
    pub(super) async fn note_all(&mut self) {
        let keys: Vec<TaskKey> = self.ahead.tasks.keys().cloned().collect();
        self.note_these(keys).await;
        self.bury().await;
    }

    /// So that a late dispatch of what has ended is ignored, whichever scheduler hears it.
    async fn bury(&mut self) {
        if self.ahead.ended.is_empty() {
            return;
        }
        let ended: Vec<(Handle, u32)> = self.ahead.ended.drain().map(|(key, (fence, attempt))| (Handle { key, fence }, attempt)).collect();
        let answer = self.queue.finish(&ended).await;
        self.ask(answer);
    }

    /// Puts tasks into the queue under the deliveries that workers have. What cannot be put there is tried again.
    pub(super) async fn note_these(&mut self, keys: Vec<TaskKey>) {
        let tasks: Vec<NewTask> = keys.iter().filter_map(|key| self.ahead.tasks.get(key).cloned()).collect();
        if tasks.is_empty() {
            return;
        }
        let noted = self.put(tasks).await;
        if self.ask(noted).is_none() {
            self.ahead.order.extend(keys.into_iter().map(|key| (self.now + NOTE_AGAIN, key)));
        }
    }

    /// Puts tasks into the queue; those that workers have start leased.
    pub(super) async fn put(&mut self, mut tasks: Vec<NewTask>) -> Result<(), Error> {
        for task in &mut tasks {
            task.held = self.holder(&task.key, task.task.attempt);
        }
        let seen: Vec<_> = tasks.iter().map(|task| (task.key.clone(), task.queue.clone(), task.task.attempt)).collect();
        let (outcomes, taken) = match self.waited_for(&tasks) {
            Some((queue, most)) => {
                let (outcomes, taken) = self.queue.enqueue_and_take(tasks, &queue, most, self.now).await?;
                (outcomes, Some((queue, taken)))
            }
            None => (self.queue.enqueue(tasks, self.now).await?, None),
        };
        for ((key, queue, attempt), outcome) in seen.into_iter().zip(outcomes) {
            let is_ready = self.enqueued(&key, &queue, attempt, outcome).await;
            if is_ready && taken.as_ref().is_none_or(|(known, _)| *known != queue) {
                self.mark(&queue, false);
            }
        }
        if let Some((queue, taken)) = taken {
            self.took(&queue, taken).await;
        }
        Ok(())
    }

    /// The fence under which a worker has this very attempt, or had it until it ended: the queue does not know, or has lost it.
    fn holder(&self, key: &TaskKey, attempt: u32) -> Option<u64> {
        let running = self.running.get(key).filter(|running| running.attempt == attempt).map(|running| running.fence);
        running.or_else(|| self.reports.fence_of(key, attempt))
    }

    /// What became of a task in the queue. True: it may be ready there.
    async fn enqueued(&mut self, key: &TaskKey, queue: &QueueKey, attempt: u32, outcome: Enqueued) -> bool {
        let grace = self.config.stop_grace_ms();
        let handle = |fence| Handle { key: key.clone(), fence };
        let holder = self.holder(key, attempt).filter(|_| self.ahead.has(key));
        match (outcome, holder) {
            (Enqueued::Ignored, holder) => {
                // Somebody else has it: it was dispatched before after all.
                if let Some(fence) = holder {
                    self.stop(&handle(fence), ELSEWHERE, grace, Ending::Cancelled);
                }
                return false;
            }
            // It needs no place while a worker has it.
            (Enqueued::Full(_), Some(_)) => {
                self.ahead.order.insert((self.now + FULL_RETRY_MS, key.clone()));
                return false;
            }
            (Enqueued::Full(limit), None) => {
                self.ahead.forget(key, attempt);
                self.fail_unseen(key.clone(), attempt, full(limit));
                return false;
            }
            (Enqueued::Replaced(Some(fence)), _) => {
                self.stop_anywhere(&handle(fence), NEWER, grace, Ending::Cancelled).await;
            }
            (Enqueued::Replaced(None) | Enqueued::Added, _) => {}
        }
        self.ahead.forget(key, attempt);
        match self.running.get_mut(key) {
            Some(running) if running.attempt == attempt => {
                running.queue = Some(queue.clone());
                return false;
            }
            Some(running) => {
                let fence = running.fence;
                self.stop(&handle(fence), NEWER, grace, Ending::Cancelled);
            }
            None => {}
        }
        true
    }
}
