//! The accepted batches of a transaction as the arrays that `journal.append` takes: one round trip, however many runs.

use super::{
    fault::Attempt,
    group::{Facts, Found},
    link::Link,
    rows::{clean, indexed, labels_text, signed, some_bytes, some_text, unsigned},
};
use crate::{
    model::{Batch, Entry, RunKey, RunRow, RunWrite, Snapshot},
    store::blob::{Digest, Digests},
};
use sqlx::{Postgres, Row as _, postgres::PgArguments, query::Query};
use std::collections::{BTreeMap, HashMap};

const APPEND: &str = "SELECT fault, place, actual FROM journal.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
    $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39)";

type Statement = Query<'static, Postgres, PgArguments>;

/// All writes of one run: the first says what the run must look like before, the last what it looks like after.
struct Run<'a> {
    first: &'a RunWrite,
    last: &'a RunRow,
}

#[derive(Default)]
pub(super) struct Columns<'a> {
    claims: BTreeMap<u32, u64>,
    runs: Vec<Run<'a>>,
    entries: Vec<(i32, &'a Entry, Option<&'a Digest>)>,
    /// By place of the run and sequence number: the last one counts.
    snapshots: BTreeMap<(i32, u64), &'a Snapshot>,
    blobs: BTreeMap<&'a Digest, &'a [u8]>,
}

impl<'a> Columns<'a> {
    pub(super) fn new(batches: impl Iterator<Item = (&'a Batch, &'a Digests)>) -> Self {
        let mut columns = Self::default();
        let mut places: HashMap<&RunKey, usize> = HashMap::new();
        for (batch, digests) in batches {
            columns.claims.insert(batch.partition, batch.epoch);
            for (w, write) in batch.writes.iter().enumerate() {
                let place = *places.entry(&write.row.key).or_insert_with(|| {
                    columns.runs.push(Run { first: write, last: &write.row });
                    columns.runs.len() - 1
                });
                columns.runs[place].last = &write.row;
                columns.add(write, place, &|entry| digests.get(&(w, entry)));
            }
        }
        columns
    }

    fn add(&mut self, write: &'a RunWrite, place: usize, digest: &dyn Fn(usize) -> Option<&'a Digest>) {
        // Counted from 1, and far fewer than 2^31: a group has a limit.
        let number = i32::try_from(place + 1).unwrap_or(i32::MAX);
        for (e, entry) in write.entries.iter().enumerate() {
            let digest = digest(e);
            if let Some(digest) = digest {
                self.blobs.insert(digest, &entry.payload);
            }
            self.entries.push((number, entry, digest));
        }
        if let Some(snapshot) = &write.snapshot {
            self.snapshots.insert((number, snapshot.seq), snapshot);
        }
    }

