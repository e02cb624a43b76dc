//! The task queue behind its trait: order, delay, leases, timeouts and deadlines of tasks. Everything in it can be rebuilt by the
//! executors dispatching again, so a backend may lose it.

pub mod fence;
pub mod key;
pub mod memory;
pub mod redis;

pub use fence::Fences;
pub use key::{QueueKey, QueueTarget, TaskKey};
pub use memory::MemoryQueue;
pub use redis::{RedisQueue, RedisQueueSettings};

use crate::clock::Millis;
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::mpsc;
use troupe_domain::Error;
use troupe_proto::{common::v1::Record, scheduler::v1::Task};

/// What a backend needs to know. All times are milliseconds.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// A delivery without a sign of progress for this long is over.
    pub lease: Millis,
    /// Waiting this long is worth one level of priority; at least 1.
    pub aging: Millis,
    /// Deliveries of one attempt before it is given up.
    pub max_deliveries: u32,
    /// Tasks in all.
    pub max_tasks: usize,
    /// Tasks of one namespace.
    pub max_namespace_tasks: usize,
}

impl QueueSettings {
    /// The order within a queue: smallest first. Aging is linear in time, so the order of two waiting tasks never changes.
    pub fn score(&self, priority: u32, since: Millis) -> u64 {
        since.saturating_add(u64::from(priority).saturating_mul(self.aging))
    }
}

/// A task on its way into the queue.
#[derive(Clone, Debug)]
pub struct NewTask {
    pub key: TaskKey,
    pub queue: QueueKey,
    pub task: Box<Task>,
    /// From when it waits: its age counts from here.
    pub since: Millis,
    pub not_before: Option<Millis>,
    /// Of one delivery.
    pub timeout: Millis,
    pub deadline: Option<Millis>,
    /// The fence under which a worker runs it already (the queue was lost since): it starts leased.
    pub held: Option<u64>,
}

/// What became of a task given to [`TaskQueue::enqueue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued {
    Added,
    /// An older attempt is replaced; the fence under which it ran, if it did.
    Replaced(Option<u64>),
    /// The same or a newer attempt is there, waiting, running or being reported.
    Ignored,
    /// A limit is reached.
    Full(Limit),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `max_tasks`.
    All,
    /// `max_namespace_tasks`.
    Namespace,
}

/// A task leased out.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub key: TaskKey,
    pub queue: QueueKey,
    /// With all acknowledged records.
    pub task: Task,
    pub fence: u64,
    /// From 1, within the attempt.
    pub number: u32,
    /// The worker that lost it last: another one is better.
    pub avoid: Option<Arc<str>>,
}

/// What [`TaskQueue::take`] found in one queue.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    pub deliveries: Vec<Delivery>,
    /// What is left ready.
    pub status: QueueStatus,
}

/// The ready part of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStatus {
    pub ready: usize,
    /// The first task's score; queues are compared by it.
    pub head: u64,
}

/// One delivery of one task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    pub key: TaskKey,
    pub fence: u64,
}

/// What became of a delivery that is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// Ready again, at its old place.
    Requeued,
    /// It was the last one allowed: the task is settled, its loss is to be reported.
    Exhausted,
    /// Not the task's current delivery.
    Stale,
}

/// How a delivery stands that somebody says he has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the task's last delivery, and leased (again).
    Leased,
    /// Its result has been taken and is being reported.
    Settled,
    /// A newer delivery or attempt exists.
    Stale,
    /// The queue has no such task.
    Unknown,
}

/// A delivery or task whose time is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// With the last fence given; a fresh one for a task that was never delivered.
    pub handle: Handle,
    pub attempt: u32,
    pub queue: QueueKey,
}

/// A task that was taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancelled {
    pub queue: QueueKey,
    /// The fence under which it ran, if it did.
    pub fence: Option<u64>,
}

/// What has become due.
#[derive(Clone, Debug, Default)]
pub struct Due {
    /// Queues in which tasks have become ready; also others that have ready tasks, where several schedulers share them.
    pub ready: Vec<QueueKey>,
    /// Leases that are over, also those of schedulers that have gone. The caller gives them back with [`TaskQueue::release`].
    pub expired: Vec<Ended>,
    /// Deliveries that took too long; settled.
    pub timed_out: Vec<Ended>,
    /// Tasks past their deadline; settled.
    pub overdue: Vec<Ended>,
}

/// Numbers of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueStats {
    pub queue: QueueKey,
    pub ready: usize,
    pub delayed: usize,
    pub active: usize,
    /// Since when the longest-waiting of the first ready tasks (a thousand at most) waits.
    pub oldest: Option<Millis>,
}

/// Where a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskView {
    pub queue: QueueKey,
    pub state: TaskState,
    pub attempt: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    Delayed {
        until: Millis,
    },
    /// From 1; counted up to [`MAX_POSITION`].
    Ready {
        position: usize,
    },
    Leased {
        fence: u64,
        until: Millis,
    },
    Settled {
        fence: u64,
    },
}

