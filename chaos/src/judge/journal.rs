//! One run's journal: read entry by entry, applied again with the engine, compared with what the store keeps of the run.

use anyhow::{Context, anyhow, bail, ensure};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};
use troupe_domain::Json;
use troupe_engine::{Definition, Event, EventKind, Limits, RunState, language, run::Change};
use troupe_proto::checkpoint::v1::{
    GetDefinitionRequest, JournalEntry, LoadRunsRequest, ReadEntriesRequest, RunKey, RunSummary,
    checkpoint_store_client::CheckpointStoreClient,
};
use troupe_wire::{Transport, time};

const PAGE: u32 = 500;

type Client = CheckpointStoreClient<Transport>;

/// How an attempt at a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Completed,
    /// With this code.
    Failed(String),
}

/// What a journal says, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    pub partition: u32,
    pub entries: usize,
    /// By step instance and attempt.
    pub attempts: BTreeMap<(String, u32), Ending>,
    /// The attempt that recorded each value, by step instance and place.
    pub records: BTreeMap<(String, u32), u32>,
    pub wrong: Vec<String>,
}

/// The definitions, compiled once each.
pub struct Definitions {
    client: Client,
    by_hash: Mutex<HashMap<String, Arc<Definition>>>,
}

impl Definitions {
    pub fn new(client: Client) -> Self {
        Self { client, by_hash: Mutex::default() }
    }

    async fn get(&self, row: &RunSummary) -> anyhow::Result<Arc<Definition>> {
        let hash = &row.definition_hash;
        let known = self.by_hash.lock().unwrap_or_else(PoisonError::into_inner).get(hash).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let request = GetDefinitionRequest { namespace: row.namespace.clone(), hash: hash.clone(), ..GetDefinitionRequest::default() };
        let found = self.client.clone().get_definition(request).await?.into_inner().definition.context("no definition")?;
        let body: Json = serde_json::from_slice(&found.body)?;
        let compiled = language::compile(&body, &Limits::default().for_stored()).map_err(|faults| anyhow!("{faults:?}"))?;
        let definition = Arc::new(compiled);
        self.by_hash.lock().unwrap_or_else(PoisonError::into_inner).insert(hash.clone(), Arc::clone(&definition));
        Ok(definition)
    }
}

/// Reads and checks a run's journal. Fails when it cannot be read; what it says that must not be is in the answer.
pub async fn read(mut client: Client, definitions: &Definitions, row: RunSummary) -> anyhow::Result<Journal> {
    let definition = definitions.get(&row).await?;
    let key = RunKey { namespace: row.namespace.clone(), run_id: row.run_id.clone() };
    let mut entries: Vec<JournalEntry> = Vec::new();
    loop {
        let from_seq = entries.last().map_or(1, |entry| entry.seq + 1);
        let request = ReadEntriesRequest { key: Some(key.clone()), from_seq, limit: PAGE };
        let page = client.read_entries(request).await?.into_inner().entries;
        if page.is_empty() {
            break;
        }
        entries.extend(page);
    }
    let loaded = client.load_runs(LoadRunsRequest { keys: vec![key], at_seq: 0 }).await?.into_inner().runs;
    let snapshot = loaded.into_iter().next().and_then(|run| run.snapshot);
    let mut journal = Journal { partition: row.partition, entries: entries.len(), ..Journal::default() };
    let snapshot = snapshot.map(|snapshot| (snapshot.seq, snapshot.state));
    if let Err(fault) = replay(&mut journal, &definition, &row, &entries, snapshot.as_ref().map(|(seq, state)| (*seq, state.as_ref()))) {
        journal.wrong.push(format!("its journal does not lead to what is kept of it: {fault:#}"));
    }
    Ok(journal)
}

/// Applies every entry again; the state must come out as the snapshot and the index row say, and the changes as the journal says.
fn replay(
    journal: &mut Journal,
    definition: &Definition,
    row: &RunSummary,
    entries: &[JournalEntry],
    snapshot: Option<(u64, &[u8])>,
) -> anyhow::Result<()> {
    let mut state = RunState::new();
    let mut outcomes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (entry, expected) in entries.iter().zip(1..) {
        ensure!(entry.seq == expected, "entry {} comes where {expected} should", entry.seq);
        let kind: EventKind = serde_json::from_slice(&entry.event).with_context(|| format!("entry {expected}"))?;
        let payload = if entry.payload.is_empty() { Json::null() } else { serde_json::from_slice(&entry.payload)? };
        note(journal, &kind);
        let at = time(entry.at.as_ref()).with_context(|| format!("entry {expected} has no time"))?;
        let event = Event::with(kind, payload);
        let transition = troupe_engine::apply(definition, &mut state, &event, at, &Limits::default())
            .map_err(|rejection| anyhow!("entry {expected} ({}) is refused: {rejection}", entry.kind))?;
        let written: Vec<Change> = if entry.changes.is_empty() { Vec::new() } else { serde_json::from_slice(&entry.changes)? };
        ensure!(transition.changes == written, "entry {expected} makes other changes than it made at first");
        for change in written {
            if matches!(change.kind.as_str(), "step.succeeded" | "step.failed" | "step.skipped" | "step.cancelled") {
                outcomes.entry(change.step).or_default().push(change.kind);
            }
        }
        if let Some((seq, kept)) = snapshot
            && seq == entry.seq
        {
            let kept: Value = serde_json::from_slice(kept)?;
            ensure!(serde_json::to_value(&state)? == kept, "the checkpoint at {seq} is another state");
        }
    }
    for (step, kinds) in outcomes.iter().filter(|(_, kinds)| kinds.len() > 1) {
        journal.wrong.push(format!("step {step} has {} outcomes: {}", kinds.len(), kinds.join(", ")));
    }
    let last = entries.last().map_or(0, |entry| entry.seq);
    ensure!(last == row.seq, "the last entry is {last}, and the index says {}", row.seq);
    ensure!(state.status.as_str() == row.status, "it leads to {}, and the index says {}", state.status.as_str(), row.status);
    if outcomes.is_empty() {
        bail!("no step has an outcome");
    }
    Ok(())
}

/// Attempts and records, each of which may come once.
fn note(journal: &mut Journal, kind: &EventKind) {
    let (step, attempt, ending) = match kind {
        EventKind::TaskRecorded { step, attempt, index, .. } => {
            if let Some(before) = journal.records.insert((step.clone(), *index), *attempt) {
                journal.wrong.push(format!("record {index} of {step} is there twice (attempts {before} and {attempt})"));
            }
            return;
        }
        EventKind::TaskCompleted { step, attempt, .. } => (step, *attempt, Ending::Completed),
        EventKind::TaskFailed { step, attempt, failure, .. } => (step, *attempt, Ending::Failed(failure.code.clone())),
        _ => return,
    };
    if let Some(before) = journal.attempts.insert((step.clone(), attempt), ending) {
        journal.wrong.push(format!("attempt {attempt} of {step} ended twice, first with {before:?}"));
    }
}
