//! What workers say of their tasks.

use super::{
    Core, Origin, Running, Timer,
    due::Lost,
    hello::{OVERTAKEN, Place},
    report::Report,
};
use crate::{
    chunks::json_of,
    clock::{Millis, stamp},
    metrics::Ending,
    queue::{Claim, Handle, TaskKey},
    roster::ConnId,
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use troupe_domain::{Code, Error};
use troupe_proto::{
    common::v1::Record,
    executor::v1::{TaskCompleted, TaskFailed, TaskRecorded, task_report::Outcome},
    scheduler::v1::{Chunk, Event, Progress, RecordResult, worker_message::Kind},
};

/// A result that has no answer for so long holds its task's place in the queue, in milliseconds.
const SETTLE_AFTER: Millis = 100;

/// A task that ran for no longer, in milliseconds, is far from the end of its lease.
const SHORT: Millis = 500;

/// So many times `max_unreported` may wait before workers are cut off instead of only getting no new tasks.
const HARD_LIMIT: usize = 4;

/// What the queue is to be told, gathered over a turn so that it is told once.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) alive: Vec<Handle>,
    pub(super) ended: Vec<Handle>,
    pub(super) records: Vec<(TaskKey, Record)>,
    pub(super) reported: Vec<Handle>,
    /// Reported, and in the journal; with their attempts.
    pub(super) finished: Vec<(Handle, u32)>,
}

impl Core {
    pub(super) async fn worker_says(&mut self, conn: ConnId, messages: Vec<Kind>) {
        let Some(worker) = self.roster.workers.get_mut(&conn) else { return };
        if self.reports.len() >= HARD_LIMIT * self.config.max_unreported as usize {
            let error = Error::new(Code::ResourceExhausted, "too many results wait for the executor")
                .with_help("keep the results and send them again on another stream");
            self.doomed.push((conn, troupe_wire::to_status(&error)));
            return;
        }
        worker.last_progress_at = self.now;
        for message in messages {
            match message {
                Kind::Hello(hello) => self.hello_again(conn, hello).await,
                Kind::Draining(_) => self.drain_worker(conn),
                Kind::Progress(progress) => self.progress(progress),
                Kind::Chunk(chunk) => self.chunk(chunk),
                Kind::Record(record) => self.record(conn, record).await,
                Kind::Completed(done) => {
                    let handle = Handle { key: TaskKey::new(&done.namespace, &done.task_id), fence: done.fence };
                    let outcome = Outcome::Completed(TaskCompleted { output: done.output });
                    self.result(conn, handle, done.attempt, outcome).await;
                }
                Kind::Failed(failed) => {
                    let handle = Handle { key: TaskKey::new(&failed.namespace, &failed.task_id), fence: failed.fence };
                    if failed.failure.as_ref().is_some_and(|failure| failure.code == Code::Cancelled.name()) {
                        self.gave_up(conn, handle).await;
                        continue;
                    }
                    let outcome = Outcome::Failed(TaskFailed { failure: failed.failure });
                    self.result(conn, handle, failed.attempt, outcome).await;
                }
            }
        }
    }

    /// Tells the queue what the turn has brought.
    pub(super) async fn tell_queue(&mut self) {
        self.tell_of_ends().await;
        let Batch { mut alive, ended, mut records, .. } = std::mem::take(&mut self.batch);
        alive.retain(|handle| !self.ahead.has(&handle.key));
        records = records.into_iter().filter_map(|(key, record)| self.ahead.record(&key, record).map(|record| (key, record))).collect();
        if !alive.is_empty() {
            self.extend(alive).await;
        }
        if !ended.is_empty() {
            let answer = self.queue.settle(&ended).await;
            self.ask(answer);
        }
        if !records.is_empty() {
            let answer = self.queue.record(records).await;
            self.ask(answer);
        }
    }

