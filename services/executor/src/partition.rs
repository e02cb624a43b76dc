//! A partition: the one task that moves a share of the runs, from its mailbox through one commit to what follows from it.
//!
//! It takes all that waits in its mailbox, loads the runs that are not in memory in one call, applies every event, appends all entries
//! in one batch, and only then answers callers, issues effects and tells watchers. While a batch commits, the next one gathers in the
//! mailbox. Nothing of a run is ever shown or acted upon before it is durable.

mod batch;
mod cache;
mod listeners;
mod load;
mod reissue;
mod release;
mod timers;

use crate::{
    appender::{Appended, Appender},
    message::{Done, Message, Op, Reply, Start, refusal},
    metrics::STALE_APPENDS,
    recovery::Lost,
    routing::NOT_OWNER,
    run::{Birth, Key, Refused, Run, now},
    shared::Shared,
    view,
};
use batch::Batch;
use cache::Cache;
use listeners::Listeners;
use load::Missing;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use timers::Timers;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use troupe_domain::{Error, RunId};
use troupe_engine::{Event, EventKind};
use troupe_proto::checkpoint::v1 as pb;

/// Why a partition's task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Its mailbox was closed and everything in it is served.
    Drained,
    /// The process stops.
    Stopped,
    /// Another executor owns it.
    Stale,
}

pub(crate) struct Partition {
    id: u32,
    epoch: u64,
    shared: Arc<Shared>,
    mailbox: mpsc::Receiver<Message>,
    appender: Appender,
    runs: Cache,
    timers: Timers,
    listeners: Listeners,
    /// While open runs are scanned.
    recovering: Option<Recovering>,
    /// Runs that the messages of this turn were about. None of them leaves memory before its end: a message yet to come may need it.
    used: HashSet<RunId>,
}

/// A scan of open runs that is under way.
struct Recovering {
    lost: Lost,
    /// Runs that have issued what they have pending.
    touched: HashSet<RunId>,
}

impl Partition {
    pub(crate) fn new(lease: &pb::PartitionLease, shared: Arc<Shared>, mailbox: mpsc::Receiver<Message>, token: CancellationToken) -> Self {
        let partitions = usize::try_from(shared.config.partitions).unwrap_or(1).max(1);
        Self {
            id: lease.partition,
            epoch: lease.epoch,
            appender: Appender::new(shared.store.clone(), token),
            runs: Cache::new(lease.partition, shared.config.hot_runs / partitions, Arc::clone(&shared.in_memory)),
            timers: Timers::new(lease.partition),
            listeners: Listeners::new(shared.config.watch_buffer),
            recovering: Some(Recovering { lost: Lost::Everything, touched: HashSet::new() }),
            used: HashSet::new(),
            shared,
            mailbox,
        }
    }

    /// Serves until the mailbox is closed, the process stops or the partition is lost.
    pub(crate) async fn serve(mut self, token: CancellationToken) -> Exit {
        let most = self.shared.config.batch_messages;
        let mut messages = Vec::with_capacity(most.min(64));
        loop {
            let wake = self.timers.next_wake();
            tokio::select! {
                biased;
                () = token.cancelled() => return Exit::Stopped,
                taken = self.mailbox.recv_many(&mut messages, most) => if taken == 0 { return Exit::Drained },
                () = tokio::time::sleep_until(wake) => {}
            }
            self.timers.refill(&self.shared.store).await;
            self.listeners.sweep();
            messages.extend(self.timers.take_due(now(), most).into_iter().map(tick));
            if let Some(exit) = self.turn(&mut messages).await {
                return exit;
            }
        }
    }

    /// Serves a batch of messages.
    async fn turn(&mut self, messages: &mut Vec<Message>) -> Option<Exit> {
        let missing = self.load(messages).await;
        let mut batch = Batch::default();
        for message in messages.drain(..) {
            match message {
                Message::Run { key, op, traceparent } => self.serve_run(key, op, &traceparent, &missing, &mut batch),
                Message::Scan(scan) => {
                    // Only what is durable is issued, and runs that the scan passes over have issued theirs before it is over.
                    if let Some(exit) = self.commit(std::mem::take(&mut batch)).await {
                        return Some(exit);
                    }
                    self.scan(scan);
                }
            }
            if batch.weight() >= self.shared.config.batch_bytes
                && let Some(exit) = self.commit(std::mem::take(&mut batch)).await
            {
                return Some(exit);
            }
        }
        let exit = self.commit(batch).await;
        self.tidy();
        exit
    }

    fn serve_run(&mut self, key: Key, op: Op, traceparent: &str, missing: &HashMap<RunId, Missing>, batch: &mut Batch) {
        match op {
            Op::View { reply } => {
                // What another owner may have moved on is not shown: nobody answers, and the caller asks the journal.
                if !self.shared.router.owns(key.run) {
                    return;
                }
                let run = self.runs.get(key.run).filter(|run| run.key.namespace == key.namespace);
                // Memory may be ahead of the journal by this batch: the answer waits for the commit.
                batch.views.push((reply, run.map(|run| Box::new(view::full(run)))));
            }
            Op::Wait { reply } => self.listeners.wait(key.run, reply),
            Op::Watch { reply } => self.listeners.watch(key.run, reply),
            Op::Start { start, reply, .. } => self.start(key, &start, reply, traceparent, missing, batch),
            Op::Apply { event, reply } => self.apply(key, &event, reply, traceparent, missing, batch),
        }
    }

