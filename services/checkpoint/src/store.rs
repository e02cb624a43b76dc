//! The journal: what every backend promises. One contract suite (`tests/store_contract`) runs against all of them.

pub mod blob;
pub mod cursor;
pub mod memory;
pub mod postgres;
pub mod sqlite;

use crate::{
    error::Result,
    model::{
        Batch, Claim, Definition, DefinitionKey, DueRun, Entry, Lease, Listing, LoadedRun, Pruned, Renewal, Retention, RunKey, RunQuery,
        RunRow,
    },
};
use async_trait::async_trait;
use futures::future::BoxFuture;
use std::time::Duration;
use troupe_domain::{Namespace, RunId};

/// Ends when a batch is durable or refused.
pub type Committed = BoxFuture<'static, Result<()>>;

/// Bytes after which a page of open runs ends (it has one run at least). Small enough for one large run to come on top within a message.
pub const OPEN_RUNS_BYTES: usize = 8 << 20;
/// Bytes after which an answer of entries ends (it has one entry at least).
pub const ENTRIES_BYTES: usize = 8 << 20;
/// The most bytes that one answer with several runs may have.
pub const LOAD_BYTES: usize = 48 << 20;

/// The ordered, durable record of every run. An answer shows everything that was acknowledged before the question.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Takes over those of the partitions that are free, expired or the owner's own by its name (all of them with `force`): their epoch
    /// grows by one.
    /// Answers the leases that were granted, in the order asked for.
    async fn acquire_partitions(&self, owner: String, partitions: Vec<u32>, lease: Duration, force: bool) -> Result<Vec<Lease>>;

    /// Extends the leases whose epoch is still the newest and whose owner is this one, also when they had expired meanwhile, and the
    /// owner's membership among the live executors.
    async fn renew_partitions(&self, owner: String, claims: Vec<Claim>, lease: Duration) -> Result<Renewal>;

    /// Gives partitions back; those that are no longer held stay as they are. With `leave` the owner is no live executor any more.
    async fn release_partitions(&self, owner: String, claims: Vec<Claim>, leave: bool) -> Result<()>;

    /// Every partition that was ever acquired, by number.
    async fn list_partitions(&self) -> Result<Vec<Lease>>;

    /// Queues the batch at once: batches of one caller are applied in the order of the calls, whether or not the futures are polled.
    /// All or nothing; durable when the future ends with `Ok`.
    fn append(&self, batch: Batch) -> Committed;

    /// The newest snapshot of each run not after `at_seq` (0: the newest of all) and the entries after it up to `at_seq`. Runs that do
    /// not exist are absent. Refuses answers over [`LOAD_BYTES`] when more than one run was asked for.
    async fn load_runs(&self, keys: Vec<RunKey>, at_seq: u64) -> Result<Vec<LoadedRun>>;

    /// Runs of a partition that have not ended, in the order of their ids, after the given one. A page ends early at [`OPEN_RUNS_BYTES`];
    /// only an empty one says that there are no more.
    async fn load_open_runs(&self, partition: u32, limit: usize, after: Option<RunId>) -> Result<Vec<LoadedRun>>;

    /// Runs of a partition to be woken at or before a moment, soonest first.
    async fn list_due(&self, partition: u32, before: crate::model::Micros, limit: usize) -> Result<Vec<DueRun>>;

    /// Rows of runs, newest first. Pages are stable while runs are added.
    async fn list_runs(&self, query: RunQuery) -> Result<Listing<RunRow>>;

    /// Entries from a sequence number on, in order. Ends early at [`ENTRIES_BYTES`]; only an empty answer says that there are no more.
    /// `NOT_FOUND` when the run does not exist.
    async fn read_entries(&self, key: RunKey, from_seq: u64, limit: usize) -> Result<Vec<Entry>>;

    /// Stores a definition. True: it is new; false: it was there already, and the stored one is answered. `CONFLICT` when the name and
    /// version exist with another hash.
    async fn put_definition(&self, definition: Definition) -> Result<(Definition, bool)>;

    /// `NOT_FOUND` when there is none.
    async fn get_definition(&self, namespace: Namespace, key: DefinitionKey) -> Result<Definition>;

    /// With a name: all its versions, newest first. Without: the newest version of each, by name. Without bodies and sources.
    async fn list_definitions(&self, namespace: Namespace, name: String, limit: usize, cursor: String) -> Result<Listing<Definition>>;

    /// Removes ended runs that the rules do not keep, in small steps between which appends go on.
    async fn prune(&self, rules: Retention) -> Result<Pruned>;

    /// Ends when everything that was accepted before has been committed or refused.
    async fn flush(&self) -> Result<()>;

    /// `Err` says what is wrong.
    async fn probe(&self) -> Result<()>;
}
