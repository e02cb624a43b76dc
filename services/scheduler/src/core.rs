//! The scheduling core: one task owns workers, agents' limits and the queue, and works through messages in turns. No locks, no polling:
//! it sleeps until a message comes or something is due.

mod ahead;
mod assign;
mod dispatch;
mod due;
mod hello;
mod look;
mod lost;
pub mod message;
mod report;
mod work;

pub use message::{Message, Newcomer, Refused};

use crate::{
    chunks::Chunks,
    clock::{Clock, Millis},
    config::Config,
    limit::Bucket,
    metrics::{self, Meters},
    queue::{Fences, Handle, QueueEvent, QueueKey, QueueStatus, TaskKey, TaskQueue},
    roster::{AgentKey, ConnId, Roster, Server},
};
use ahead::Ahead;
use lost::next_event;
use report::Reports;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::Future,
    sync::Arc,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tonic::Status;
use troupe_domain::{Code, Error};
use troupe_proto::executor::v1::ReportItem;
use work::Batch;

/// Messages worked through in one turn.
const TURN: usize = 256;

/// What the core is made of.
pub struct Parts {
    pub config: Arc<Config>,
    pub clock: Clock,
    pub queue: Box<dyn TaskQueue>,
    pub chunks: Chunks,
    /// To the stream of reports.
    pub reports: mpsc::UnboundedSender<ReportItem>,
    /// Told when workers or what they serve have changed.
    pub changed: Arc<Notify>,
    pub scheduler_id: String,
    /// Grows when the queue has lost tasks: executors' streams end then.
    pub lost: watch::Sender<u64>,
}

/// See the module.
pub struct Core {
    config: Arc<Config>,
    clock: Clock,
    now: Millis,
    queue: Box<dyn TaskQueue>,
    roster: Roster,
    /// Deliveries on workers connected here.
    running: HashMap<TaskKey, Running>,
    /// Of those, the ones that the queue has not heard of.
    ahead: Ahead,
    /// Queues with ready tasks.
    heads: HashMap<QueueKey, QueueStatus>,
    /// Queues whose ready part has to be looked at; true: offer them to their workers again, whatever was known of them.
    dirty: HashMap<QueueKey, bool>,
    /// Workers that may have room for a ready task.
    hungry: HashSet<ConnId>,
    /// Workers to be let go of at the end of the turn, and why.
    doomed: Vec<(ConnId, Status)>,
    /// For the queue, at the end of the turn.
    batch: Batch,
    reports: Reports,
    /// Deliveries whose results came lately: the queue has not been told.
    unsettled: Vec<Handle>,
    chunks: Chunks,
    /// What the queue says unasked.
    events: Option<mpsc::Receiver<QueueEvent>>,
    /// The queue wants to be looked through, whatever is due.
    look: bool,
    /// Grows when executors have to dispatch theirs again.
    lost: watch::Sender<u64>,
    timers: BTreeMap<(Millis, u64), Timer>,
    /// Agents whose next token has a timer.
    waking: HashSet<AgentKey>,
    timer_seq: u64,
    /// For failures of tasks that were never delivered.
    fences: Fences,
    meters: Meters,
    draining: bool,
    drained: Vec<oneshot::Sender<()>>,
    changed: Arc<Notify>,
    scheduler_id: String,
}

/// A delivery on a worker.
struct Running {
    conn: ConnId,
    fence: u64,
    attempt: u32,
    server: Server,
    /// `None`: the queue does not know the task (it was lost since).
    queue: Option<QueueKey>,
    origin: Arc<Origin>,
    started: Millis,
    chunks: Bucket,
}

/// Who ran a task and why he, as reports tell it.
#[derive(Debug, Default)]
struct Origin {
    agent: String,
    worker: String,
    choice: String,
}

enum Timer {
    /// The agent's rate lets the next task start.
    Token(AgentKey),
    /// A task taken from a worker has had its slot long enough.
    Stop(ConnId, TaskKey, u64),
    /// The queue was lost: it is to be told what runs here.
    Restore,
    /// Every scheduler has had time to do so: executors may dispatch again.
    Redispatch,
    /// Results that are still not answered are to hold their tasks' places.
    Settle,
    /// The queue is to hear of tasks that it has not heard of.
    Note,
}

impl Core {
    pub fn new(mut parts: Parts) -> Self {
        Self {
            events: parts.queue.events(),
            look: false,
            lost: parts.lost,
            now: parts.clock.now(),
            batch: Batch::default(),
            reports: Reports::new(parts.reports),
            unsettled: Vec::new(),
            config: parts.config,
            clock: parts.clock,
            queue: parts.queue,
            roster: Roster::default(),
            running: HashMap::new(),
            ahead: Ahead::default(),
            heads: HashMap::new(),
            dirty: HashMap::new(),
            hungry: HashSet::new(),
            doomed: Vec::new(),
            chunks: parts.chunks,
            timers: BTreeMap::new(),
            waking: HashSet::new(),
            timer_seq: 0,
            fences: Fences::default(),
            meters: Meters::new(),
            draining: false,
            drained: Vec::new(),
            changed: parts.changed,
            scheduler_id: parts.scheduler_id,
        }
    }

