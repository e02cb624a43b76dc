//! A run in memory: its state, its index row and how much of its journal follows the last snapshot.

use crate::{message::Scope, store::stored_json};
use bytes::Bytes;
use std::{collections::HashMap, sync::Arc};
use troupe_domain::{Error, Json, Namespace, Result, RunId};
use troupe_engine::{
    Command, Definition, Event, EventKind, Limits, Rejection, RunState, Time, Transition,
    event::{ChildOutcome, Failure, Parent},
    run::Change,
};
use troupe_proto::checkpoint::v1 as pb;
use troupe_wire::{time, timestamp};

/// Entries that are always cheaper to apply again than a snapshot is to write.
const FEW_ENTRIES: usize = 16;

/// Entries of fewer bytes than this need no snapshot.
const FEW_BYTES: usize = 4 << 10;

/// A large snapshot is written after so many bytes of entries, however large it is.
const MANY_BYTES: usize = 4 << 20;

/// States that print longer than this get no snapshots: their runs are loaded from their entries.
pub(crate) const MAX_SNAPSHOT: usize = 24 << 20;

/// Bytes of a run's last snapshot and the entries after it, beyond which it takes no more large payloads: it must fit into a message.
const MAX_RUN: usize = 32 << 20;

/// Payloads up to this are taken by any run: it can always be decided on, failed and cancelled.
const SMALL_PAYLOAD: usize = 4 << 10;

/// Which run. Cheap enough to copy about: a short text and 16 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: Namespace,
    pub(crate) run: RunId,
}

impl Key {
    /// Takes what a request says.
    pub(crate) fn parse(namespace: &str, run: &str) -> Result<Self> {
        Ok(Self { namespace: Namespace::parse(namespace)?, run: run.parse()? })
    }

    pub(crate) fn wire(&self) -> pb::RunKey {
        pb::RunKey { namespace: self.namespace.to_string(), run_id: self.run.to_string() }
    }

    pub(crate) fn not_found(&self) -> Error {
        Error::not_found(format!("run {}", self.run)).with_help("`troupe runs list` shows the runs of this namespace")
    }
}

/// A run as far as its journal goes.
pub(crate) struct Run {
    pub(crate) key: Key,
    pub(crate) definition: Arc<Definition>,
    pub(crate) state: RunState,
    /// The index row. Only [`Run::refresh`] brings it up to the state.
    pub(crate) summary: pb::RunSummary,
    /// What its effects carry along.
    pub(crate) scope: Arc<Scope>,
    /// The time of the last entry: no later entry is older.
    last_at: Time,
    since_snapshot: Since,
}

struct Since {
    entries: usize,
    bytes: usize,
    /// Bytes of the last snapshot and of all that follows it, as they are loaded.
    weight: usize,
    /// Bytes of entries after which the next snapshot is due.
    due: usize,
}

impl Since {
    fn snapshot(bytes: usize) -> Self {
        Self { entries: 0, bytes: 0, weight: bytes, due: bytes.clamp(FEW_BYTES, MANY_BYTES) }
    }

    fn add(&mut self, entry: &pb::JournalEntry) {
        self.entries += 1;
        self.bytes += entry.event.len() + entry.payload.len();
        self.weight += crate::appender::weight(entry);
    }
}

/// What a new run's index row says from the start.
pub(crate) struct Birth {
    pub(crate) partition: u32,
    pub(crate) labels: HashMap<String, String>,
    pub(crate) priority: u32,
    pub(crate) parent: Option<Parent>,
    pub(crate) traceparent: String,
}

/// An applied event: the journal entry, and what it leads to.
pub(crate) struct Applied {
    pub(crate) entry: pb::JournalEntry,
    pub(crate) at: Time,
    pub(crate) transition: Transition,
}

