//! Callers that wait for a run's end, and watchers of its changes. They cost a run nothing when there are none.

use crate::message::Live;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{broadcast, oneshot};
use troupe_domain::RunId;
use troupe_proto::executor::v1 as wire;

const SWEEP: Duration = Duration::from_secs(10);

pub(super) struct Listeners {
    waiters: HashMap<RunId, Vec<oneshot::Sender<Arc<wire::Run>>>>,
    watchers: HashMap<RunId, broadcast::Sender<Arc<Live>>>,
    buffer: usize,
    swept: Instant,
}

impl Listeners {
    pub(super) fn new(buffer: usize) -> Self {
        Self { waiters: HashMap::new(), watchers: HashMap::new(), buffer, swept: Instant::now() }
    }

    pub(super) fn wait(&mut self, run: RunId, reply: oneshot::Sender<Arc<wire::Run>>) {
        let waiters = self.waiters.entry(run).or_default();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(reply);
    }

    pub(super) fn watch(&mut self, run: RunId, reply: oneshot::Sender<broadcast::Receiver<Arc<Live>>>) {
        let changes = self.watchers.entry(run).or_insert_with(|| broadcast::channel(self.buffer).0);
        let _ = reply.send(changes.subscribe());
    }

    pub(super) fn has_watchers(&self, run: RunId) -> bool {
        self.watchers.contains_key(&run)
    }

    pub(super) fn tell(&mut self, run: RunId, live: Arc<Live>) {
        if let Some(changes) = self.watchers.get(&run)
            && changes.send(live).is_err()
        {
            self.watchers.remove(&run);
        }
    }

    /// Those who wait for this run's end.
    pub(super) fn take_waiters(&mut self, run: RunId) -> Vec<oneshot::Sender<Arc<wire::Run>>> {
        self.waiters.remove(&run).unwrap_or_default()
    }

    /// Forgets those who have gone, now and then.
    pub(super) fn sweep(&mut self) {
        if self.swept.elapsed() < SWEEP {
            return;
        }
        self.swept = Instant::now();
        self.waiters.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
        self.watchers.retain(|_, changes| changes.receiver_count() > 0);
    }
}