    /// Works until `stop` ends or nobody can send messages any more.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Message>, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut batch = Vec::with_capacity(TURN);
        loop {
            let wake = self.wake_at().map(|at| self.clock.instant(at));
            tokio::select! {
                count = inbox.recv_many(&mut batch, TURN) => if count == 0 { return },
                () = async { tokio::time::sleep_until(wake.unwrap_or_else(tokio::time::Instant::now)).await }, if wake.is_some() => {}
                event = next_event(&mut self.events) => self.told(event),
                () = &mut stop => return,
            }
            self.now = self.clock.now();
            self.turn(&mut batch).await;
        }
    }

    async fn turn(&mut self, batch: &mut Vec<Message>) {
        self.due().await;
        // New tasks last: by then it is known who has room.
        let (dispatches, others): (Vec<Message>, Vec<Message>) =
            batch.drain(..).partition(|message| matches!(message, Message::Dispatch { .. }));
        for message in others.into_iter().chain(dispatches) {
            self.handle(message).await;
        }
        // Workers first: what the queue is told of is fenced, and may be told later.
        self.assign().await;
        self.tell_queue().await;
        while let Some((conn, status)) = self.doomed.pop() {
            self.let_go(conn, status).await;
        }
        self.meters.load(self.running.len(), self.roster.workers.len());
        if self.draining && self.running.is_empty() && self.reports.is_empty() && !self.drained.is_empty() {
            // What is left in the queue of tasks that have ended would be given to others.
            self.note_all().await;
            self.queue.flush().await;
            for reply in self.drained.drain(..) {
                // Who asked may have stopped waiting.
                let _ = reply.send(());
            }
        }
    }

    /// When something is due; what waits for anything else waits for a message.
    fn wake_at(&self) -> Option<Millis> {
        let timer = self.timers.first_key_value().map(|(at, _)| at.0);
        timer.into_iter().chain(self.queue.next_due()).min()
    }

    async fn handle(&mut self, message: Message) {
        match message {
            Message::Dispatch { tasks, refused, cancels, reply } => {
                let done = self.dispatch(tasks, refused, cancels).await;
                let _ = reply.send(done);
            }
            Message::Connect(newcomer) => self.connect(*newcomer).await,
            Message::Worker { conn, messages } => self.worker_says(conn, messages).await,
            Message::Gone { conn } => self.gone(conn).await,
            Message::Agents(changes) => self.agents_changed(changes),
            Message::Acks(acks) => {
                self.acknowledged(acks).await;
                self.tell_of_ends().await;
            }
            Message::List { namespace, reply } => {
                self.note_all().await;
                let _ = reply.send(self.list(&namespace).await);
            }
            Message::Explain { keys, reply } => {
                self.note_all().await;
                let _ = reply.send(self.explain(keys).await);
            }
            Message::Instances { reply } => {
                let _ = reply.send(self.instances());
            }
            Message::Drain { reply } => self.drain(reply),
        }
    }

    fn drain(&mut self, reply: oneshot::Sender<()>) {
        use troupe_proto::scheduler::v1::{Drain, server_message::Kind};
        self.draining = true;
        self.drained.push(reply);
        for worker in self.roster.workers.values() {
            // A worker that cannot be told sees the end of its stream.
            worker.send(Kind::Drain(Drain { reason: "the scheduler shuts down".into() }));
        }
    }

    /// An answer of the queue; what failed is logged, and healed by leases and by executors dispatching again.
    fn ask<T>(&self, answer: Result<T, Error>) -> Option<T> {
        answer
            .inspect_err(|error| {
                metrics::error("queue");
                if error.code == Code::Unavailable {
                    tracing::debug!(%error, "the task queue is away");
                } else {
                    tracing::error!(%error, "the task queue failed");
                }
            })
            .ok()
    }

    fn set_timer(&mut self, at: Millis, timer: Timer) {
        self.timer_seq += 1;
        self.timers.insert((at, self.timer_seq), timer);
    }

    /// The queue may have become ready.
    fn mark(&mut self, queue: &QueueKey, offer: bool) {
        match self.dirty.get_mut(queue) {
            Some(known) => *known |= offer,
            None => {
                self.dirty.insert(queue.clone(), offer);
            }
        }
    }

    /// Offers the queues of an agent to its workers again, after something has changed for it.
    fn mark_agent(&mut self, key: &AgentKey) {
        let Some(agent) = self.roster.agents.get(key) else { return };
        let ready: Vec<QueueKey> = agent.queues().iter().filter(|queue| self.heads.contains_key(queue)).cloned().collect();
        for queue in ready {
            self.mark(&queue, true);
        }
    }
}
