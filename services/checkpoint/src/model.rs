//! What the journal stores and answers, free of wire types.

pub mod check;

use bytes::Bytes;
use std::{collections::BTreeMap, fmt};
use troupe_domain::{Namespace, RunId};

/// Microseconds since 1970 (UTC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

/// Names a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunKey {
    pub namespace: Namespace,
    pub id: RunId,
}

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {}", self.id)
    }
}

/// Where a run stands. The numbers are stored: they never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    Queued = 0,
    Running = 1,
    Waiting = 2,
    Paused = 3,
    Succeeded = 4,
    Failed = 5,
    Cancelled = 6,
}

impl Status {
    pub const ALL: [Self; 7] = [Self::Queued, Self::Running, Self::Waiting, Self::Paused, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// The status with a stored number.
    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as i64 == number)
    }

    pub fn is_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// The index row of a run. Empty texts mean "none".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    pub key: RunKey,
    pub partition: u32,
    pub workflow: String,
    pub version: String,
    pub definition_hash: String,
    pub status: Status,
    pub labels: BTreeMap<String, String>,
    pub created_at: Micros,
    pub updated_at: Micros,
    /// Set exactly when the status is an ended one.
    pub ended_at: Option<Micros>,
    /// The sequence number of the last entry.
    pub seq: u64,
    pub wake_at: Option<Micros>,
    pub parent: Option<RunId>,
    pub error_code: String,
    pub error_message: String,
    pub dead_queue: String,
    pub priority: u32,
}

/// One transition of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub seq: u64,
    pub at: Micros,
    pub kind: String,
    pub event: Bytes,
    pub payload: Bytes,
    pub changes: Bytes,
    pub traceparent: String,
}

/// The state of a run after the entry with this number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub seq: u64,
    pub state: Bytes,
}

/// The new entries of one run, and its row after them.
#[derive(Clone, Debug)]
pub struct RunWrite {
    pub row: RunRow,
    /// The run's last sequence number before this write; 0 for a new run.
    pub expected_seq: u64,
    pub entries: Vec<Entry>,
    pub snapshot: Option<Snapshot>,
}

/// What one owner of a partition writes in one transaction.
#[derive(Clone, Debug)]
pub struct Batch {
    pub partition: u32,
    pub epoch: u64,
    pub writes: Vec<RunWrite>,
}

impl Batch {
    /// Bytes of JSON in it, roughly what it costs to hold and write it.
    pub fn weight(&self) -> usize {
        let entry = |e: &Entry| e.event.len() + e.payload.len() + e.changes.len() + 64;
        let write = |w: &RunWrite| w.entries.iter().map(entry).sum::<usize>() + w.snapshot.as_ref().map_or(0, |s| s.state.len()) + 256;
        self.writes.iter().map(write).sum()
    }
}

/// A run as it is loaded: its newest row, a snapshot, and the entries after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedRun {
    pub row: RunRow,
    pub snapshot: Option<Snapshot>,
    pub entries: Vec<Entry>,
}

impl LoadedRun {
    /// Bytes of JSON in it.
    pub fn weight(&self) -> usize {
        let entry = |e: &Entry| e.event.len() + e.payload.len() + e.changes.len() + 64;
        self.entries.iter().map(entry).sum::<usize>() + self.snapshot.as_ref().map_or(0, |s| s.state.len()) + 256
    }
}

/// A run that wants to be woken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueRun {
    pub key: RunKey,
    pub wake_at: Micros,
}

/// Who owns a partition, until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub partition: u32,
    pub epoch: u64,
    /// Empty: nobody.
    pub owner: String,
    pub expires_at: Micros,
    /// Milliseconds left by the store's clock, rounded up; 0: it is free or has ended.
    pub remaining_ms: u64,
}

/// An executor's name, without its address: who comes back under the same name is the same executor.
pub fn name_of(owner: &str) -> &str {
    owner.split_once('@').map_or(owner, |(name, _)| name)
}

impl Lease {
    /// Whether somebody else than `owner` has it now.
    pub fn is_held_against(&self, owner: &str, now: Micros) -> bool {
        !self.owner.is_empty() && name_of(&self.owner) != name_of(owner) && self.expires_at > now
    }

    /// The lease as it is seen at a moment.
    #[must_use]
    pub fn seen_at(self, now: Micros) -> Self {
        let left = if self.owner.is_empty() { 0 } else { self.expires_at.0.saturating_sub(now.0).max(0) };
        Self { remaining_ms: left.unsigned_abs().div_ceil(1_000), ..self }
    }

    /// Whether the claim is to this lease and still counts.
    pub fn is_claimed_by(&self, owner: &str, claim: Claim) -> bool {
        self.owner == owner && self.partition == claim.partition && self.epoch == claim.epoch
    }
}

/// A claim to a partition: it counts as long as the epoch is the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub partition: u32,
    pub epoch: u64,
}

/// The answer to a renewal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renewal {
    pub held: Vec<Lease>,
    pub lost: Vec<u32>,
    /// The live executors, sorted; the caller is one of them.
    pub executors: Vec<String>,
    /// Every partition that was ever acquired, by number.
    pub leases: Vec<Lease>,
}

impl Renewal {
    /// The answer to claims, from the leases as they are after the renewal.
    pub fn of(owner: &str, claims: &[Claim], executors: Vec<String>, leases: Vec<Lease>) -> Self {
        let mut renewal = Self { executors, ..Self::default() };
        for claim in claims {
            match leases.iter().find(|lease| lease.is_claimed_by(owner, *claim)) {
                Some(lease) => renewal.held.push(lease.clone()),
                None => renewal.lost.push(claim.partition),
            }
        }
        renewal.leases = leases;
        renewal
    }
}

/// Which runs to list. Empty texts and lists mean "any".
#[derive(Clone, Debug)]
pub struct RunQuery {
    pub namespace: Namespace,
    pub workflow: String,
    pub statuses: Vec<Status>,
    pub labels: BTreeMap<String, String>,
    /// Created at or after.
    pub since: Option<Micros>,
    pub parent: Option<RunId>,
    pub dead_queue: String,
    /// From 1.
    pub limit: usize,
    /// The `next_cursor` of the page before; empty for the first page.
    pub cursor: String,
}

impl RunQuery {
    /// Every run of a namespace, the first page of 50.
    pub fn new(namespace: Namespace) -> Self {
        Self {
            namespace,
            workflow: String::new(),
            statuses: Vec::new(),
            labels: BTreeMap::new(),
            since: None,
            parent: None,
            dead_queue: String::new(),
            limit: 50,
            cursor: String::new(),
        }
    }
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    pub items: Vec<T>,
    /// Empty when this was the last page.
    pub next_cursor: String,
}

/// An immutable workflow definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    pub namespace: Namespace,
    pub name: String,
    pub version: String,
    pub hash: String,
    pub body: Bytes,
    pub source: String,
    pub created_at: Micros,
}

/// Which definition to get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefinitionKey {
    Hash(String),
    Version(String, String),
    /// The version of this name that was stored last.
    Newest(String),
}

impl fmt::Display for DefinitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hash(hash) => write!(f, "the definition with hash {hash}"),
            Self::Version(name, version) => write!(f, "version {version} of workflow {name}"),
            Self::Newest(name) => write!(f, "workflow {name}"),
        }
    }
}

/// Which ended runs may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Runs that ended before this moment go.
    pub ended_before: Option<Micros>,
    /// Of each workflow in each namespace only so many ended runs stay, the last ones.
    pub keep: Option<u64>,
}

/// What a removal removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub runs: u64,
    pub blobs: u64,
}