impl Run {
    /// A run before its first entry; `state` is not empty for forks.
    pub(crate) fn new(key: Key, definition: Arc<Definition>, state: RunState, birth: Birth, now: Time) -> Self {
        let summary = pb::RunSummary {
            namespace: key.namespace.to_string(),
            run_id: key.run.to_string(),
            partition: birth.partition,
            workflow: definition.name.clone(),
            version: definition.version.clone(),
            definition_hash: definition.hash.clone(),
            labels: birth.labels,
            priority: birth.priority,
            parent_run_id: birth.parent.as_ref().map(|parent| parent.run.to_string()).unwrap_or_default(),
            created_at: Some(timestamp(now)),
            ..Default::default()
        };
        let since_snapshot = Since::snapshot(0);
        let scope = Arc::new(Scope { key: key.clone(), workflow: definition.name.clone(), traceparent: birth.traceparent });
        Self { key, definition, state, summary, scope, last_at: now, since_snapshot }
    }

    /// The run that the journal holds. The state is that after the last entry given.
    pub(crate) fn replay(key: Key, definition: Arc<Definition>, loaded: pb::LoadedRun, limits: &Limits) -> Result<Self> {
        let summary = loaded.summary.unwrap_or_default();
        let mut state = RunState::new();
        let mut since = Since::snapshot(0);
        let mut seq = 0;
        if let Some(snapshot) = &loaded.snapshot {
            state = serde_json::from_slice(&snapshot.state).map_err(|cause| damaged(&key, snapshot.seq, &cause))?;
            since = Since::snapshot(snapshot.state.len());
            seq = snapshot.seq;
        }
        let created = time(summary.created_at.as_ref()).unwrap_or_default();
        let last_at = state.updated_at().unwrap_or(created);
        let scope = Scope { key: key.clone(), workflow: definition.name.clone(), traceparent: String::new() };
        let mut run = Self { key, definition, state, summary, scope: Arc::new(scope), last_at, since_snapshot: since };
        for entry in &loaded.entries {
            // The entries of a snapshot's own number are in it already.
            if entry.seq > seq {
                run.replay_entry(entry, limits)?;
                seq = entry.seq;
            }
        }
        run.summary.seq = seq;
        if !run.state.traceparent().is_empty() {
            let traceparent = run.state.traceparent().to_owned();
            run.scope = Arc::new(Scope { traceparent, ..run.scope.as_ref().clone() });
        }
        Ok(run)
    }

    fn replay_entry(&mut self, entry: &pb::JournalEntry, limits: &Limits) -> Result<()> {
        let kind: EventKind = serde_json::from_slice(&entry.event).map_err(|cause| damaged(&self.key, entry.seq, &cause))?;
        let event = Event::with(kind, stored_json(&entry.payload, "journal entry")?);
        let at = time(entry.at.as_ref()).ok_or_else(|| damaged(&self.key, entry.seq, &"it has no time"))?;
        let (definition, state) = (&self.definition, &mut self.state);
        guarded(&self.key, || troupe_engine::apply(definition, state, &event, at, limits))?
            .map_err(|rejection| damaged(&self.key, entry.seq, &rejection))?;
        self.last_at = at;
        self.since_snapshot.add(entry);
        Ok(())
    }

    /// Applies an event. The entry is not durable until it is appended; where the event is rejected nothing has changed.
    pub(crate) fn apply(&mut self, event: &Event, now: Time, traceparent: &str, limits: &Limits) -> Result<Applied, Refused> {
        let weight = self.since_snapshot.weight + event.payload.len();
        if event.payload.len() > SMALL_PAYLOAD && weight > MAX_RUN {
            let message = format!("the run keeps {weight} bytes and takes no more large payloads: it may have {MAX_RUN}");
            return Err(Rejection::Limit(message).into());
        }
        let at = now.max(self.last_at);
        let (definition, state) = (&self.definition, &mut self.state);
        let mut transition = guarded(&self.key, || troupe_engine::apply(definition, state, event, at, limits))??;
        self.last_at = at;
        self.summary.seq += 1;
        let entry = pb::JournalEntry {
            seq: self.summary.seq,
            at: Some(timestamp(at)),
            kind: event.kind.name().to_owned(),
            event: json_bytes(&event.kind),
            payload: if event.payload.is_null() { Bytes::new() } else { event.payload.to_bytes() },
            changes: if transition.changes.is_empty() { Bytes::new() } else { json_bytes(&transition.changes) },
            traceparent: traceparent.to_owned(),
        };
        self.since_snapshot.add(&entry);
        transition.changes.shrink_to_fit();
        Ok(Applied { entry, at, transition })
    }