    fn start(&mut self, key: Key, start: &Start, reply: Reply, traceparent: &str, missing: &HashMap<RunId, Missing>, batch: &mut Batch) {
        if let Some(run) = self.runs.get(key.run) {
            if run.definition.name == start.definition.name {
                batch.replies.push((reply, key.run, Done::Existed));
            } else {
                let message = format!("this idempotency key has started a run of workflow '{}'", run.definition.name);
                batch.failures.push((reply, Error::conflict(message).with_help("use another key for another workflow")));
            }
            return;
        }
        if let Some(Missing::Failed(error)) = missing.get(&key.run) {
            batch.failures.push((reply, error.clone()));
            return;
        }
        let birth = Birth {
            partition: self.id,
            labels: start.labels.clone(),
            priority: start.priority,
            parent: start.parent().cloned(),
            traceparent: traceparent.to_owned(),
        };
        let forked = start.fork.is_some();
        let mut run = Run::new(key.clone(), Arc::clone(&start.definition), start.fork.clone().unwrap_or_default(), birth, now());
        match run.apply(&start.event, now(), traceparent, &self.shared.config.limits) {
            Ok(applied) => {
                batch.add(&run, applied, forked);
                batch.replies.push((reply, key.run, Done::Created));
                if let Some(recovering) = &mut self.recovering {
                    recovering.touched.insert(key.run);
                }
                self.runs.insert(run);
            }
            Err(Refused::Rejected(rejection)) => batch.failures.push((reply, refusal(rejection))),
            Err(Refused::Broken(error)) => batch.failures.push((reply, error)),
        }
    }

    fn apply(&mut self, key: Key, event: &Event, reply: Reply, traceparent: &str, missing: &HashMap<RunId, Missing>, batch: &mut Batch) {
        let timer = reply.is_timer();
        let Some(run) = self.runs.get_mut(key.run).filter(|run| run.key.namespace == key.namespace) else {
            let error = match missing.get(&key.run) {
                Some(Missing::Absent) => key.not_found(),
                Some(Missing::Failed(error)) => error.clone(),
                // Another namespace's.
                None if self.runs.contains(key.run) => key.not_found(),
                // It was there when the turn began, and an earlier message has made it leave.
                None => loading_again(),
            };
            if timer && error.code.is_transient() {
                self.timers.postpone(&key);
            }
            batch.failures.push((reply, error));
            return;
        };
        match run.apply(event, now(), traceparent, &self.shared.config.limits) {
            Ok(applied) => {
                batch.add(run, applied, false);
                batch.replies.push((reply, key.run, Done::Applied));
                if let Some(recovering) = &mut self.recovering
                    && recovering.touched.insert(key.run)
                {
                    batch.issue_pending.push(key.run);
                }
            }
            Err(Refused::Broken(error)) => {
                batch.failures.push((reply, error));
                batch.discard(key.run, &loading_again());
                self.runs.remove(key.run);
            }
            Err(Refused::Rejected(rejection)) => {
                if timer {
                    // The row said that something is due and the state says that nothing is: the state is right.
                    tracing::debug!(run.id = %key.run, %rejection, "a timer had nothing to do");
                    self.timers.set(&key, run.state.wake_at());
                }
                batch.replies.push((reply, key.run, Done::Rejected(rejection)));
            }
        }
    }

    /// Makes the batch durable and lets out what follows from it. `Some`: the partition ends here.
    async fn commit(&mut self, mut batch: Batch) -> Option<Exit> {
        if batch.is_empty() {
            return None;
        }
        let request = batch.request(self.id, self.epoch, &mut self.runs);
        if !request.writes.is_empty() {
            match self.appender.append(&request).await {
                Appended::Refused(error) => {
                    if let Some(exit) = self.append_each(request, &error, &mut batch).await {
                        return Some(exit);
                    }
                }
                other => {
                    if let Some(exit) = self.exit(&other) {
                        return Some(exit);
                    }
                }
            }
        }
        self.release(batch);
        None
    }

    /// Whether an append ended the partition's life here.
    fn exit(&self, appended: &Appended) -> Option<Exit> {
        match appended {
            Appended::Durable | Appended::Refused(_) => None,
            Appended::Stopped => Some(Exit::Stopped),
            Appended::Stale => {
                metrics::counter!(STALE_APPENDS).increment(1);
                tracing::warn!(partition = self.id, epoch = self.epoch, "another executor owns this partition");
                Some(Exit::Stale)
            }
        }
    }

    /// Writes the runs of a refused batch one by one: the fault of one of them is not the others'.
    async fn append_each(&mut self, request: pb::AppendBatchRequest, error: &Error, batch: &mut Batch) -> Option<Exit> {
        let pb::AppendBatchRequest { partition, epoch, writes } = request;
        let alone = writes.len() == 1;
        for write in writes {
            let run = write.summary.as_ref().and_then(|summary| summary.run_id.parse().ok());
            let appended = match alone {
                true => Appended::Refused(error.clone()),
                false => self.appender.append(&pb::AppendBatchRequest { partition, epoch, writes: vec![write] }).await,
            };
            if let (Appended::Refused(error), Some(run)) = (&appended, run) {
                self.forget(run, error, batch);
            }
            let exit = self.exit(&appended);
            if exit.is_some() {
                return exit;
            }
        }
        None
    }

    /// Drops a run whose entries were refused: it is loaded again when it is needed.
    fn forget(&mut self, id: RunId, error: &Error, batch: &mut Batch) {
        if let Some(run) = self.runs.remove(id) {
            self.timers.postpone(&run.key);
        }
        if let Some(recovering) = &mut self.recovering {
            recovering.touched.remove(&id);
        }
        batch.discard(id, error);
    }
}

/// Whoever asked for it asks again.
fn loading_again() -> Error {
    Error::unavailable("the run is being loaded again").with_reason(NOT_OWNER)
}

fn tick(key: Key) -> Message {
    let op = Op::Apply { event: Arc::new(Event::new(EventKind::Tick)), reply: Reply::timer() };
    Message::Run { key, op, traceparent: String::new() }
}
