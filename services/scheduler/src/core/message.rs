//! What the core is told and asked.

use crate::{
    queue::{NewTask, QueueStats, TaskKey},
    roster::{AgentKey, ConnId, Definition, worker::Outbox},
};
use tokio::sync::oneshot;
use tokio_util::sync::DropGuard;
use troupe_domain::Error;
use troupe_proto::{
    executor::v1::ReportAck,
    registry::v1::ReportedInstance,
    scheduler::v1::{Hello, Queue, TaskState, worker_message},
};

/// A message to the core.
pub enum Message {
    /// Tasks that were checked, tasks that failed the check, and cancellations with their reasons. Answered when the queue has them.
    Dispatch {
        tasks: Vec<NewTask>,
        refused: Vec<Refused>,
        cancels: Vec<(TaskKey, String)>,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// A worker's stream, with its checked Hello.
    Connect(Box<Newcomer>),
    /// Checked messages of a worker, in order.
    Worker {
        conn: ConnId,
        messages: Vec<worker_message::Kind>,
    },
    /// A worker's stream has ended.
    Gone {
        conn: ConnId,
    },
    /// What the registry says; `None`: deleted.
    Agents(Vec<(AgentKey, Option<Definition>)>),
    /// Answers of the executor.
    Acks(Vec<ReportAck>),
    List {
        namespace: String,
        reply: oneshot::Sender<Result<Vec<Queue>, Error>>,
    },
    Explain {
        keys: Vec<TaskKey>,
        reply: oneshot::Sender<Result<Vec<TaskState>, Error>>,
    },
    Instances {
        reply: oneshot::Sender<Vec<ReportedInstance>>,
    },
    /// Answered when nothing runs and everything is reported.
    Drain {
        reply: oneshot::Sender<()>,
    },
}

/// A task that can never run: its failure is reported.
#[derive(Debug)]
pub struct Refused {
    pub key: TaskKey,
    pub attempt: u32,
    pub error: Error,
}

/// A worker that opens a stream.
pub struct Newcomer {
    pub conn: ConnId,
    pub hello: Hello,
    pub outbox: Outbox,
    /// Dropped when the stream shall end.
    pub guard: DropGuard,
}

/// A queue's numbers with its name and workers.
pub(super) fn queue_of(stats: QueueStats, workers: usize) -> Queue {
    Queue {
        name: stats.queue.name().to_owned(),
        ready: stats.ready as u64,
        delayed: stats.delayed as u64,
        active: stats.active as u64,
        oldest: stats.oldest.map(crate::clock::stamp),
        workers: u32::try_from(workers).unwrap_or(u32::MAX),
    }
}
