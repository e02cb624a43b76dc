//! The journal in memory: for tests and for trying things out. It keeps every promise but the one that it survives the process.

mod append;
mod list;
mod prune;

use super::{Committed, ENTRIES_BYTES, Journal, LOAD_BYTES, OPEN_RUNS_BYTES, blob};
use crate::{
    clock::Clock,
    error::Result,
    model::{
        Batch, Claim, Definition, DefinitionKey, DueRun, Entry, Lease, Listing, LoadedRun, Micros, Pruned, Renewal, Retention, RunKey,
        RunQuery, RunRow, Snapshot, check, name_of,
    },
};
use async_trait::async_trait;
use blob::Digest;
use bytes::Bytes;
use futures::FutureExt as _;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use troupe_domain::{Code, Error, Namespace, RunId};

/// A journal in memory. Clones share it.
#[derive(Clone)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

struct State {
    snapshots_kept: usize,
    runs: HashMap<RunKey, Stored>,
    /// The number of the run that was added last.
    last: i64,
    by_created: BTreeMap<(Namespace, Micros, i64), RunKey>,
    open: BTreeSet<(u32, RunId, Namespace)>,
    due: BTreeMap<(u32, Micros, i64), RunKey>,
    partitions: BTreeMap<u32, Lease>,
    /// Executors by name: how they call themselves, and until when they are live.
    executors: BTreeMap<String, (String, Micros)>,
    /// Versions by workflow, in the order of their arrival.
    definitions: BTreeMap<(Namespace, String), Vec<Definition>>,
    /// Large payloads with the number of entries that have them.
    blobs: HashMap<Digest, (Bytes, u64)>,
}

struct Stored {
    number: i64,
    row: RunRow,
    entries: Vec<(Entry, Option<Digest>)>,
    snapshots: BTreeMap<u64, Bytes>,
}

