//! The accepted batches of a transaction as the arguments of a function of the database: one round trip, however many runs. One run, the most
//! frequent case by far, goes to `journal.append_one` as values; everything else to `journal.append` as arrays.

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
use call::{Call, Shape};
use sqlx::Row as _;
use std::collections::{BTreeMap, HashMap};

mod call;

const APPEND: &str = "SELECT fault, place, actual FROM journal.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
    $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39)";
const APPEND_ONE: &str = "SELECT journal.append_one($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, \
    $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40)";

/// All writes of one run: the first says what the run must look like before, the last what it looks like after.
struct Run<'a> {
    first: &'a RunWrite,
    last: &'a RunRow,
}

/// An entry with the place of its run, from 1.
struct Row<'a> {
    run: i32,
    entry: &'a Entry,
    blob: Option<&'a Digest>,
}

#[derive(Default)]
pub(super) struct Columns<'a> {
    claims: BTreeMap<u32, u64>,
    runs: Vec<Run<'a>>,
    entries: Vec<Row<'a>>,
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
            self.entries.push(Row { run: number, entry, blob: digest });
        }
        if let Some(snapshot) = &write.snapshot {
            self.snapshots.insert((number, snapshot.seq), snapshot);
        }
    }

    /// Writes everything, or learns why not.
    pub(super) async fn write(&self, link: &mut Link, snapshots_kept: u32) -> Attempt<Facts> {
        let mut facts = Facts::default();
        if self.is_one_run() {
            let statement = self.one_run(Call::new(link.query(APPEND_ONE))).value(i64::from(snapshots_kept));
            let fault: Option<Vec<i64>> = statement.fetch_one(link.connection()).await?.try_get(0)?;
            match fault.as_deref() {
                None => {}
                Some([fault, actual]) => self.learn(&mut facts, *fault, 0, unsigned(*actual)),
                Some(_) => return Err(sqlx::Error::Decode("a fault is two numbers".into()).into()),
            }
            return Ok(facts);
        }
        let statement = self.many_runs(Call::new(link.query(APPEND))).value(i64::from(snapshots_kept));
        for row in statement.fetch_all(link.connection()).await? {
            let (fault, place, actual): (i32, i32, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            self.learn(&mut facts, fault.into(), usize::try_from(place).unwrap_or(usize::MAX), unsigned(actual));
        }
        Ok(facts)
    }

    /// Whether `journal.append_one` can write it: that has no large payloads, and an entry at least.
    fn is_one_run(&self) -> bool {
        let Self { claims, runs, entries, snapshots, blobs } = self;
        claims.len() == 1 && runs.len() == 1 && !entries.is_empty() && snapshots.len() <= 1 && blobs.is_empty()
    }

    fn learn(&self, facts: &mut Facts, fault: i64, place: usize, actual: u64) {
        if fault == 1 {
            facts.epochs.extend(self.claims.keys().nth(place).map(|partition| (*partition, actual)));
            return;
        }
        let found = if fault == 3 { Found::Partition(u32::try_from(actual).unwrap_or(u32::MAX)) } else { Found::Seq(actual) };
        facts.runs.extend(self.runs.get(place).map(|run| (run.last.key.clone(), found)));
    }

    fn one_run(&self, call: Call) -> Call {
        let (first, more) = self.entries.split_at(1.min(self.entries.len()));
        let call = self.labels(self.claims_and_runs(call.shaped(Shape::Value)).shaped(Shape::Array));
        let call = entries(call.shaped(Shape::Value), first);
        let call = entries(call.shaped(Shape::Array), more);
        self.snapshots(call.shaped(Shape::Value))
    }

    fn many_runs(&self, call: Call) -> Call {
        let places: Vec<i32> = (1_i32..).zip(&self.runs).flat_map(|(place, run)| run.last.labels.iter().map(move |_| place)).collect();
        let snapshots: Vec<i32> = self.snapshots.keys().map(|(run, _)| *run).collect();
        let blobs: Vec<_> = self.blobs.iter().collect();
        let call = self.claims_and_runs(call).column(&places, |place| *place);
        let call = self.labels(call).column(&self.entries, |row| row.run);
        let call = entries(call, &self.entries).column(&self.entries, |row| row.blob.map(|digest| digest.as_slice()));
        let call = self.snapshots(call.column(&snapshots, |run| *run));
        call.column(&blobs, |(digest, _)| digest.as_slice()).column(&blobs, |(_, body)| **body)
    }

    fn claims_and_runs(&self, call: Call) -> Call {
        let claims: Vec<_> = self.claims.iter().collect();
        let runs = &self.runs;
        call.column(&claims, |(partition, _)| i64::from(**partition))
            .column(&claims, |(_, epoch)| signed(**epoch))
            .column(runs, |run| run.last.key.namespace.as_str())
            .column(runs, |run| run.last.key.id.0)
            .column(runs, |run| i64::from(run.last.partition))
            .column(runs, |run| signed(run.first.expected_seq))
            .column(runs, |run| signed(run.last.seq))
            .column(runs, |run| run.last.status as i16)
            .column(runs, |run| i64::from(run.last.priority))
            .column(runs, |run| run.first.row.created_at.0)
            .column(runs, |run| run.last.updated_at.0)
            .column(runs, |run| run.last.ended_at.map(|at| at.0))
            .column(runs, |run| run.last.wake_at.map(|at| at.0))
            .column(runs, |run| run.first.row.parent.map(|id| id.0))
            .column(runs, |run| some_text(&run.last.dead_queue))
            .column(runs, |run| clean(&run.first.row.workflow))
            .column(runs, |run| clean(&run.last.version))
            .column(runs, |run| clean(&run.last.definition_hash))
            .column(runs, |run| labels_text(&run.last.labels))
            .column(runs, |run| some_text(&run.last.error_code))
            .column(runs, |run| some_text(&run.last.error_message))
    }

    fn labels(&self, call: Call) -> Call {
        let labels: Vec<_> = self.runs.iter().flat_map(|run| &run.last.labels).collect();
        call.column(&labels, |(key, _)| clean(key)).column(&labels, |(_, value)| indexed(value))
    }

    fn snapshots(&self, call: Call) -> Call {
        let snapshots: Vec<_> = self.snapshots.values().collect();
        call.column(&snapshots, |snapshot| signed(snapshot.seq)).column(&snapshots, |snapshot| &snapshot.state[..])
    }
}

fn entries(call: Call, rows: &[Row<'_>]) -> Call {
    call.column(rows, |row| signed(row.entry.seq))
        .column(rows, |row| row.entry.at.0)
        .column(rows, |row| clean(&row.entry.kind))
        .column(rows, |row| some_text(&row.entry.traceparent))
        .column(rows, |row| some_bytes(&row.entry.event))
        .column(rows, |row| some_bytes(&row.entry.changes))
        .column(rows, |row| some_bytes(&row.entry.payload).filter(|_| row.blob.is_none()))
}
