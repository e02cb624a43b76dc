//! The runs of a partition that are in memory. Any of them can leave at any time: the journal has them all.

use crate::{metrics::IN_MEMORY, run::Run};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use troupe_domain::RunId;

/// Of the runs that may stay, one in so many may be one that only waits.
const IDLE_SHARE: usize = 8;

pub(crate) struct Cache {
    gauge: metrics::Gauge,
    runs: HashMap<RunId, Held>,
    /// Runs without tasks, the one unused for longest first.
    idle: BTreeMap<u64, RunId>,
    /// Runs with tasks, likewise.
    busy: BTreeMap<u64, RunId>,
    clock: u64,
    capacity: usize,
    /// Over all partitions.
    total: Arc<AtomicUsize>,
}

struct Held {
    run: Box<Run>,
    used: u64,
}

impl Cache {
    pub(crate) fn new(partition: u32, capacity: usize, total: Arc<AtomicUsize>) -> Self {
        let gauge = metrics::gauge!(IN_MEMORY, "partition" => partition.to_string());
        Self { gauge, runs: HashMap::new(), idle: BTreeMap::new(), busy: BTreeMap::new(), clock: 0, capacity, total }
    }

    pub(crate) fn contains(&self, id: RunId) -> bool {
        self.runs.contains_key(&id)
    }

    pub(crate) fn get(&self, id: RunId) -> Option<&Run> {
        self.runs.get(&id).map(|held| held.run.as_ref())
    }

    pub(crate) fn get_mut(&mut self, id: RunId) -> Option<&mut Run> {
        self.runs.get_mut(&id).map(|held| held.run.as_mut())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.runs.values().map(|held| held.run.as_ref())
    }

    /// Takes a run; it stays at least until [`Cache::settle`].
    pub(crate) fn insert(&mut self, run: Run) {
        self.clock += 1;
        let id = run.key.run;
        self.busy.insert(self.clock, id);
        if self.runs.insert(id, Held { run: Box::new(run), used: self.clock }).is_none() {
            self.total.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn remove(&mut self, id: RunId) -> Option<Box<Run>> {
        let held = self.runs.remove(&id)?;
        self.idle.remove(&held.used);
        self.busy.remove(&held.used);
        self.total.fetch_sub(1, Ordering::Relaxed);
        Some(held.run)
    }

    /// Puts a run that was used in its place: ended ones leave, the others are the last to leave of their kind.
    pub(crate) fn settle(&mut self, id: RunId) {
        let Some(held) = self.runs.get_mut(&id) else { return };
        if held.run.has_ended() {
            self.remove(id);
            return;
        }
        self.clock += 1;
        self.idle.remove(&held.used);
        self.busy.remove(&held.used);
        held.used = self.clock;
        let order = if held.run.state.has_tasks() { &mut self.busy } else { &mut self.idle };
        order.insert(self.clock, id);
    }

    /// Lets go of what is over the capacity, waiting runs first.
    pub(crate) fn shrink(&mut self) {
        let idle = self.capacity.div_ceil(IDLE_SHARE).min(self.capacity);
        while self.idle.len() > idle || (self.runs.len() > self.capacity && !self.idle.is_empty()) {
            let Some((_, id)) = self.idle.pop_first() else { break };
            self.remove(id);
        }
        while self.runs.len() > self.capacity {
            let Some((_, id)) = self.busy.pop_first() else { break };
            self.remove(id);
        }
        self.gauge.set(f64::from(u32::try_from(self.runs.len()).unwrap_or(u32::MAX)));
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.total.fetch_sub(self.runs.len(), Ordering::Relaxed);
        self.gauge.set(0.0);
    }
}
