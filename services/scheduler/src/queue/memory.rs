//! The queue in memory: every operation is O(log n) in the tasks it holds, and nothing polls.

mod entry;

use super::{
    Cancelled, Claim, Delivery, Due, Enqueued, Fences, Handle, Limit, MAX_POSITION, NewTask, QueueKey, QueueSettings, QueueStats,
    QueueStatus, Released, Taken, TaskKey, TaskQueue, TaskState, TaskView,
};
use crate::clock::Millis;
use async_trait::async_trait;
use entry::{Entry, Lane, State};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use troupe_domain::Error;
use troupe_proto::common::v1::Record;

/// Ready tasks that are looked at for [`QueueStats::oldest`].
const OLDEST_AMONG: usize = 1_000;

/// Task queues of one process.
pub struct MemoryQueue {
    settings: QueueSettings,
    fences: Fences,
    tasks: HashMap<TaskKey, Entry>,
    lanes: HashMap<QueueKey, Lane>,
    /// One timer for each task that has something to wait for; it may fire early, then it is set again.
    timers: BTreeSet<(Millis, TaskKey)>,
    namespaces: HashMap<Box<str>, usize>,
    seq: u64,
}

impl MemoryQueue {
    pub fn new(settings: QueueSettings) -> Self {
        Self {
            settings,
            fences: Fences::default(),
            tasks: HashMap::new(),
            lanes: HashMap::new(),
            timers: BTreeSet::new(),
            namespaces: HashMap::new(),
            seq: 0,
        }
    }

    fn add(&mut self, new: NewTask, now: Millis) -> Enqueued {
        let outcome = match self.tasks.get(&new.key) {
            Some(old) if old.task.attempt >= new.task.attempt => return Enqueued::Ignored,
            Some(old) => Enqueued::Replaced(old.leased_fence()),
            None => Enqueued::Added,
        };
        let floor = self.forget(&new.key).map_or(0, |old| old.fence.max(old.floor));
        if let Some(limit) = self.reached(new.key.namespace()) {
            return Enqueued::Full(limit);
        }
        *self.namespaces.entry(new.key.namespace().into()).or_default() += 1;
        self.seq += 1;
        let key = new.key.clone();
        let entry = Entry::new(new, &self.settings, self.seq, floor, now);
        self.tasks.insert(key.clone(), entry);
        self.enter(&key);
        outcome
    }

    fn reached(&self, namespace: &str) -> Option<Limit> {
        if self.tasks.len() >= self.settings.max_tasks {
            return Some(Limit::All);
        }
        let held = self.namespaces.get(namespace).copied().unwrap_or(0);
        (held >= self.settings.max_namespace_tasks).then_some(Limit::Namespace)
    }

    /// Counts the task into its lane and sets its timer, after its state was set.
    fn enter(&mut self, key: &TaskKey) {
        let Some(entry) = self.tasks.get_mut(key) else { return };
        if entry.state != State::Settled {
            self.lanes.entry(entry.queue.clone()).or_default().enter(entry, key);
        }
        let due = entry.due();
        if entry.timer != due {
            if let Some(at) = entry.timer {
                self.timers.remove(&(at, key.clone()));
            }
            if let Some(at) = due {
                self.timers.insert((at, key.clone()));
            }
            entry.timer = due;
        }
    }

    /// Counts the task out of its lane, before its state changes.
    fn leave(&mut self, key: &TaskKey) {
        let Some(entry) = self.tasks.get(key) else { return };
        if let Some(lane) = self.lanes.get_mut(&entry.queue) {
            lane.leave(entry);
            if lane.is_empty() {
                self.lanes.remove(&entry.queue);
            }
        }
    }

    fn turn(&mut self, key: &TaskKey, state: State) {
        self.leave(key);
        if let Some(entry) = self.tasks.get_mut(key) {
            entry.turn(state);
        }
        self.enter(key);
    }

    fn forget(&mut self, key: &TaskKey) -> Option<Entry> {
        self.leave(key);
        let entry = self.tasks.remove(key)?;
        if let Some(at) = entry.timer {
            self.timers.remove(&(at, key.clone()));
        }
        if let Some(count) = self.namespaces.get_mut(key.namespace()) {
            *count -= 1;
            if *count == 0 {
                self.namespaces.remove(key.namespace());
            }
        }
        Some(entry)
    }

    fn lease(&mut self, key: &TaskKey, now: Millis) {
        let Some(entry) = self.tasks.get(key) else { return };
        let state = State::Leased { until: now + self.settings.lease, timeout_at: now.saturating_add(entry.timeout) };
        self.turn(key, state);
    }

