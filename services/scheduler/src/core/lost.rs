//! What a queue says that several schedulers share, and what follows when it has lost its tasks.

use super::{Core, Origin, Timer};
use crate::{
    clock::Millis,
    metrics::{self, Ending},
    queue::{Handle, QueueEvent},
};
use std::sync::Arc;
use tokio::sync::mpsc;

/// From a loss to the end of executors' streams: by then every scheduler has seen it and said what its workers have.
const GRACE: Millis = 1_000;

/// Before what could not be said is said again.
const RETRY: Millis = 200;

/// For ever, where there are none.
pub(super) async fn next_event(events: &mut Option<mpsc::Receiver<QueueEvent>>) -> Option<QueueEvent> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

impl Core {
    pub(super) fn told(&mut self, event: Option<QueueEvent>) {
        match event {
            None => self.events = None,
            Some(QueueEvent::Ready(queue)) => self.mark(&queue, true),
            Some(QueueEvent::Look) => self.look = true,
            Some(QueueEvent::Stop(handle, reason)) => {
                self.stop(&handle, &reason, self.config.stop_grace_ms(), Ending::Cancelled);
            }
            Some(QueueEvent::Lost) => {
                metrics::error("queue_lost");
                let known: Vec<_> = self.heads.keys().cloned().collect();
                known.iter().for_each(|queue| self.mark(queue, true));
                self.set_timer(self.now, Timer::Restore);
            }
        }
    }

    /// Says which deliveries workers have here, and whose results are on their way: they are not to be delivered again.
    pub(super) async fn restore(&mut self) {
        let running = self.running.iter().map(|(key, running)| (Handle { key: key.clone(), fence: running.fence }, running.attempt));
        let held: Vec<(Handle, u32)> = running.chain(self.reports.results()).collect();
        let answer = self.queue.restore(&held, self.now).await;
        match self.ask(answer) {
            Some(()) => self.set_timer(self.now + GRACE, Timer::Redispatch),
            None => self.set_timer(self.now + RETRY, Timer::Restore),
        }
    }

    /// Takes a delivery from its worker, here or at another scheduler; see [`Core::stop`].
    pub(super) async fn stop_anywhere(&mut self, handle: &Handle, reason: &str, grace: u64, ending: Ending) -> Option<(Arc<Origin>, u32)> {
        let stopped = self.stop(handle, reason, grace, ending);
        if stopped.is_none() {
            let answer = self.queue.stop_elsewhere(&[(handle.clone(), reason.to_owned())]).await;
            self.ask(answer);
        }
        stopped
    }
}
