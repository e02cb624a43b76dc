//! Records and results on their way to the executor, and what its answers mean.

use super::{Core, Origin, Timer, hello::OVERTAKEN};
use crate::{
    metrics::{self, Ending},
    queue::{Handle, TaskKey},
    roster::{ConnId, Server},
};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::mpsc;
use troupe_proto::{
    common::v1::{Failure, Record},
    executor::v1::{Applied, ReportAck, ReportItem, TaskFailed, TaskReport, task_report::Outcome},
    scheduler::v1::{Ack, Cancel, server_message::Kind},
};

/// Reports without an answer.
pub(super) struct Reports {
    last: u64,
    pending: HashMap<u64, Pending>,
    /// The report of each task's result: its fence and the report's id.
    results: HashMap<TaskKey, (u64, u64)>,
    out: mpsc::UnboundedSender<ReportItem>,
}

struct Pending {
    handle: Handle,
    attempt: u32,
    origin: Arc<Origin>,
    /// Who waits for the answer.
    conn: Option<ConnId>,
    what: What,
}

#[derive(PartialEq)]
enum What {
    Record(Record),
    /// The worker's own.
    Result,
    /// The scheduler's verdict: a loss, a timeout, a refusal.
    Verdict,
}

/// Something to report.
pub(super) struct Report {
    pub(super) handle: Handle,
    pub(super) attempt: u32,
    pub(super) origin: Arc<Origin>,
    pub(super) conn: Option<ConnId>,
    pub(super) outcome: Outcome,
    /// The scheduler's own verdict, not a worker's word.
    pub(super) verdict: bool,
}

impl Reports {
    pub(super) fn new(out: mpsc::UnboundedSender<ReportItem>) -> Self {
        Self { last: 0, pending: HashMap::new(), results: HashMap::new(), out }
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Sends it on its way, once: an answer will come, however long it takes.
    pub(super) fn push(&mut self, report: Report, now: crate::clock::Millis) {
        self.last += 1;
        let id = self.last;
        let key = &report.handle.key;
        let what = match &report.outcome {
            Outcome::Recorded(r) => What::Record(Record {
                index: r.index,
                name: r.name.clone(),
                value: r.value.clone(),
                recorded_at: Some(crate::clock::stamp(now)),
            }),
            _ if report.verdict => What::Verdict,
            _ => What::Result,
        };
        if !matches!(what, What::Record(_)) {
            self.results.insert(key.clone(), (report.handle.fence, id));
        }
        let wire = TaskReport {
            namespace: key.namespace().to_owned(),
            run_id: key.run_id().to_owned(),
            step: key.step().to_owned(),
            attempt: report.attempt,
            fence: report.handle.fence,
            agent: report.origin.agent.clone(),
            worker: report.origin.worker.clone(),
            choice: report.origin.choice.clone(),
            outcome: Some(report.outcome),
        };
        let pending = Pending { handle: report.handle, attempt: report.attempt, origin: report.origin, conn: report.conn, what };
        self.pending.insert(id, pending);
        // The stream's task ends only with the process.
        let _ = self.out.send(ReportItem { id, report: Some(wire) });
    }

    /// A worker sends a result again. True: its report is on its way, and the worker will get the answer; false: there is another verdict.
    /// `None`: no report is on its way; it may have been another scheduler's.
    pub(super) fn attach(&mut self, handle: &Handle, conn: ConnId) -> Option<bool> {
        let id = self.results.get(&handle.key).filter(|(fence, _)| *fence == handle.fence).map(|(_, id)| *id);
        let pending = id.and_then(|id| self.pending.get_mut(&id))?;
        let own = pending.what == What::Result;
        if own {
            pending.conn = Some(conn);
        }
        Some(own)
    }

    /// Whether the delivery's end is being reported.
    pub(super) fn has_result(&self, handle: &Handle) -> bool {
        self.results.get(&handle.key).is_some_and(|(fence, _)| *fence == handle.fence)
    }

    /// Whether the attempt's end is being reported.
    pub(super) fn is_ending(&self, key: &TaskKey, attempt: u32) -> bool {
        self.fence_of(key, attempt).is_some()
    }

    /// The delivery under which the attempt ended, while its end is being reported.
    pub(super) fn fence_of(&self, key: &TaskKey, attempt: u32) -> Option<u64> {
        let (fence, id) = self.results.get(key)?;
        self.pending.get(id).filter(|pending| pending.attempt == attempt).map(|_| *fence)
    }

    /// Deliveries whose end is being reported, with their attempts.
    pub(super) fn results(&self) -> impl Iterator<Item = (Handle, u32)> {
        let pending = self.results.values().filter_map(|(_, id)| self.pending.get(id));
        pending.map(|pending| (pending.handle.clone(), pending.attempt))
    }

    fn answered(&mut self, id: u64) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        if self.results.get(&pending.handle.key).is_some_and(|result| result.1 == id) {
            self.results.remove(&pending.handle.key);
        }
        Some(pending)
    }
}

