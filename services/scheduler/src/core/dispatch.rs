//! Tasks and cancellations of executors.

use super::{Core, Origin, Refused, assign::MOST_AT_ONCE};
use crate::{
    metrics::{self, Ending},
    queue::{Delivery, Enqueued, Handle, Limit, NewTask, QueueKey, QueueTarget, TaskKey},
};
use std::sync::Arc;
use troupe_domain::{Code, Error};
use troupe_proto::common::v1::Failure;

/// When an executor may dispatch a task again for which there was no room.
const FULL_RETRY_MS: u64 = 5_000;

const ELSEWHERE: &str = "another delivery of the attempt is under way";
const NEWER: &str = "a newer attempt has begun";

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
        // What has ended and is being reported is not there to be done, even if the queue was lost since.
        tasks.retain(|task| !self.reports.is_ending(&task.key, task.task.attempt));
        for task in &mut tasks {
            // A worker still runs this very attempt: the queue was lost, the work was not.
            let held = self.running.get(&task.key).filter(|running| running.attempt == task.task.attempt);
            task.held = held.map(|running| running.fence);
        }
        tasks.sort_by_key(|task| task.task.priority);
        let mut given = Vec::with_capacity(tasks.len());
        for task in &mut tasks {
            given.push(self.give_first(task).await);
        }
        let keys: Vec<_> = tasks.iter().zip(&given).filter(|(_, given)| **given).map(|(task, _)| task.key.clone()).collect();
        if !keys.is_empty() {
            // The workers' streams are written before Redis is asked.
            tokio::task::yield_now().await;
        }
        let outcome = self.enqueue_given(tasks, given).await;
        if outcome.is_err() {
            // What workers have already is not in the queue. It is dispatched again, and found with them.
            keys.iter().for_each(|key| self.not_queued(key));
        }
        outcome
    }

    /// Gives a task to a worker that has room before the queue has it: nothing else is to be had there first, and nobody has seen it before.
    async fn give_first(&mut self, new: &mut NewTask) -> bool {
        let in_order = new.task.first && new.not_before.is_none_or(|at| at <= self.now) && !self.heads.contains_key(&new.queue);
        if !in_order || !self.may_assign() || self.running.contains_key(&new.key) || self.roster.room(&new.queue, self.now) == 0 {
            return false;
        }
        let fence = self.queue.fence(self.now);
        if fence <= new.task.last_fence {
            return false;
        }
        let (key, queue) = (new.key.clone(), new.queue.clone());
        self.place(Delivery { key, queue, task: (*new.task).clone(), fence, number: 1, avoid: None }).await;
        let given = self.running.get(&new.key).is_some_and(|running| running.fence == fence);
        new.held = given.then_some(fence);
        given
    }

    fn not_queued(&mut self, key: &TaskKey) {
        if let Some(running) = self.running.get_mut(key) {
            running.queue = None;
        }
    }

    /// `given`: which of them a worker has already.
    async fn enqueue_given(&mut self, tasks: Vec<NewTask>, given: Vec<bool>) -> Result<(), Error> {
        let seen: Vec<_> = tasks.iter().map(|task| (task.key.clone(), task.queue.clone(), task.task.attempt, task.held)).collect();
        let (outcomes, taken) = match self.waited_for(&tasks) {
            Some((queue, most)) => {
                let (outcomes, taken) = self.queue.enqueue_and_take(tasks, &queue, most, self.now).await?;
                (outcomes, Some((queue, taken)))
            }
            None => (self.queue.enqueue(tasks, self.now).await?, None),
        };
        for (((key, queue, attempt, held), given), outcome) in seen.into_iter().zip(given).zip(outcomes) {
            match outcome {
                Enqueued::Ignored => {
                    // Somebody else has it: it was dispatched before after all.
                    if let Some(fence) = held.filter(|_| given) {
                        self.stop(&Handle { key, fence }, ELSEWHERE, self.config.stop_grace_ms(), Ending::Cancelled);
                    }
                    continue;
                }
                Enqueued::Added => {
                    let grace = self.config.stop_grace_ms();
                    match self.running.get_mut(&key) {
                        Some(running) if running.attempt == attempt => running.queue = Some(queue.clone()),
                        Some(running) => {
                            let fence = running.fence;
                            self.stop(&Handle { key, fence }, NEWER, grace, Ending::Cancelled);
                        }
                        None => {}
                    }
                }
                Enqueued::Replaced(fence) => {
                    if let Some(fence) = fence {
                        self.stop_anywhere(&Handle { key, fence }, NEWER, self.config.stop_grace_ms(), Ending::Cancelled).await;
                    }
                }
                // It runs already, and needs no place.
                Enqueued::Full(_) if given => {
                    self.not_queued(&key);
                    continue;
                }
                Enqueued::Full(limit) => {
                    self.fail_unseen(key, attempt, full(limit));
                    continue;
                }
            }
            if !given && taken.as_ref().is_none_or(|(known, _)| *known != queue) {
                self.mark(&queue, false);
            }
        }
        if let Some((queue, taken)) = taken {
            self.took(&queue, taken).await;
        }
        Ok(())
    }

    /// A queue of these tasks that workers have room for, and for how many tasks: what is taken at once costs no way of its own.
    fn waited_for(&mut self, tasks: &[NewTask]) -> Option<(QueueKey, usize)> {
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
    fn fail_unseen(&mut self, key: TaskKey, attempt: u32, failure: Failure) {
        metrics::error("task_refused");
        let fence = self.fences.next(self.now, 0);
        self.verdict(Handle { key, fence }, attempt, Arc::new(Origin::default()), failure);
    }
}

fn failure_of(error: &Error, retryable: bool) -> Failure {
    Failure { code: error.code.name().to_owned(), message: error.message.clone(), retryable, retry_after_ms: 0 }
}

fn full(limit: Limit) -> Failure {
    let message = match limit {
        Limit::All => "the scheduler holds as many tasks as it may (max_tasks)",
        Limit::Namespace => "the namespace has as many tasks queued as it may (max_namespace_tasks)",
    };
    Failure { retry_after_ms: FULL_RETRY_MS, ..failure_of(&Error::new(Code::ResourceExhausted, message), true) }
}