/// What a queue that several schedulers share says unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueEvent {
    /// Another scheduler has put tasks into a queue that had nothing ready.
    Ready(QueueKey),
    /// Another scheduler has taken this delivery away from whoever runs it, and says why.
    Stop(Handle, String),
    /// It is time for a [`TaskQueue::tick`], whatever is due: others have changed the queue.
    Look,
    /// Tasks were lost. Executors have to dispatch theirs again.
    Lost,
}

/// Positions in a queue are counted so far.
pub const MAX_POSITION: usize = 10_000;

/// Task queues by namespace and target. Every call carries many items and answers in their order. Errors mean that the backend is not to
/// be had; nothing is then promised about the items.
#[async_trait]
pub trait TaskQueue: Send + 'static {
    /// Idempotent by key and attempt: the same or an older attempt is ignored, a newer one replaces.
    async fn enqueue(&mut self, tasks: Vec<NewTask>, now: Millis) -> Result<Vec<Enqueued>, Error>;
    /// [`TaskQueue::enqueue`], then [`TaskQueue::take`] from one queue, in one go.
    async fn enqueue_and_take(
        &mut self,
        tasks: Vec<NewTask>,
        queue: &QueueKey,
        max: usize,
        now: Millis,
    ) -> Result<(Vec<Enqueued>, Taken), Error> {
        let enqueued = self.enqueue(tasks, now).await?;
        Ok((enqueued, self.take(queue, max, now).await?))
    }
    /// A fence for a task that goes to a worker ahead of its place here ([`NewTask::held`]): greater than all that this scheduler knows of.
    fn fence(&mut self, now: Millis) -> u64;
    /// Removes tasks; `None` for those it does not have.
    async fn cancel(&mut self, keys: &[TaskKey]) -> Result<Vec<Option<Cancelled>>, Error>;
    /// Leases out the first `max` ready tasks of a queue, each under a new fence, greater than every fence before.
    async fn take(&mut self, queue: &QueueKey, max: usize, now: Millis) -> Result<Taken, Error>;
    /// The ready part of queues.
    async fn status(&mut self, queues: &[QueueKey]) -> Result<Vec<QueueStatus>, Error>;
    /// Renews leases. False: it is not leased under this fence.
    async fn extend(&mut self, handles: &[Handle], now: Millis) -> Result<Vec<bool>, Error>;
    /// Takes up a delivery that a worker still has: leases it again where it was requeued and not delivered since.
    async fn claim(&mut self, handles: &[Handle], now: Millis) -> Result<Vec<Claim>, Error>;
    /// Takes up a delivery of an attempt from before the queue was lost: the task is here anew, and nobody was given it under a greater
    /// fence since. `false`: it was overtaken, or the backend does not lose deliveries.
    async fn resume(&mut self, _handle: &Handle, _attempt: u32, _now: Millis) -> Result<bool, Error> {
        Ok(false)
    }
    /// Gives deliveries back; `avoid` names the worker that lost it.
    async fn release(&mut self, handles: &[(Handle, Option<Arc<str>>)], now: Millis) -> Result<Vec<Released>, Error>;
    /// The delivery has a final result: it holds its place against another enqueue of the attempt until it is removed.
    /// False: not the task's last delivery, or settled before.
    async fn settle(&mut self, handles: &[Handle]) -> Result<Vec<bool>, Error>;
    /// Forgets tasks whose last fence is this one, in whatever state.
    async fn remove(&mut self, handles: &[Handle]) -> Result<(), Error>;
    /// Forgets attempts whose ends are in the journal. Who dispatched one again did not know that, and may be heard after this: where the
    /// backend can, it ignores such a dispatch for a while.
    async fn finish(&mut self, ended: &[(Handle, u32)]) -> Result<(), Error> {
        let handles: Vec<Handle> = ended.iter().map(|(handle, _)| handle.clone()).collect();
        self.remove(&handles).await
    }
    /// Ends when everything that the queue was told is written, as far as it can be.
    async fn flush(&mut self) {}
    /// Adds acknowledged records to tasks, whoever recorded them; a record of an index that is there is ignored.
    async fn record(&mut self, records: Vec<(TaskKey, Record)>) -> Result<(), Error>;
    /// Everything due by now.
    async fn tick(&mut self, now: Millis) -> Result<Due, Error>;
    /// When the next thing becomes due; it may be earlier than that, never later.
    fn next_due(&self) -> Option<Millis>;
    /// All queues of a namespace that hold tasks, by name.
    async fn list(&mut self, namespace: &str) -> Result<Vec<QueueStats>, Error>;
    async fn view(&mut self, keys: &[TaskKey]) -> Result<Vec<Option<TaskView>>, Error>;
    /// What it says unasked; asked for once. `None`: nothing ever.
    fn events(&mut self) -> Option<mpsc::Receiver<QueueEvent>> {
        None
    }
    /// After a loss: deliveries, with their attempts, that workers here still have or whose results are on their way. Nobody else gets
    /// them when they are dispatched again.
    async fn restore(&mut self, _held: &[(Handle, u32)], _now: Millis) -> Result<(), Error> {
        Ok(())
    }
    /// Has whoever runs these deliveries stop them, as far as he can be reached.
    async fn stop_elsewhere(&mut self, _stops: &[(Handle, String)]) -> Result<(), Error> {
        Ok(())
    }
    /// Tasks in all.
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
