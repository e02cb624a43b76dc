//! Tasks on their way into the queue.

use super::{
    LATEST, RedisQueue,
    call::{Args, fence_text},
};
use crate::{
    clock::Millis,
    link::reply::{array, text},
    queue::{Enqueued, Limit, NewTask, QueueKey, Taken, TaskQueue},
};
use prost::Message;
use redis::Value;
use troupe_domain::Error;

impl RedisQueue {
    fn score(&self, new: &NewTask, since: Millis) -> Millis {
        self.settings.score(new.task.priority, since).min(LATEST)
    }

    fn write_task(&self, new: &NewTask, now: Millis, args: &mut Args) {
        let ready_at = new.not_before.unwrap_or(0).min(LATEST);
        let since = new.since.min(now).max(ready_at);
        args.text(new.key.task_id()).text(new.queue.name()).number(new.task.attempt.into()).bytes(new.task.encode_to_vec());
        args.number(since).number(self.score(new, since)).number(ready_at).number(new.timeout.min(LATEST));
        match new.deadline {
            Some(at) => args.number(at.min(LATEST)),
            None => args.text(""),
        };
        match new.held {
            Some(fence) => args.bytes(fence_text(fence)),
            None => args.text(""),
        };
        args.bytes(fence_text(new.task.last_fence)).number((!new.task.first).into());
    }

    fn enqueue_head(&self, namespace: &str) -> Args {
        let others = self.len() - self.spaces.get(namespace).map_or(0, |space| space.count);
        let room = self.settings.max_tasks.saturating_sub(others);
        let mut head = Args::default();
        head.number(room as u64).number(self.settings.max_namespace_tasks as u64).number(self.settings.lease);
        head
    }

    /// Tasks of one namespace.
    pub(super) async fn enqueue_in(&mut self, namespace: &str, tasks: &[&NewTask], now: Millis) -> Result<Vec<Enqueued>, Error> {
        let head = self.enqueue_head(namespace);
        let answers =
            self.in_namespace(namespace, &Self::scripts().enqueue, true, &head, tasks, |this, new, args| this.write_task(new, now, args));
        let answers = answers.await?;
        self.remember(namespace).await?;
        self.enqueued(tasks, answers)
    }

    fn enqueued(&mut self, tasks: &[&NewTask], answers: Vec<Value>) -> Result<Vec<Enqueued>, Error> {
        let outcomes = answers.into_iter().zip(tasks).map(|(value, new)| {
            let text = text(value)?;
            if text != "I" {
                self.settled.remove(&new.key);
            }
            Ok(match text.split_at_checked(1) {
                Some(("A", _)) => Enqueued::Added,
                Some(("P", fence)) => Enqueued::Replaced(fence.parse().ok()),
                Some(("F", "A")) => Enqueued::Full(Limit::All),
                Some(("F", _)) => Enqueued::Full(Limit::Namespace),
                _ => Enqueued::Ignored,
            })
        });
        outcomes.collect()
    }

    pub(super) async fn enqueue_then_take(
        &mut self,
        tasks: Vec<NewTask>,
        queue: &QueueKey,
        max: usize,
        now: Millis,
    ) -> Result<(Vec<Enqueued>, Taken), Error> {
        let namespace = queue.namespace();
        let together = tasks.iter().all(|task| task.key.namespace() == namespace);
        let head = self.enqueue_head(namespace);
        let items: Vec<&NewTask> = tasks.iter().collect();
        let Some(args) = self.one_part(&head, &items, |this, new, args| this.write_task(new, now, args)).filter(|_| together) else {
            let enqueued = self.enqueue(tasks, now).await?;
            return Ok((enqueued, self.take(queue, max, now).await?));
        };
        self.now = now;
        let take = self.take_args(queue, max, now);
        let ops = self.ops(namespace);
        // They are carried out in this order, one way there and back.
        let enqueue = self.send(namespace, &Self::scripts().enqueue, true, args, now);
        let take = self.send(namespace, &Self::scripts().take, false, take, now);
        let (enqueued, taken) = futures::join!(enqueue, take);
        let enqueued = self.took(namespace, ops, enqueued?).and_then(array)?;
        let taken = self.took(namespace, ops, taken?)?;
        self.remember(namespace).await?;
        let enqueued = self.enqueued(&items, enqueued)?;
        Ok((enqueued, self.taken(queue, taken)?))
    }
}