    /// Brings the index row up to the state.
    pub(crate) fn refresh(&mut self) {
        let (state, summary) = (&self.state, &mut self.summary);
        let ended = state.status.is_ended();
        let failure = state.failure().filter(|_| ended);
        state.status.as_str().clone_into(&mut summary.status);
        summary.updated_at = Some(timestamp(self.last_at));
        summary.ended_at = ended.then(|| timestamp(self.last_at));
        summary.wake_at = state.wake_at().map(timestamp);
        summary.error_code = failure.map(|failure| failure.code.clone()).unwrap_or_default();
        summary.error_message = failure.map(|failure| failure.message.clone()).unwrap_or_default();
        summary.dead_queue = state.dead_queue().filter(|_| ended).unwrap_or_default();
    }

    /// The state as a snapshot, where the entries since the last one have outgrown it (or `always`).
    pub(crate) fn snapshot(&mut self, always: bool) -> Option<pb::Snapshot> {
        let since = &mut self.since_snapshot;
        let due = since.entries >= FEW_ENTRIES && since.bytes > since.due;
        if !due && !always {
            return None;
        }
        let state = json_bytes(&self.state);
        if state.len() > MAX_SNAPSHOT && !always {
            since.due = since.bytes + MANY_BYTES;
            return None;
        }
        self.since_snapshot = Since::snapshot(state.len());
        Some(pb::Snapshot { seq: self.summary.seq, state })
    }

    /// What it has asked for that has not come back.
    pub(crate) fn pending(&self) -> Vec<Command> {
        guarded(&self.key, || troupe_engine::pending(&self.definition, &self.state)).unwrap_or_default()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state.status.is_ended()
    }

    /// How it ended, as its parent is told; `None` while it runs.
    pub(crate) fn outcome(&self) -> Option<(ChildOutcome, Json)> {
        use troupe_engine::RunStatus::{Cancelled, Failed, Succeeded};
        let outcome = match self.state.status {
            Succeeded => ChildOutcome::Succeeded,
            Cancelled => ChildOutcome::Cancelled,
            Failed => {
                let unknown = || Failure::permanent("RUN_FAILED", "the child run failed");
                ChildOutcome::Failed(self.state.failure().cloned().unwrap_or_else(unknown))
            }
            _ => return None,
        };
        Some((outcome, self.state.output().unwrap_or_default()))
    }

    pub(crate) fn last_at(&self) -> Time {
        self.last_at
    }
}

/// Why an event was not applied.
pub(crate) enum Refused {
    /// The run is as it was.
    Rejected(Rejection),
    /// A defect of ours: the run in memory is not to be trusted any more.
    Broken(Error),
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

/// A defect that one run meets must not take the thousands beside it along.
fn guarded<T>(key: &Key, work: impl FnOnce() -> T) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|_| {
        tracing::error!(run.id = %key.run, run.namespace = %key.namespace, "the engine panicked");
        Error::internal()
    })
}

/// Our own types print as JSON: their maps have text keys and their numbers are finite.
pub(crate) fn json_bytes(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value).map_or_else(
        |cause| {
            tracing::error!(%cause, "a value of ours does not print as json");
            Bytes::new()
        },
        Bytes::from,
    )
}

fn damaged(key: &Key, seq: u64, cause: &dyn std::fmt::Display) -> Error {
    tracing::error!(run.id = %key.run, run.namespace = %key.namespace, seq, %cause, "a journal entry cannot be applied again");
    Error::internal()
}

/// The current time as the journal keeps it: whole microseconds.
pub(crate) fn now() -> Time {
    use chrono::SubsecRound;
    chrono::Utc::now().trunc_subsecs(6)
}

/// Lifecycle changes of an entry.
pub(crate) fn changes_of(entry: &pb::JournalEntry) -> Vec<Change> {
    if entry.changes.is_empty() {
        return Vec::new();
    }
    serde_json::from_slice(&entry.changes).unwrap_or_else(|cause| {
        tracing::error!(seq = entry.seq, %cause, "the changes of a journal entry cannot be read");
        Vec::new()
    })
}
