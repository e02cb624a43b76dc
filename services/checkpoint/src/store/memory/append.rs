//! Appending a batch: validated as a whole, then written as a whole.

use super::{State, Stored};
use crate::{
    error::{Result, StoreError},
    model::{Batch, Entry, RunKey, RunRow, RunWrite},
    store::blob::{Digest, digests},
};
use std::collections::{BTreeMap, HashMap};
use troupe_domain::Error;

impl State {
    pub(super) fn append(&mut self, batch: Batch) -> Result<()> {
        self.validate(&batch)?;
        let digests = digests(&batch);
        for (w, write) in batch.writes.into_iter().enumerate() {
            self.write(write, &|entry| digests.get(&(w, entry)).copied());
        }
        Ok(())
    }

    fn validate(&self, batch: &Batch) -> Result<()> {
        let newest = self.partitions.get(&batch.partition).map_or(0, |lease| lease.epoch);
        if newest == 0 || newest != batch.epoch {
            return Err(StoreError::StaleEpoch { partition: batch.partition, given: batch.epoch, newest });
        }
        let mut seen: HashMap<&RunKey, u64> = HashMap::new();
        for write in &batch.writes {
            let RunRow { key, partition, seq, .. } = &write.row;
            let stored = self.runs.get(key);
            if let Some(place) = stored.map(|run| run.row.partition).filter(|place| place != partition) {
                let text = format!("run {} is in partition {place}, not {partition}: the number of partitions was changed", key.id);
                let help = "use the number of partitions that the journal was begun with";
                return Err(Error::precondition(text).with_reason("PARTITION").with_help(help).into());
            }
            let actual = seen.insert(key, *seq).unwrap_or_else(|| stored.map_or(0, |run| run.row.seq));
            if actual != write.expected_seq {
                return Err(StoreError::Sequence { run: key.id, expected: write.expected_seq, actual });
            }
        }
        Ok(())
    }

    fn write(&mut self, write: RunWrite, digest: &dyn Fn(usize) -> Option<Digest>) {
        let entries: Vec<_> = write.entries.into_iter().enumerate().map(|(e, entry)| self.share(entry, digest(e))).collect();
        let mut row = write.row;
        let mut stored = match self.runs.remove(&row.key) {
            Some(stored) => {
                self.leave_indexes(&stored);
                // These never change.
                row.workflow.clone_from(&stored.row.workflow);
                (row.created_at, row.parent) = (stored.row.created_at, stored.row.parent);
                stored
            }
            None => {
                self.last += 1;
                Stored { number: self.last, row: row.clone(), entries: Vec::new(), snapshots: BTreeMap::new() }
            }
        };
        let ends = row.ended_at.is_some();
        let ended_before = stored.row.ended_at.is_some() && !stored.entries.is_empty();
        stored.row = row;
        stored.entries.extend(entries);
        if let Some(snapshot) = write.snapshot {
            stored.snapshots.insert(snapshot.seq, snapshot.state);
        }
        while ends && !ended_before && stored.snapshots.len() > self.snapshots_kept {
            stored.snapshots.pop_first();
        }
        self.enter_indexes(&stored);
        self.runs.insert(stored.row.key.clone(), stored);
    }

    /// Large payloads are kept once.
    fn share(&mut self, mut entry: Entry, digest: Option<Digest>) -> (Entry, Option<Digest>) {
        if let Some(digest) = digest {
            let (body, uses) = self.blobs.entry(digest).or_insert_with(|| (entry.payload.clone(), 0));
            *uses += 1;
            entry.payload = body.clone();
        }
        (entry, digest)
    }

    pub(super) fn enter_indexes(&mut self, stored: &Stored) {
        let RunRow { key, partition, .. } = &stored.row;
        self.by_created.insert((key.namespace.clone(), stored.row.created_at, stored.number), key.clone());
        if stored.row.ended_at.is_none() {
            self.open.insert((*partition, key.id, key.namespace.clone()));
        }
        if let Some(wake_at) = stored.row.wake_at {
            self.due.insert((*partition, wake_at, stored.number), key.clone());
        }
    }

    pub(super) fn leave_indexes(&mut self, stored: &Stored) {
        let RunRow { key, partition, .. } = &stored.row;
        self.by_created.remove(&(key.namespace.clone(), stored.row.created_at, stored.number));
        self.open.remove(&(*partition, key.id, key.namespace.clone()));
        if let Some(wake_at) = stored.row.wake_at {
            self.due.remove(&(*partition, wake_at, stored.number));
        }
    }
}
