//! Tasks and cancellations of executors.

use super::{Core, Origin, Refused, assign::MOST_AT_ONCE};
use crate::{
    metrics::{self, Ending},
    queue::{Handle, Limit, NewTask, QueueKey, QueueTarget, TaskKey},
};
use std::sync::Arc;
use troupe_domain::{Code, Error};
use troupe_proto::common::v1::Failure;

/// When an executor may dispatch a task again for which there was no room.
pub(super) const FULL_RETRY_MS: u64 = 5_000;

pub(super) const ELSEWHERE: &str = "another delivery of the attempt is under way";
pub(super) const NEWER: &str = "a newer attempt has begun";

impl Core {
    pub(super) async fn dispatch(
        &mut self,
        tasks: Vec<NewTask>,
        refused: Vec<Refused>,
        cancels: Vec<(TaskKey, String)>,
    ) -> Result<(), Error> {
        if self.draining {
            return Err(Error::unavailable("the scheduler shuts down").with_help("dispatch to another one, or to this one when it is back"));
        }
        for refused in refused {
            let failure = failure_of(&refused.error, false);
            self.fail_unseen(refused.key, refused.attempt, failure);
        }
        if !tasks.is_empty() {
            self.enqueue(tasks).await?;
        }
        if !cancels.is_empty() {
            self.cancel(cancels).await?;
        }
        Ok(())
    }

    async fn enqueue(&mut self, mut tasks: Vec<NewTask>) -> Result<(), Error> {
        // What has ended is not there to be done, even if the queue was lost since or never heard of it.
        tasks.retain(|task| {
            let attempt = task.task.attempt;
            !self.reports.is_ending(&task.key, attempt) && !self.ahead.has_ended(&task.key, attempt)
        });
        tasks.sort_by_key(|task| task.task.priority);
        let mut rest = Vec::with_capacity(tasks.len());
        for task in tasks {
            rest.extend(self.give_first(task).await);
        }
        if rest.is_empty() { Ok(()) } else { self.put(rest).await }
    }

    /// A queue of these tasks that workers have room for, and for how many tasks: what is taken at once costs no way of its own.
    pub(super) fn waited_for(&mut self, tasks: &[NewTask]) -> Option<(QueueKey, usize)> {
        if !self.may_assign() {
            return None;
        }
        let ready = |task: &&NewTask| task.held.is_none() && task.not_before.is_none_or(|at| at <= self.now);
        let queue = tasks.iter().find(ready).map(|task| task.queue.clone())?;
        // An agent with a capability may be another one for each task, and a worker whose other queues wait serves them in turn.
        let in_turn =
            matches!(queue.target(), QueueTarget::Capability(_)) || self.heads.len() > usize::from(self.heads.contains_key(&queue));
        let room = self.roster.room(&queue, self.now).min(MOST_AT_ONCE);
        (room > 0 && !in_turn).then_some((queue, room))
    }

    async fn cancel(&mut self, cancels: Vec<(TaskKey, String)>) -> Result<(), Error> {
        let (keys, reasons): (Vec<TaskKey>, Vec<String>) = cancels.into_iter().unzip();
        let cancelled = self.queue.cancel(&keys).await?;
        for ((key, reason), cancelled) in keys.into_iter().zip(reasons).zip(cancelled) {
            self.ahead.cancel(&key);
            let leased = cancelled.as_ref().and_then(|cancelled| cancelled.fence);
            if let Some(cancelled) = &cancelled {
                self.mark(&cancelled.queue, false);
            }
            // Also what the queue knows nothing of, but a worker runs.
            if let Some(fence) = self.running.get(&key).map(|running| running.fence).or(leased) {
                self.stop_anywhere(&Handle { key, fence }, &reason, self.config.stop_grace_ms(), Ending::Cancelled).await;
            }
        }
        Ok(())
    }

    /// Reports the failure of a task that never ran.
    pub(super) fn fail_unseen(&mut self, key: TaskKey, attempt: u32, failure: Failure) {
        metrics::error("task_refused");
        let fence = self.fences.next(self.now, 0);
        self.verdict(Handle { key, fence }, attempt, Arc::new(Origin::default()), failure);
    }
}

fn failure_of(error: &Error, retryable: bool) -> Failure {
    Failure { code: error.code.name().to_owned(), message: error.message.clone(), retryable, retry_after_ms: 0 }
}

pub(super) fn full(limit: Limit) -> Failure {
    let message = match limit {
        Limit::All => "the scheduler holds as many tasks as it may (max_tasks)",
        Limit::Namespace => "the namespace has as many tasks queued as it may (max_namespace_tasks)",
    };
    Failure { retry_after_ms: FULL_RETRY_MS, ..failure_of(&Error::new(Code::ResourceExhausted, message), true) }
}