impl Core {
    pub(super) async fn acknowledged(&mut self, acks: Vec<ReportAck>) {
        for ack in acks {
            let Some(pending) = self.reports.answered(ack.id) else { continue };
            match ack.applied() {
                Applied::Refused => self.refused(pending, &ack.message).await,
                Applied::Stale => {
                    if pending.what != What::Verdict {
                        self.meters.overtaken();
                    }
                    self.answer(&pending, false, &ack.message);
                    if matches!(pending.what, What::Record(_)) {
                        self.stop_quietly(&pending.handle);
                    }
                    if !self.ahead.forget(&pending.handle.key, pending.attempt) {
                        self.batch.reported.push(pending.handle);
                    }
                }
                // The stream repeats those that are not durable itself, and passes on only what is final.
                Applied::Yes | Applied::Duplicate | Applied::Retry | Applied::Unspecified => {
                    self.answer(&pending, pending.what != What::Verdict, "");
                    match pending.what {
                        What::Record(record) => self.batch.records.push((pending.handle.key, record)),
                        What::Result | What::Verdict => self.finished(pending.handle, pending.attempt),
                    }
                }
            }
        }
    }

    /// It can never be applied: the attempt fails, and the worker stops.
    async fn refused(&mut self, pending: Pending, message: &str) {
        self.answer(&pending, false, message);
        if pending.what == What::Verdict {
            metrics::error("report_refused");
            tracing::error!(task.id = pending.handle.key.task_id(), message, "the executor refused a failure");
            let answer = self.queue.remove(&[pending.handle]).await;
            self.ask(answer);
            return;
        }
        self.stop_quietly(&pending.handle);
        let answer = self.queue.settle(std::slice::from_ref(&pending.handle)).await;
        self.ask(answer);
        let failure = Failure { code: "INVALID_ARGUMENT".into(), message: message.to_owned(), retryable: false, retry_after_ms: 0 };
        self.verdict(pending.handle, pending.attempt, pending.origin, failure);
    }

    /// Reports a failure that the scheduler itself states.
    pub(super) fn verdict(&mut self, handle: Handle, attempt: u32, origin: Arc<Origin>, failure: Failure) {
        let outcome = Outcome::Failed(TaskFailed { failure: Some(failure) });
        self.reports.push(Report { handle, attempt, origin, conn: None, outcome, verdict: true }, self.now);
    }

    fn answer(&mut self, pending: &Pending, applied: bool, message: &str) {
        let Some(conn) = pending.conn else { return };
        let record_index = match &pending.what {
            What::Record(record) => Some(record.index),
            What::Result | What::Verdict => None,
        };
        self.send_ack(conn, &pending.handle, record_index, applied, message);
    }

    /// Refuses what a worker says of a delivery that counts no more.
    pub(super) fn refuse_overtaken(&mut self, conn: ConnId, handle: &Handle, record_index: Option<u32>) {
        self.meters.overtaken();
        self.send_ack(conn, handle, record_index, false, OVERTAKEN);
    }