    /// At once, for workers forget what they are told is in the journal: until the queue has heard of it, a task is held by its lease alone.
    pub(super) async fn tell_of_ends(&mut self) {
        let (reported, finished) = (std::mem::take(&mut self.batch.reported), std::mem::take(&mut self.batch.finished));
        if !reported.is_empty() {
            let answer = self.queue.remove(&reported).await;
            self.ask(answer);
        }
        if !finished.is_empty() {
            let answer = self.queue.finish(&finished).await;
            self.ask(answer);
        }
    }

    /// Renews leases. A delivery that another scheduler has given to somebody else in the meantime is stopped.
    async fn extend(&mut self, alive: Vec<Handle>) {
        let answer = self.queue.extend(&alive, self.now).await;
        let Some(leased) = self.ask(answer) else { return };
        let doubtful = alive.into_iter().zip(leased).filter(|(_, leased)| !leased).map(|(handle, _)| handle);
        let doubtful: Vec<Handle> = doubtful.filter(|handle| self.current(handle).is_some_and(|r| r.queue.is_some())).collect();
        if doubtful.is_empty() {
            return;
        }
        let answer = self.queue.claim(&doubtful, self.now).await;
        for (handle, claim) in doubtful.iter().zip(self.ask(answer).unwrap_or_default()) {
            if claim == Claim::Stale {
                self.stop(handle, OVERTAKEN, self.config.stop_grace_ms(), Ending::Lost);
            }
        }
    }

    fn current(&mut self, handle: &Handle) -> Option<&mut Running> {
        self.running.get_mut(&handle.key).filter(|running| running.fence == handle.fence)
    }

    fn progress(&mut self, progress: Progress) {
        let handle = Handle { key: TaskKey::new(&progress.namespace, &progress.task_id), fence: progress.fence };
        if self.current(&handle).is_none() {
            return;
        }
        let data = serde_json::json!({ "fraction": progress.fraction, "message": progress.message });
        self.publish(&handle.key, "progress".into(), data.to_string().into(), false);
        self.batch.alive.push(handle);
    }

    fn chunk(&mut self, chunk: Chunk) {
        let handle = Handle { key: TaskKey::new(&chunk.namespace, &chunk.task_id), fence: chunk.fence };
        let now = self.now;
        let Some(running) = self.current(&handle) else { return };
        if running.chunks.take(now) {
            let data = json_of(&chunk.kind, chunk.data);
            self.publish(&handle.key, chunk.kind, data, true);
        } else {
            self.meters.chunk_dropped();
        }
        self.batch.alive.push(handle);
    }

    fn publish(&self, key: &TaskKey, kind: String, data: Bytes, retain: bool) {
        let event = Event {
            topic: format!("run/{}/{}", key.namespace(), key.run_id()),
            kind,
            step: key.step().to_owned(),
            at: Some(stamp(self.now)),
            data,
            retain,
        };
        for _ in 0..self.chunks.push(event) {
            self.meters.chunk_dropped();
        }
    }

    async fn record(&mut self, conn: ConnId, record: RecordResult) {
        let handle = Handle { key: TaskKey::new(&record.namespace, &record.task_id), fence: record.fence };
        if self.is_stopping(conn, &handle) {
            return self.refuse_overtaken(conn, &handle, Some(record.index));
        }
        let place = self.locate(conn, &handle, record.attempt).await;
        if place == Place::Unknown {
            self.adopt(conn, &handle, record.attempt, None);
        }
        let (attempt, origin) = match place {
            Place::Settled | Place::Stale => return self.refuse_overtaken(conn, &handle, Some(record.index)),
            Place::Current | Place::Unknown => self.origin_of(conn, &handle, record.attempt),
        };
        self.batch.alive.push(handle.clone());
        let outcome = Outcome::Recorded(TaskRecorded { index: record.index, name: record.name, value: record.value });
        self.reports.push(Report { handle, attempt, origin, conn: Some(conn), outcome, verdict: false }, self.now);
    }

    fn is_stopping(&self, conn: ConnId, handle: &Handle) -> bool {
        let worker = self.roster.workers.get(&conn);
        worker.and_then(|worker| worker.stopping.get(&handle.key)).is_some_and(|(fence, _)| *fence == handle.fence)
    }