    fn deliver(&mut self, key: TaskKey, now: Millis) -> Option<Delivery> {
        let entry = self.tasks.get_mut(&key)?;
        entry.fence = self.fences.next(now, entry.fence.max(entry.floor).max(entry.task.last_fence));
        entry.deliveries += 1;
        let delivery = Delivery {
            queue: entry.queue.clone(),
            task: (*entry.task).clone(),
            fence: entry.fence,
            number: entry.deliveries,
            avoid: entry.avoid.take(),
            key,
        };
        self.lease(&delivery.key, now);
        Some(delivery)
    }

    fn claim_one(&mut self, handle: &Handle, now: Millis) -> Claim {
        let Some(entry) = self.tasks.get_mut(&handle.key) else { return Claim::Unknown };
        if entry.fence != handle.fence {
            return Claim::Stale;
        }
        match entry.state {
            State::Settled => Claim::Settled,
            State::Leased { .. } => {
                entry.extend(now + self.settings.lease);
                Claim::Leased
            }
            State::Ready | State::Delayed => {
                self.lease(&handle.key, now);
                Claim::Leased
            }
        }
    }

    fn resume_one(&mut self, handle: &Handle, attempt: u32, now: Millis) -> bool {
        let Some(entry) = self.tasks.get_mut(&handle.key) else { return false };
        let newest = handle.fence > entry.fence && handle.fence > entry.floor && handle.fence >= entry.task.last_fence;
        if entry.state == State::Settled || entry.task.attempt != attempt || !newest {
            return false;
        }
        entry.fence = handle.fence;
        entry.deliveries = entry.deliveries.max(1);
        self.lease(&handle.key, now);
        true
    }

    fn release_one(&mut self, handle: &Handle, avoid: Option<Arc<str>>) -> Released {
        let max = self.settings.max_deliveries;
        let Some(entry) = self.tasks.get_mut(&handle.key) else { return Released::Stale };
        if entry.leased_fence() != Some(handle.fence) {
            return Released::Stale;
        }
        if entry.deliveries >= max {
            self.turn(&handle.key, State::Settled);
            return Released::Exhausted;
        }
        entry.avoid = avoid;
        self.turn(&handle.key, State::Ready);
        Released::Requeued
    }

    fn settle_one(&mut self, handle: &Handle) -> bool {
        let current = self.tasks.get(&handle.key).is_some_and(|e| e.fence == handle.fence && e.state != State::Settled);
        if current {
            self.turn(&handle.key, State::Settled);
        }
        current
    }

    /// One task whose timer has fired.
    fn due_one(&mut self, key: &TaskKey, now: Millis, due: &mut Due) {
        let Some(entry) = self.tasks.get_mut(key) else { return };
        entry.timer = None;
        let past = |at: Millis| at <= now;
        if entry.state != State::Settled && entry.deadline.is_some_and(past) {
            if entry.fence == 0 {
                entry.fence = self.fences.next(now, entry.floor.max(entry.task.last_fence));
            }
            due.overdue.push(entry.ended(key));
            return self.turn(key, State::Settled);
        }
        match entry.state {
            State::Leased { timeout_at, .. } if past(timeout_at) => {
                due.timed_out.push(entry.ended(key));
                self.turn(key, State::Settled);
            }
            State::Leased { until, .. } if past(until) => {
                due.expired.push(entry.ended(key));
                // The caller gives it back now; should it fail to, the lease is looked at again.
                entry.extend(now + self.settings.lease);
                self.rearm(key);
            }
            State::Delayed if past(entry.ready_at) => {
                due.ready.push(entry.queue.clone());
                self.turn(key, State::Ready);
            }
            _ => self.rearm(key),
        }
    }

    fn rearm(&mut self, key: &TaskKey) {
        self.leave(key);
        self.enter(key);
    }

    fn status_of(&self, queue: &QueueKey) -> QueueStatus {
        self.lanes.get(queue).map(Lane::status).unwrap_or_default()
    }

    fn view_one(&self, key: &TaskKey) -> Option<TaskView> {
        let entry = self.tasks.get(key)?;
        let state = match entry.state {
            State::Delayed => TaskState::Delayed { until: entry.ready_at },
            State::Ready => {
                TaskState::Ready { position: self.lanes.get(&entry.queue).map_or(1, |lane| lane.position(entry, MAX_POSITION)) }
            }
            State::Leased { until, .. } => TaskState::Leased { fence: entry.fence, until },
            State::Settled => TaskState::Settled { fence: entry.fence },
        };
        Some(TaskView { queue: entry.queue.clone(), state, attempt: entry.task.attempt })
    }

