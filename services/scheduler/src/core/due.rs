//! What time brings: leases, timeouts, deadlines, tokens of rates.

use super::{Core, Origin, Timer};
use crate::{
    metrics::Ending,
    queue::{Ended, Handle, QueueKey, Released},
};
use std::sync::Arc;
use troupe_domain::format_span;
use troupe_proto::common::v1::Failure;

/// A delivery whose worker is lost.
pub(super) struct Lost {
    pub(super) handle: Handle,
    pub(super) attempt: u32,
    /// Empty where another scheduler knew it.
    pub(super) origin: Arc<Origin>,
    pub(super) queue: Option<QueueKey>,
}

impl Core {
    pub(super) async fn due(&mut self) {
        self.fire_timers().await;
        if !std::mem::take(&mut self.look) && self.queue.next_due().is_none_or(|at| at > self.now) {
            return;
        }
        let answer = self.queue.tick(self.now).await;
        let Some(due) = self.ask(answer) else { return };
        for queue in &due.ready {
            self.mark(queue, false);
        }
        self.expire(due.expired).await;
        for ended in due.timed_out {
            let failure = failure("TIMEOUT", "the attempt took longer than its timeout", true);
            self.end(ended, failure, Ending::Timeout).await;
        }
        for ended in due.overdue {
            let failure = failure("DEADLINE_EXCEEDED", "the task was not done by its deadline", false);
            self.end(ended, failure, Ending::Deadline).await;
        }
    }

    async fn fire_timers(&mut self) {
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= self.now
        {
            match entry.remove() {
                Timer::Token(key) => {
                    self.waking.remove(&key);
                    self.mark_agent(&key);
                }
                Timer::Stop(conn, key, fence) => {
                    self.stopped(conn, &key, fence);
                }
                Timer::Restore => self.restore().await,
                Timer::Settle => self.settle_unanswered().await,
                Timer::Note => self.note().await,
                Timer::Redispatch => self.lost.send_modify(|losses| *losses += 1),
            }
        }
    }

    /// Leases without a sign of life: the tasks go to other workers, the old ones are told.
    async fn expire(&mut self, leases: Vec<Ended>) {
        for Ended { handle, attempt, queue } in leases {
            // It has ended, and its result is on its way.
            if self.reports.has_result(&handle) {
                self.batch.ended.push(handle);
                continue;
            }
            let running = self.running.get(&handle.key).filter(|running| running.fence == handle.fence);
            let origin = running.map(|running| Arc::clone(&running.origin)).unwrap_or_default();
            self.give_back(vec![Lost { handle: handle.clone(), attempt, origin, queue: Some(queue) }]).await;
            self.stop_anywhere(&handle, "the lease ended without a sign of progress", self.config.lease_ms(), Ending::Lost).await;
        }
    }

    /// Returns deliveries to the queue; those that were lost too often are reported.
    pub(super) async fn give_back(&mut self, lost: Vec<Lost>) {
        let avoid = |origin: &Origin| (!origin.worker.is_empty()).then(|| Arc::from(origin.worker.as_str()));
        let handles: Vec<_> = lost.iter().map(|lost| (lost.handle.clone(), avoid(&lost.origin))).collect();
        let answer = self.queue.release(&handles, self.now).await;
        let Some(outcomes) = self.ask(answer) else { return };
        for (lost, outcome) in lost.into_iter().zip(outcomes) {
            match outcome {
                Released::Requeued => {
                    if let Some(queue) = &lost.queue {
                        self.mark(queue, true);
                    }
                }
                Released::Exhausted => {
                    let message = format!("{} workers were lost while they ran it", self.config.max_deliveries);
                    let failure = failure("WORKER_LOST", &message, true);
                    self.verdict(lost.handle, lost.attempt, lost.origin, failure);
                }
                Released::Stale => {}
            }
        }
    }

    async fn end(&mut self, ended: Ended, failure: Failure, ending: Ending) {
        self.mark(&ended.queue, false);
        if self.reports.has_result(&ended.handle) {
            return;
        }
        let stopped = self.stop_anywhere(&ended.handle, &failure.message, self.config.stop_grace_ms(), ending).await;
        let origin = stopped.map(|(origin, _)| origin).unwrap_or_default();
        self.verdict(ended.handle, ended.attempt, origin, failure);
    }

    /// A number of milliseconds for people.
    pub(super) fn span(ms: u64) -> String {
        format_span(std::time::Duration::from_millis(ms))
    }
}

fn failure(code: &str, message: &str, retryable: bool) -> Failure {
    Failure { code: code.to_owned(), message: message.to_owned(), retryable, retry_after_ms: 0 }
}
