//! What happens once a batch is durable: effects, answers, news; then memory is tidied.

use super::{Partition, batch::Batch};
use crate::{
    message::Live,
    metrics::{EXECUTIONS, NODES},
    view,
};
use std::sync::Arc;
use troupe_domain::RunId;
use troupe_wire::time;

impl Partition {
    /// Lets out everything that waited for the commit.
    pub(super) fn release(&mut self, mut batch: Batch) {
        let written = batch.written();
        for (scope, at, commands) in batch.commands.drain(..) {
            for command in commands {
                self.shared.effects.issue(&scope, command, at);
            }
        }
        self.issue_touched(&std::mem::take(&mut batch.issue_pending));
        for (reply, view) in batch.views.drain(..) {
            let _ = reply.send(view);
        }
        self.used.extend(&written);
        for (reply, run, done) in batch.replies.drain(..) {
            reply.done(done, self.runs.get(run));
            self.used.insert(run);
        }
        for (reply, error) in batch.failures.drain(..) {
            reply.failed(error);
        }
        self.tell(std::mem::take(&mut batch.live));
        self.settle(&written);
    }

    /// Lets runs leave memory, at the end of a turn.
    pub(super) fn tidy(&mut self) {
        for id in self.used.drain() {
            self.runs.settle(id);
        }
        self.runs.shrink();
    }

    /// Tells watchers and the metrics.
    fn tell(&mut self, live: Vec<(RunId, Live)>) {
        for (id, live) in live {
            count(&live);
            if self.listeners.has_watchers(id) {
                self.listeners.tell(id, Arc::new(live));
            }
        }
    }

    /// Sets timers and tells those who wait for an end.
    fn settle(&mut self, written: &[RunId]) {
        for id in written {
            let Some(run) = self.runs.get(*id) else { continue };
            self.timers.set(&run.key, time(run.summary.wake_at.as_ref()));
            if run.has_ended() {
                let waiters = self.listeners.take_waiters(*id);
                if !waiters.is_empty() {
                    let run = Arc::new(view::full(run));
                    for waiter in waiters {
                        let _ = waiter.send(Arc::clone(&run));
                    }
                }
            }
        }
    }
}

fn count(live: &Live) {
    let mut nodes = 0;
    for change in &live.changes {
        match change.kind.as_str() {
            "step.succeeded" | "step.failed" | "step.skipped" => nodes += 1,
            "run.succeeded" => metrics::counter!(EXECUTIONS, "status" => "succeeded").increment(1),
            "run.failed" => metrics::counter!(EXECUTIONS, "status" => "failed").increment(1),
            "run.cancelled" => metrics::counter!(EXECUTIONS, "status" => "cancelled").increment(1),
            _ => {}
        }
    }
    if nodes > 0 {
        metrics::counter!(NODES).increment(nodes);
    }
}