    /// Writes everything, or learns why not.
    pub(super) async fn write(&self, link: &mut Link, snapshots_kept: u32) -> Attempt<Facts> {
        let statement = self.claims_and_runs(link.query(APPEND));
        let statement = self.entries(self.labels(statement));
        let statement = self.snapshots_and_blobs(statement).bind(i64::from(snapshots_kept));
        let mut facts = Facts::default();
        for row in statement.fetch_all(link.connection()).await? {
            let (fault, place, actual): (i32, i32, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            self.learn(&mut facts, fault, usize::try_from(place).unwrap_or(usize::MAX), unsigned(actual));
        }
        Ok(facts)
    }

    fn learn(&self, facts: &mut Facts, fault: i32, place: usize, actual: u64) {
        if fault == 1 {
            facts.epochs.extend(self.claims.keys().nth(place).map(|partition| (*partition, actual)));
            return;
        }
        let found = if fault == 3 { Found::Partition(u32::try_from(actual).unwrap_or(u32::MAX)) } else { Found::Seq(actual) };
        facts.runs.extend(self.runs.get(place).map(|run| (run.last.key.clone(), found)));
    }

    fn first<T>(&self, value: impl Fn(&'a RunWrite) -> T) -> Vec<T> {
        self.runs.iter().map(|run| value(run.first)).collect()
    }

    fn last<T>(&self, value: impl Fn(&'a RunRow) -> T) -> Vec<T> {
        self.runs.iter().map(|run| value(run.last)).collect()
    }

    fn claims_and_runs(&self, statement: Statement) -> Statement {
        let (partitions, epochs): (Vec<i64>, Vec<i64>) = self.claims.iter().map(|(at, epoch)| (i64::from(*at), signed(*epoch))).unzip();
        statement
            .bind(partitions)
            .bind(epochs)
            .bind(self.last(|row| row.key.namespace.as_str()))
            .bind(self.last(|row| row.key.id.0))
            .bind(self.last(|row| i64::from(row.partition)))
            .bind(self.first(|write| signed(write.expected_seq)))
            .bind(self.last(|row| signed(row.seq)))
            .bind(self.last(|row| row.status as i16))
            .bind(self.last(|row| i64::from(row.priority)))
            .bind(self.first(|write| write.row.created_at.0))
            .bind(self.last(|row| row.updated_at.0))
            .bind(self.last(|row| row.ended_at.map(|at| at.0)))
            .bind(self.last(|row| row.wake_at.map(|at| at.0)))
            .bind(self.first(|write| write.row.parent.map(|id| id.0)))
            .bind(self.last(|row| some_text(&row.dead_queue)))
            .bind(self.first(|write| clean(&write.row.workflow)))
            .bind(self.last(|row| clean(&row.version)))
            .bind(self.last(|row| clean(&row.definition_hash)))
            .bind(self.last(|row| labels_text(&row.labels)))
            .bind(self.last(|row| some_text(&row.error_code)))
            .bind(self.last(|row| some_text(&row.error_message)))
    }

    fn labels(&self, statement: Statement) -> Statement {
        let (mut places, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (number, run) in (1_i32..).zip(&self.runs) {
            for (key, value) in &run.last.labels {
                places.push(number);
                keys.push(clean(key));
                values.push(indexed(value));
            }
        }
        statement.bind(places).bind(keys).bind(values)
    }

    fn entries(&self, statement: Statement) -> Statement {
        let all = &self.entries;
        statement
            .bind(all.iter().map(|(run, _, _)| *run).collect::<Vec<_>>())
            .bind(all.iter().map(|(_, entry, _)| signed(entry.seq)).collect::<Vec<_>>())
            .bind(all.iter().map(|(_, entry, _)| entry.at.0).collect::<Vec<_>>())
            .bind(all.iter().map(|(_, entry, _)| clean(&entry.kind)).collect::<Vec<_>>())
            .bind(all.iter().map(|(_, entry, _)| some_text(&entry.traceparent)).collect::<Vec<_>>())
            .bind(all.iter().map(|(_, entry, _)| some_bytes(&entry.event)).collect::<Vec<_>>())
            .bind(all.iter().map(|(_, entry, _)| some_bytes(&entry.changes)).collect::<Vec<_>>())
            .bind(all.iter().map(|(_, entry, blob)| some_bytes(&entry.payload).filter(|_| blob.is_none())).collect::<Vec<_>>())
            .bind(all.iter().map(|(_, _, blob)| blob.map(|digest| digest.as_slice())).collect::<Vec<_>>())
    }

    fn snapshots_and_blobs(&self, statement: Statement) -> Statement {
        statement
            .bind(self.snapshots.keys().map(|(run, _)| *run).collect::<Vec<_>>())
            .bind(self.snapshots.keys().map(|(_, seq)| signed(*seq)).collect::<Vec<_>>())
            .bind(self.snapshots.values().map(|snapshot| &snapshot.state[..]).collect::<Vec<_>>())
            .bind(self.blobs.keys().map(|digest| digest.as_slice()).collect::<Vec<_>>())
            .bind(self.blobs.values().copied().collect::<Vec<_>>())
    }
}