    pub(super) fn send_ack(&mut self, conn: ConnId, handle: &Handle, record_index: Option<u32>, applied: bool, message: &str) {
        let ack = Ack {
            namespace: handle.key.namespace().to_owned(),
            task_id: handle.key.task_id().to_owned(),
            fence: handle.fence,
            record_index,
            applied,
            message: message.to_owned(),
        };
        self.send(conn, Kind::Ack(ack));
    }

    /// A worker whose outbox is full is let go of; what it runs goes to others.
    pub(super) fn send(&mut self, conn: ConnId, kind: Kind) {
        if self.roster.workers.get(&conn).is_some_and(|worker| !worker.send(kind)) {
            let error = troupe_domain::Error::new(troupe_domain::Code::ResourceExhausted, "the worker does not read what it is sent");
            self.doomed.push((conn, troupe_wire::to_status(&error)));
        }
    }

    /// Ends a delivery whose worker was told by an ack: it stops and says nothing more.
    fn stop_quietly(&mut self, handle: &Handle) {
        if self.running.get(&handle.key).is_some_and(|running| running.fence == handle.fence)
            && let Some(running) = self.running.remove(&handle.key)
        {
            self.ahead.forget(&handle.key, running.attempt);
            if let Some(worker) = self.roster.workers.get_mut(&running.conn) {
                worker.running.remove(&handle.key);
            }
            self.free_slot(running.conn, &running.server);
        }
    }

    /// Takes a delivery away from its worker. The slot stays taken until the worker says that it stopped, or for `grace`.
    pub(super) fn stop(&mut self, handle: &Handle, reason: &str, grace: u64, ending: Ending) -> Option<(Arc<Origin>, u32)> {
        self.running.get(&handle.key).filter(|running| running.fence == handle.fence)?;
        let running = self.running.remove(&handle.key)?;
        self.ahead.forget(&handle.key, running.attempt);
        self.meters.ended(running.server.name(), ending, None);
        if let Some(worker) = self.roster.workers.get_mut(&running.conn) {
            worker.running.remove(&handle.key);
            let before = worker.stopping.insert(handle.key.clone(), (handle.fence, running.server.clone()));
            self.set_timer(self.now + grace, Timer::Stop(running.conn, handle.key.clone(), handle.fence));
            if let Some((_, server)) = before {
                self.free_slot(running.conn, &server);
            }
        }
        let cancel = Cancel {
            namespace: handle.key.namespace().to_owned(),
            task_id: handle.key.task_id().to_owned(),
            fence: handle.fence,
            reason: reason.to_owned(),
        };
        self.send(running.conn, Kind::Cancel(cancel));
        Some((running.origin, running.attempt))
    }

    /// Frees the slot of a task that had been taken away. False: there is none under this fence.
    pub(super) fn stopped(&mut self, conn: ConnId, key: &TaskKey, fence: u64) -> bool {
        let Some(worker) = self.roster.workers.get_mut(&conn) else { return false };
        if worker.stopping.get(key).is_none_or(|(stopping, _)| *stopping != fence) {
            return false;
        }
        if let Some((_, server)) = worker.stopping.remove(key) {
            self.free_slot(conn, &server);
        }
        true
    }

    /// A slot of a worker (no task of `running` or `stopping` any more) is free again.
    pub(super) fn free_slot(&mut self, conn: ConnId, server: &Server) {
        if let Some(worker) = self.roster.workers.get_mut(&conn) {
            worker.vacate(server);
            self.hungry.insert(conn);
        }
        let Server::Agent(key) = server else { return };
        let Some(agent) = self.roster.agents.get(key) else { return };
        let limit = agent.definition.as_ref().map_or(0, |definition| definition.concurrency);
        if limit > 0 && agent.active >= limit {
            self.mark_agent(key);
        } else if let Some(worker) = self.roster.workers.get_mut(&conn) {
            // Only this worker had no room for the agent.
            agent.queues().iter().filter(|queue| self.heads.contains_key(queue)).for_each(|queue| worker.ring.list(queue));
        }
        self.roster.finish(server);
    }
}