impl Memory {
    /// An empty journal.
    pub fn new(snapshots_kept: u32, clock: Clock) -> Self {
        let state = State {
            snapshots_kept: usize::try_from(snapshots_kept).unwrap_or(usize::MAX),
            runs: HashMap::new(),
            last: 0,
            by_created: BTreeMap::new(),
            open: BTreeSet::new(),
            due: BTreeMap::new(),
            partitions: BTreeMap::new(),
            executors: BTreeMap::new(),
            definitions: BTreeMap::new(),
            blobs: HashMap::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), clock }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn until(&self, lease: Duration) -> Micros {
        Micros(self.clock.now().0.saturating_add(i64::try_from(lease.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl Stored {
    fn loaded(&self, at_seq: u64) -> LoadedRun {
        let last = if at_seq == 0 { self.row.seq } else { at_seq.min(self.row.seq) };
        let snapshot = self.snapshots.range(..=last).next_back().map(|(seq, state)| Snapshot { seq: *seq, state: state.clone() });
        let from = snapshot.as_ref().map_or(0, |snapshot| snapshot.seq);
        let wanted = self.entries.iter().filter(|(entry, _)| entry.seq > from && entry.seq <= last);
        LoadedRun { row: self.row.clone(), snapshot, entries: wanted.map(|(entry, _)| entry.clone()).collect() }
    }
}

#[async_trait]
impl Journal for Memory {
    async fn acquire_partitions(&self, owner: String, partitions: Vec<u32>, lease: Duration, force: bool) -> Result<Vec<Lease>> {
        let (now, until) = (self.clock.now(), self.until(lease));
        let mut state = self.state();
        let mut granted = Vec::new();
        for partition in partitions {
            let current = state.partitions.get(&partition);
            if !force && current.is_some_and(|lease| lease.is_held_against(&owner, now)) {
                continue;
            }
            let epoch = current.map_or(0, |lease| lease.epoch) + 1;
            let lease = Lease { partition, epoch, owner: owner.clone(), expires_at: until, remaining_ms: 0 };
            state.partitions.insert(partition, lease.clone());
            granted.push(lease.seen_at(now));
        }
        Ok(granted)
    }

    async fn renew_partitions(&self, owner: String, claims: Vec<Claim>, lease: Duration) -> Result<Renewal> {
        let (now, until) = (self.clock.now(), self.until(lease));
        let mut state = self.state();
        for claim in &claims {
            if let Some(lease) = state.partitions.get_mut(&claim.partition).filter(|lease| lease.is_claimed_by(&owner, *claim)) {
                lease.expires_at = until;
            }
        }
        state.executors.retain(|_, (_, until)| *until > now);
        state.executors.insert(name_of(&owner).to_owned(), (owner.clone(), until));
        let mut executors: Vec<String> = state.executors.values().map(|(owner, _)| owner.clone()).collect();
        executors.sort_unstable();
        let leases = state.partitions.values().map(|lease| lease.clone().seen_at(now)).collect();
        Ok(Renewal::of(&owner, &claims, executors, leases))
    }

    async fn release_partitions(&self, owner: String, claims: Vec<Claim>, leave: bool) -> Result<()> {
        let mut state = self.state();
        for claim in claims {
            if let Some(lease) = state.partitions.get_mut(&claim.partition).filter(|lease| lease.is_claimed_by(&owner, claim)) {
                lease.owner.clear();
                lease.expires_at = Micros(0);
            }
        }
        if leave && state.executors.get(name_of(&owner)).is_some_and(|(member, _)| *member == owner) {
            state.executors.remove(name_of(&owner));
        }
        Ok(())
    }

    async fn list_partitions(&self) -> Result<Vec<Lease>> {
        let now = self.clock.now();
        Ok(self.state().partitions.values().map(|lease| lease.clone().seen_at(now)).collect())
    }

    fn append(&self, batch: Batch) -> Committed {
        let outcome = check::batch(&batch).map_err(Into::into).and_then(|()| self.state().append(batch));
        futures::future::ready(outcome).boxed()
    }

    async fn load_runs(&self, keys: Vec<RunKey>, at_seq: u64) -> Result<Vec<LoadedRun>> {
        let state = self.state();
        let mut found = Vec::new();
        let mut weight = 0;
        for stored in keys.iter().filter_map(|key| state.runs.get(key)) {
            let run = stored.loaded(at_seq);
            weight += run.weight();
            if keys.len() > 1 && weight > LOAD_BYTES {
                let error = Error::new(Code::PayloadTooLarge, format!("the {} runs have more than {LOAD_BYTES} bytes", keys.len()));
                return Err(error.with_help("ask for fewer runs at a time").into());
            }
            found.push(run);
        }
        Ok(found)
    }

    async fn load_open_runs(&self, partition: u32, limit: usize, after: Option<RunId>) -> Result<Vec<LoadedRun>> {
        let state = self.state();
        let mut page: Vec<LoadedRun> = Vec::new();
        let mut weight = 0;
        for (place, id, namespace) in &state.open {
            if *place != partition || after.is_some_and(|after| *id <= after) {
                continue;
            }
            // Two namespaces may have a run of the same id: a page never ends between them.
            let full = page.len() >= limit || weight >= OPEN_RUNS_BYTES;
            if full && page.last().is_some_and(|run| run.row.key.id != *id) {
                break;
            }
            if let Some(stored) = state.runs.get(&RunKey { namespace: namespace.clone(), id: *id }) {
                let run = stored.loaded(0);
                weight += run.weight();
                page.push(run);
            }
        }
        Ok(page)
    }

    async fn list_due(&self, partition: u32, before: Micros, limit: usize) -> Result<Vec<DueRun>> {
        let state = self.state();
        let range = state.due.range((partition, Micros(i64::MIN), 0)..=(partition, before, i64::MAX));
        Ok(range.take(limit).map(|((_, wake_at, _), key)| DueRun { key: key.clone(), wake_at: *wake_at }).collect())
    }

    async fn list_runs(&self, query: RunQuery) -> Result<Listing<RunRow>> {
        self.state().list_runs(&query)
    }

    async fn read_entries(&self, key: RunKey, from_seq: u64, limit: usize) -> Result<Vec<Entry>> {
        let state = self.state();
        let stored = state.runs.get(&key).ok_or_else(|| Error::not_found(&key))?;
        let mut weight = 0;
        let mut found = Vec::new();
        for (entry, _) in stored.entries.iter().filter(|(entry, _)| entry.seq >= from_seq).take(limit) {
            weight += entry.event.len() + entry.payload.len() + entry.changes.len() + 64;
            if weight > ENTRIES_BYTES && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    async fn put_definition(&self, definition: Definition) -> Result<(Definition, bool)> {
        check::definition(&definition)?;
        let mut state = self.state();
        let versions = state.definitions.entry((definition.namespace.clone(), definition.name.clone())).or_default();
        match versions.iter().find(|stored| stored.version == definition.version) {
            Some(stored) if stored.hash == definition.hash => Ok((stored.clone(), false)),
            Some(_) => {
                let text = format!("version {} of workflow {} exists with other content", definition.version, definition.name);
                Err(Error::conflict(text).with_reason("DEFINITION").with_help("give the changed workflow a new version").into())
            }
            None => {
                versions.push(definition.clone());
                Ok((definition, true))
            }
        }
    }

    async fn get_definition(&self, namespace: Namespace, key: DefinitionKey) -> Result<Definition> {
        let found = self.state().definition(&namespace, &key);
        found.ok_or_else(|| Error::not_found(&key).into())
    }

    async fn list_definitions(&self, namespace: Namespace, name: String, limit: usize, cursor: String) -> Result<Listing<Definition>> {
        self.state().list_definitions(&namespace, &name, limit, &cursor)
    }

    async fn prune(&self, rules: Retention) -> Result<Pruned> {
        Ok(self.state().prune(rules))
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    async fn probe(&self) -> Result<()> {
        Ok(())
    }
}
