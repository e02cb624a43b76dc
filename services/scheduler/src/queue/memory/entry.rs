//! One task in the memory queue, and the lane (queue) it stands in.

use crate::{
    clock::Millis,
    queue::{Ended, Handle, NewTask, QueueKey, QueueSettings, QueueStatus, TaskKey},
};
use std::{collections::BTreeMap, sync::Arc};
use troupe_proto::{common::v1::Record, scheduler::v1::Task};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Delayed,
    Ready,
    Leased { until: Millis, timeout_at: Millis },
    Settled,
}

pub(super) struct Entry {
    pub(super) queue: QueueKey,
    pub(super) task: Box<Task>,
    pub(super) since: Millis,
    pub(super) ready_at: Millis,
    pub(super) timeout: Millis,
    pub(super) deadline: Option<Millis>,
    pub(super) deliveries: u32,
    /// The last one given; 0: none.
    pub(super) fence: u64,
    /// The last one of the attempt that this one replaced.
    pub(super) floor: u64,
    pub(super) avoid: Option<Arc<str>>,
    pub(super) state: State,
    /// Where its timer stands in the queue's set.
    pub(super) timer: Option<Millis>,
    order: (u64, u64),
}

impl Entry {
    pub(super) fn new(new: NewTask, settings: &QueueSettings, seq: u64, floor: u64, now: Millis) -> Self {
        let ready_at = new.not_before.unwrap_or(0);
        let since = new.since.min(now).max(ready_at);
        let held = new.held.filter(|fence| *fence > floor && *fence >= new.task.last_fence);
        let state = match held {
            Some(_) => State::Leased { until: now + settings.lease, timeout_at: now.saturating_add(new.timeout) },
            None if ready_at > now => State::Delayed,
            None => State::Ready,
        };
        Self {
            order: (settings.score(new.task.priority, since), seq),
            queue: new.queue,
            task: new.task,
            since,
            ready_at,
            timeout: new.timeout,
            deadline: new.deadline,
            deliveries: u32::from(held.is_some()),
            fence: held.unwrap_or(0),
            floor,
            avoid: None,
            state,
            timer: None,
        }
    }

    pub(super) fn leased_fence(&self) -> Option<u64> {
        matches!(self.state, State::Leased { .. }).then_some(self.fence)
    }

    /// When the queue must look at it.
    pub(super) fn due(&self) -> Option<Millis> {
        let own = match self.state {
            State::Delayed => Some(self.ready_at),
            State::Ready => None,
            State::Leased { until, timeout_at } => Some(until.min(timeout_at)),
            State::Settled => return None,
        };
        own.into_iter().chain(self.deadline).min()
    }

    /// The timer stays where it is: it looks again when it fires, so that a sign of progress costs nothing.
    pub(super) fn extend(&mut self, to: Millis) {
        if let State::Leased { until, .. } = &mut self.state {
            *until = to.max(*until);
        }
    }

    pub(super) fn turn(&mut self, state: State) {
        self.state = state;
        if state == State::Settled {
            // Only its identity is needed from here on.
            let attempt = self.task.attempt;
            *self.task = Task { attempt, ..Task::default() };
        }
    }

    pub(super) fn ended(&self, key: &TaskKey) -> Ended {
        Ended { handle: Handle { key: key.clone(), fence: self.fence }, attempt: self.task.attempt, queue: self.queue.clone() }
    }

    pub(super) fn record(&mut self, record: Record) {
        let records = &mut self.task.records;
        if self.state != State::Settled
            && let Err(at) = records.binary_search_by_key(&record.index, |r| r.index)
        {
            records.insert(at, record);
        }
    }
}

#[derive(Default)]
pub(super) struct Lane {
    pub(super) ready: BTreeMap<(u64, u64), TaskKey>,
    pub(super) delayed: usize,
    pub(super) active: usize,
}

impl Lane {
    pub(super) fn enter(&mut self, entry: &Entry, key: &TaskKey) {
        match entry.state {
            State::Delayed => self.delayed += 1,
            State::Ready => {
                self.ready.insert(entry.order, key.clone());
            }
            State::Leased { .. } => self.active += 1,
            State::Settled => {}
        }
    }

    pub(super) fn leave(&mut self, entry: &Entry) {
        match entry.state {
            State::Delayed => self.delayed -= 1,
            State::Ready => {
                self.ready.remove(&entry.order);
            }
            State::Leased { .. } => self.active -= 1,
            State::Settled => {}
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.delayed == 0 && self.active == 0
    }

    pub(super) fn status(&self) -> QueueStatus {
        QueueStatus { ready: self.ready.len(), head: self.ready.first_key_value().map_or(0, |(order, _)| order.0) }
    }

    pub(super) fn position(&self, entry: &Entry, most: usize) -> usize {
        1 + self.ready.range(..entry.order).take(most - 1).count()
    }
}