    fn stats_of(&self, queue: &QueueKey, lane: &Lane) -> QueueStats {
        let since = |key: &TaskKey| self.tasks.get(key).map(|entry| entry.since);
        QueueStats {
            queue: queue.clone(),
            ready: lane.ready.len(),
            delayed: lane.delayed,
            active: lane.active,
            oldest: lane.ready.values().take(OLDEST_AMONG).filter_map(since).min(),
        }
    }
}

#[async_trait]
impl TaskQueue for MemoryQueue {
    async fn enqueue(&mut self, tasks: Vec<NewTask>, now: Millis) -> Result<Vec<Enqueued>, Error> {
        Ok(tasks.into_iter().map(|task| self.add(task, now)).collect())
    }

    fn fence(&mut self, now: Millis) -> u64 {
        self.fences.next(now, 0)
    }

    async fn cancel(&mut self, keys: &[TaskKey]) -> Result<Vec<Option<Cancelled>>, Error> {
        let cancelled = |entry: Entry| Cancelled { fence: entry.leased_fence(), queue: entry.queue };
        Ok(keys.iter().map(|key| self.forget(key).map(cancelled)).collect())
    }

    async fn take(&mut self, queue: &QueueKey, max: usize, now: Millis) -> Result<Taken, Error> {
        let keys = self.lanes.get(queue).map(|lane| lane.ready.values().take(max).cloned().collect::<Vec<_>>()).unwrap_or_default();
        let deliveries = keys.into_iter().filter_map(|key| self.deliver(key, now)).collect();
        Ok(Taken { deliveries, status: self.status_of(queue) })
    }

    async fn status(&mut self, queues: &[QueueKey]) -> Result<Vec<QueueStatus>, Error> {
        Ok(queues.iter().map(|queue| self.status_of(queue)).collect())
    }

    async fn extend(&mut self, handles: &[Handle], now: Millis) -> Result<Vec<bool>, Error> {
        let until = now + self.settings.lease;
        let extend = |handle: &Handle| {
            let entry = self.tasks.get_mut(&handle.key).filter(|entry| entry.leased_fence() == Some(handle.fence));
            entry.map(|entry| entry.extend(until)).is_some()
        };
        Ok(handles.iter().map(extend).collect())
    }

    async fn claim(&mut self, handles: &[Handle], now: Millis) -> Result<Vec<Claim>, Error> {
        Ok(handles.iter().map(|handle| self.claim_one(handle, now)).collect())
    }

    async fn resume(&mut self, handle: &Handle, attempt: u32, now: Millis) -> Result<bool, Error> {
        Ok(self.resume_one(handle, attempt, now))
    }

    async fn release(&mut self, handles: &[(Handle, Option<Arc<str>>)], _now: Millis) -> Result<Vec<Released>, Error> {
        Ok(handles.iter().map(|(handle, avoid)| self.release_one(handle, avoid.clone())).collect())
    }

    async fn settle(&mut self, handles: &[Handle]) -> Result<Vec<bool>, Error> {
        Ok(handles.iter().map(|handle| self.settle_one(handle)).collect())
    }

    async fn remove(&mut self, handles: &[Handle]) -> Result<(), Error> {
        for handle in handles {
            if self.tasks.get(&handle.key).is_some_and(|entry| entry.fence == handle.fence) {
                self.forget(&handle.key);
            }
        }
        Ok(())
    }

    async fn record(&mut self, records: Vec<(TaskKey, Record)>) -> Result<(), Error> {
        for (key, record) in records {
            if let Some(entry) = self.tasks.get_mut(&key) {
                entry.record(record);
            }
        }
        Ok(())
    }

    async fn tick(&mut self, now: Millis) -> Result<Due, Error> {
        let mut due = Due::default();
        while let Some((at, _)) = self.timers.first()
            && *at <= now
        {
            if let Some((_, key)) = self.timers.pop_first() {
                self.due_one(&key, now, &mut due);
            }
        }
        due.ready.sort_unstable();
        due.ready.dedup();
        Ok(due)
    }

    fn next_due(&self) -> Option<Millis> {
        self.timers.first().map(|timer| timer.0)
    }

    async fn list(&mut self, namespace: &str) -> Result<Vec<QueueStats>, Error> {
        let mut all: Vec<QueueStats> =
            self.lanes.iter().filter(|(queue, _)| queue.namespace() == namespace).map(|(queue, lane)| self.stats_of(queue, lane)).collect();
        all.sort_unstable_by(|a, b| a.queue.cmp(&b.queue));
        Ok(all)
    }

    async fn view(&mut self, keys: &[TaskKey]) -> Result<Vec<Option<TaskView>>, Error> {
        Ok(keys.iter().map(|key| self.view_one(key)).collect())
    }

    fn len(&self) -> usize {
        self.tasks.len()
    }
}