    async fn result(&mut self, conn: ConnId, handle: Handle, attempt: u32, outcome: Outcome) {
        // What a worker finished after its lease had ended counts as long as nobody else has been given the task.
        if self.stopped(conn, &handle.key, handle.fence) && !matches!(outcome, Outcome::Completed(_)) {
            return self.refuse_overtaken(conn, &handle, None);
        }
        match self.locate(conn, &handle, attempt).await {
            Place::Stale => return self.refuse_overtaken(conn, &handle, None),
            Place::Settled => match self.reports.attach(&handle, conn) {
                Some(true) => return,
                Some(false) => return self.refuse_overtaken(conn, &handle, None),
                // The scheduler that took it may have gone before it was written: the run says whether it was.
                None => {}
            },
            Place::Current | Place::Unknown => {}
        }
        let (attempt, origin) = self.origin_of(conn, &handle, attempt);
        // Its lease or its timeout may be about to end.
        let is_long = self.running.get(&handle.key).is_none_or(|running| self.now.saturating_sub(running.started) > SHORT);
        if let Some(running) = self.running.remove(&handle.key) {
            let ending = if matches!(outcome, Outcome::Completed(_)) { Ending::Completed } else { Ending::Failed };
            let took = Duration::from_millis(self.now.saturating_sub(running.started));
            self.meters.ended(running.server.name(), ending, Some(took));
            if let Some(worker) = self.roster.workers.get_mut(&running.conn) {
                worker.running.remove(&handle.key);
            }
            self.free_slot(running.conn, &running.server);
        }
        if is_long {
            self.batch.ended.push(handle.clone());
        } else {
            if self.unsettled.is_empty() {
                self.set_timer(self.now + SETTLE_AFTER, Timer::Settle);
            }
            self.unsettled.push(handle.clone());
        }
        self.reports.push(Report { handle, attempt, origin, conn: Some(conn), outcome, verdict: false }, self.now);
    }

    /// A worker has stopped a task before its end, because it was told to or had to. That is no outcome: where the delivery was its own
    /// still, somebody else gets it.
    async fn gave_up(&mut self, conn: ConnId, handle: Handle) {
        let own = |running: &&Running| running.fence == handle.fence && running.conn == conn;
        if self.running.get(&handle.key).filter(own).is_some() {
            self.note_these(vec![handle.key.clone()]).await;
        }
        if !self.stopped(conn, &handle.key, handle.fence)
            && self.running.get(&handle.key).filter(own).is_some()
            && let Some(Running { server, queue, origin, attempt, .. }) = self.running.remove(&handle.key)
        {
            if let Some(worker) = self.roster.workers.get_mut(&conn) {
                worker.running.remove(&handle.key);
            }
            self.meters.ended(server.name(), Ending::Lost, None);
            self.free_slot(conn, &server);
            self.give_back(vec![Lost { handle: handle.clone(), attempt, origin, queue }]).await;
        }
        self.send_ack(conn, &handle, None, false, OVERTAKEN);
    }

    /// Most results are answered, and their tasks removed, before their leases or anything else of them matters.
    pub(super) async fn settle_unanswered(&mut self) {
        let mut unanswered = std::mem::take(&mut self.unsettled);
        unanswered.retain(|handle| self.reports.has_result(handle));
        if !unanswered.is_empty() {
            let answer = self.queue.settle(&unanswered).await;
            self.ask(answer);
        }
    }

    /// The attempt and who runs it; what the worker says where nothing is known here.
    fn origin_of(&self, conn: ConnId, handle: &Handle, attempt: u32) -> (u32, Arc<Origin>) {
        if let Some(running) = self.running.get(&handle.key).filter(|running| running.fence == handle.fence) {
            return (running.attempt, Arc::clone(&running.origin));
        }
        let worker = self.roster.workers.get(&conn).map(|worker| worker.id.to_string()).unwrap_or_default();
        (attempt, Arc::new(Origin { worker, ..Origin::default() }))
    }
}
