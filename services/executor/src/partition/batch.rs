//! What one commit carries, and what waits for it.

use super::cache::Cache;
use crate::{
    appender::weight,
    message::{Done, Live, Reply, Scope},
    metrics::BATCH_EVENTS,
    run::{Applied, Run},
    trace,
};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::oneshot;
use tracing::Span;
use troupe_domain::{Error, RunId};
use troupe_engine::{Command, Time};
use troupe_proto::{checkpoint::v1 as pb, executor::v1 as wire};

/// Snapshots in one batch; what does not fit is written with the run's next entry.
const SNAPSHOT_BYTES: usize = 24 << 20;

/// A run as it is shown; `None`: it is not in memory.
type View = Option<Box<wire::Run>>;

#[derive(Default)]
pub(super) struct Batch {
    writes: Vec<Write>,
    index: HashMap<RunId, usize>,
    bytes: usize,
    pub(super) commands: Vec<(Arc<Scope>, Time, Vec<Command>)>,
    /// Runs touched for the first time while open runs are scanned: everything that they have pending is issued.
    pub(super) issue_pending: Vec<RunId>,
    pub(super) replies: Vec<(Reply, RunId, Done)>,
    pub(super) failures: Vec<(Reply, Error)>,
    pub(super) views: Vec<(oneshot::Sender<View>, View)>,
    pub(super) live: Vec<(RunId, Live)>,
    /// Ended with the batch.
    spans: Vec<Span>,
}

struct Write {
    run: RunId,
    expected_seq: u64,
    entries: Vec<pb::JournalEntry>,
    /// A fork begins with a state that no entry tells.
    snapshot: bool,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.failures.is_empty() && self.views.is_empty() && self.writes.is_empty()
    }

    /// Bytes of entries so far.
    pub(super) fn weight(&self) -> usize {
        self.bytes
    }

    /// Takes an applied event with all that follows from it.
    pub(super) fn add(&mut self, run: &Run, applied: Applied, snapshot: bool) {
        let Applied { entry, at, transition } = applied;
        let id = run.key.run;
        self.bytes += weight(&entry);
        let span = trace::entry(&run.scope, &entry);
        if !span.is_disabled() {
            self.spans.push(span);
        }
        let live = Live { seq: entry.seq, at, changes: transition.changes, ended: run.has_ended() };
        self.live.push((id, live));
        if !transition.commands.is_empty() {
            self.commands.push((Arc::clone(&run.scope), at, transition.commands));
        }
        let index = *self.index.entry(id).or_insert_with(|| {
            self.writes.push(Write { run: id, expected_seq: entry.seq - 1, entries: Vec::with_capacity(1), snapshot });
            self.writes.len() - 1
        });
        self.writes[index].entries.push(entry);
    }

    /// Takes a run's events back out: nothing of them is or was written, and those who wait for them are told why.
    pub(super) fn discard(&mut self, run: RunId, error: &Error) {
        if let Some(index) = self.index.remove(&run) {
            self.writes[index].entries.clear();
        }
        self.commands.retain(|(scope, ..)| scope.key.run != run);
        self.live.retain(|(id, _)| *id != run);
        self.issue_pending.retain(|id| *id != run);
        let id = run.to_string();
        self.views.retain(|(_, view)| view.as_ref().is_none_or(|view| view.run_id != id));
        for (reply, id, done) in std::mem::take(&mut self.replies) {
            match id == run {
                true => reply.failed(error.clone()),
                false => self.replies.push((reply, id, done)),
            }
        }
    }

    /// The runs that this batch changes.
    pub(super) fn written(&self) -> Vec<RunId> {
        self.writes.iter().map(|write| write.run).collect()
    }

    /// The append: each run's entries with its row, and its snapshot where one is due.
    pub(super) fn request(&mut self, partition: u32, epoch: u64, runs: &mut Cache) -> pb::AppendBatchRequest {
        let mut writes = Vec::with_capacity(self.writes.len());
        let (mut entries, mut snapshots) = (0_usize, 0_usize);
        for write in self.writes.iter_mut().filter(|write| !write.entries.is_empty()) {
            let Some(run) = runs.get_mut(write.run) else { continue };
            run.refresh();
            let snapshot = if snapshots < SNAPSHOT_BYTES || write.snapshot { run.snapshot(write.snapshot) } else { None };
            snapshots += snapshot.as_ref().map_or(0, |snapshot| snapshot.state.len());
            entries += write.entries.len();
            writes.push(pb::RunWrite {
                summary: Some(run.summary.clone()),
                expected_seq: write.expected_seq,
                entries: std::mem::take(&mut write.entries),
                snapshot,
            });
        }
        if !writes.is_empty() {
            metrics::histogram!(BATCH_EVENTS).record(f64::from(u32::try_from(entries).unwrap_or(u32::MAX)));
        }
        pb::AppendBatchRequest { partition, epoch, writes }
    }
}
