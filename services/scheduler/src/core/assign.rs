//! Tasks to workers: whoever has become free, or whose queue has become ready, is served until one of the two is used up.

use super::{Core, Origin, Running, Timer};
use crate::{
    clock::unstamp,
    limit::Bucket,
    queue::{Delivery, Handle, QueueKey, QueueStatus, QueueTarget, Taken},
    roster::{Choose, ConnId},
};
use std::sync::Arc;
use troupe_proto::scheduler::v1::{Assignment, Task, server_message::Kind};
use troupe_wire::trace;

/// Tasks taken from one queue at once.
pub(super) const MOST_AT_ONCE: usize = 256;

impl Core {
    pub(super) async fn assign(&mut self) {
        self.refresh().await;
        while self.may_assign()
            && let Some(conn) = self.hungry.iter().next().copied()
        {
            self.hungry.remove(&conn);
            if !self.feed(conn).await {
                return;
            }
        }
    }

    pub(super) fn may_assign(&self) -> bool {
        !self.draining && self.reports.len() < self.config.max_unreported as usize
    }

    /// Looks at the queues that may have become ready, and offers them to their workers.
    async fn refresh(&mut self) {
        if self.dirty.is_empty() {
            return;
        }
        let dirty: Vec<(QueueKey, bool)> = self.dirty.drain().collect();
        let queues: Vec<QueueKey> = dirty.iter().map(|(queue, _)| queue.clone()).collect();
        let answer = self.queue.status(&queues).await;
        let Some(statuses) = self.ask(answer) else {
            // With the next turn: at the latest when the queue is there again, and is looked through.
            self.dirty = dirty.into_iter().collect();
            return;
        };
        for ((queue, offer), status) in dirty.into_iter().zip(statuses) {
            let fresh = !self.heads.contains_key(&queue);
            self.set_head(&queue, status);
            if status.ready > 0 && (fresh || offer) {
                self.offer(&queue);
            }
        }
    }

    fn set_head(&mut self, queue: &QueueKey, status: QueueStatus) {
        self.meters.depth(queue.as_str(), status.ready);
        if status.ready == 0 {
            self.heads.remove(queue);
        } else if let Some(known) = self.heads.get_mut(queue) {
            *known = status;
        } else {
            self.heads.insert(queue.clone(), status);
        }
    }

    fn offer(&mut self, queue: &QueueKey) {
        for conn in self.roster.servers_of(queue) {
            if let Some(worker) = self.roster.workers.get_mut(&conn) {
                worker.ring.list(queue);
                if worker.free() > 0 {
                    self.hungry.insert(conn);
                }
            }
        }
    }

    /// Serves the queues of a worker while it has room. Tasks go to whoever the strategy chooses, which need not be this worker. False: the
    /// queue is away, and the worker is still hungry.
    async fn feed(&mut self, conn: ConnId) -> bool {
        while self.may_assign() {
            let Some(worker) = self.roster.workers.get_mut(&conn).filter(|worker| worker.free() > 0) else { return true };
            let heads = &self.heads;
            let Some(queue) = worker.ring.next(|queue| heads.get(queue).map(|status| status.head)) else { return true };
            let alone = worker.ring.is_single() && !matches!(queue.target(), QueueTarget::Capability(_));
            let room = self.roster.room(&queue, self.now);
            if room == 0 {
                self.set_aside(conn, &queue);
                continue;
            }
            let most = if alone { room.min(MOST_AT_ONCE) } else { 1 };
            let answer = self.queue.take(&queue, most, self.now).await;
            let Some(taken) = self.ask(answer) else {
                self.hungry.insert(conn);
                return false;
            };
            self.took(&queue, taken).await;
        }
        self.hungry.insert(conn);
        true
    }

    /// Gives what was taken from a queue to workers, and notes what is left there.
    pub(super) async fn took(&mut self, queue: &QueueKey, taken: Taken) {
        let fresh = !self.heads.contains_key(queue);
        self.set_head(queue, taken.status);
        for delivery in taken.deliveries {
            self.place(delivery).await;
        }
        if fresh && taken.status.ready > 0 {
            self.offer(queue);
        }
    }

    /// The worker has room, but not for this queue: it comes back when the agent's limits or slots change.
    fn set_aside(&mut self, conn: ConnId, queue: &QueueKey) {
        if let Some(worker) = self.roster.workers.get_mut(&conn) {
            worker.ring.unlist(queue);
        }
        for key in self.roster.agents_of(queue) {
            let Some(agent) = self.roster.agents.get_mut(&key) else { continue };
            if let Some(at) = agent.next_token(self.now)
                && self.waking.insert(key.clone())
            {
                self.set_timer(at, Timer::Token(key));
            }
        }
    }

    pub(super) async fn place(&mut self, delivery: Delivery) {
        self.stop_older(&delivery.key, delivery.fence);
        let choose = Choose::parse(&delivery.task.choose).unwrap_or(Choose::LeastLoaded);
        let Some(choice) = self.roster.choose(&delivery.queue, choose, delivery.avoid.as_deref(), self.now) else {
            // Room was counted before the task was taken, so this does not happen; the task is not lost if it does.
            let handle = Handle { key: delivery.key, fence: delivery.fence };
            let answer = self.queue.release(&[(handle, None)], self.now).await;
            self.ask(answer);
            return self.mark(&delivery.queue, false);
        };
        let Some(worker) = self.roster.workers.get(&choice.conn) else { return };
        let agent = choice.server.name().to_owned();
        let origin = Arc::new(Origin { agent: agent.clone(), worker: worker.id.to_string(), choice: choice.reason.clone() });
        let attempt = delivery.task.attempt;
        if delivery.number > 1 {
            self.meters.redelivered();
        }
        self.roster.occupy(choice.conn, &choice.server, delivery.key.clone(), self.now);
        let running = Running {
            conn: choice.conn,
            fence: delivery.fence,
            attempt,
            server: choice.server,
            queue: Some(delivery.queue),
            origin,
            started: self.now,
            chunks: self.chunk_bucket(),
        };
        let mut task = delivery.task;
        trace_assignment(&mut task, &running, delivery.number);
        self.running.insert(delivery.key, running);
        let assignment =
            Assignment { task: Some(task), fence: delivery.fence, agent, choice: choice.reason, lease_ms: self.config.lease_ms() };
        self.send(choice.conn, Kind::Assignment(assignment));
    }

    pub(super) fn chunk_bucket(&self) -> Bucket {
        Bucket::new(self.config.chunk_rate, 1_000, self.now)
    }
}

/// Notes the assignment in the task's trace; what the worker does with it comes under it there.
fn trace_assignment(task: &mut Task, running: &Running, number: u32) {
    if task.traceparent.is_empty() {
        return;
    }
    let agent = &running.origin.agent;
    let span = tracing::debug_span!(
        parent: None,
        "assign",
        otel.name = format!("assign {agent}"),
        otel.kind = "producer",
        task.id = task.task_id,
        attempt = task.attempt,
        delivery = number,
        worker = running.origin.worker,
        choice = running.origin.choice,
        wait_ms = unstamp(task.enqueued_at.as_ref()).map(|at| running.started.saturating_sub(at))
    );
    trace::adopt_traceparent(&span, &task.traceparent);
    let context = trace::traceparent_of(&span);
    if !context.is_empty() {
        task.traceparent = context;
    }
}
