//! What time brings: leases, timeouts, deadlines, tokens of rates.

use super::{Core, Origin, Timer};
use crate::{
    metrics::Ending,
    queue::{Ended, Handle, Released},
};
use std::sync::Arc;
use troupe_domain::format_span;
use troupe_proto::common::v1::Failure;

impl Core {
    pub(super) async fn due(&mut self) {
        self.fire_timers();
        if self.queue.next_due().is_none_or(|at| at > self.now) {
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
            self.end(ended, failure, Ending::Timeout);
        }
        for ended in due.overdue {
            let failure = failure("DEADLINE_EXCEEDED", "the task was not done by its deadline", false);
            self.end(ended, failure, Ending::Deadline);
        }
    }

    fn fire_timers(&mut self) {
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
            }
        }
    }

    /// Leases without a sign of life: the tasks go to other workers, the old ones are told.
    async fn expire(&mut self, handles: Vec<Handle>) {
        for handle in handles {
            let running = self.running.get(&handle.key).filter(|running| running.fence == handle.fence);
            let worker = running.map(|running| Arc::from(running.origin.worker.as_str()));
            self.give_back(vec![(handle.clone(), worker)]).await;
            self.stop(&handle, "the lease ended without a sign of progress", self.config.lease_ms(), Ending::Lost);
        }
    }

    /// Returns deliveries to the queue; those that were lost too often are reported.
    pub(super) async fn give_back(&mut self, handles: Vec<(Handle, Option<Arc<str>>)>) {
        let answer = self.queue.release(&handles, self.now).await;
        let Some(outcomes) = self.ask(answer) else { return };
        for ((handle, _), outcome) in handles.into_iter().zip(outcomes) {
            let running = self.running.get(&handle.key).filter(|running| running.fence == handle.fence);
            match (outcome, running) {
                (Released::Requeued, Some(running)) => {
                    if let Some(queue) = running.queue.clone() {
                        self.mark(&queue, true);
                    }
                }
                (Released::Exhausted, Some(running)) => {
                    let (attempt, origin) = (running.attempt, Arc::clone(&running.origin));
                    let message = format!("{} workers were lost while they ran it", self.config.max_deliveries);
                    let failure = failure("WORKER_LOST", &message, true);
                    self.verdict(handle, attempt, origin, failure);
                }
                _ => {}
            }
        }
    }

    fn end(&mut self, ended: Ended, failure: Failure, ending: Ending) {
        self.mark(&ended.queue, false);
        let stopped = self.stop(&ended.handle, &failure.message, self.config.stop_grace_ms(), ending);
        let origin = stopped.map_or_else(|| Arc::new(Origin::default()), |(origin, _)| origin);
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
