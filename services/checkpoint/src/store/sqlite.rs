//! The journal in one SQLite file. One thread writes and commits whatever waits in one transaction; readers have connections of their own.

mod append;
mod connection;
mod definitions;
mod list;
mod load;
mod migrate;
mod partitions;
mod prune;
mod readers;
mod rows;
mod writer;

use super::{Committed, Journal, blob};
use crate::{
    clock::Clock,
    config::Config,
    error::Result,
    model::{
        Batch, Claim, Definition, DefinitionKey, DueRun, Entry, Lease, Listing, LoadedRun, Micros, Pruned, Renewal, Retention, RunKey,
        RunQuery, RunRow, check,
    },
};
use async_trait::async_trait;
use futures::FutureExt as _;
use readers::Readers;
use std::{path::Path, sync::Arc, time::Duration};
use troupe_domain::{Namespace, RunId};
use writer::Writer;

/// A journal in a file. Clones share it; its thread ends with the last one.
#[derive(Clone)]
pub struct Sqlite {
    writer: Writer,
    readers: Arc<Readers>,
    clock: Clock,
}

impl Sqlite {
    /// Opens or creates the file and brings its schema up to date. Blocks; refuses a file that a newer version wrote.
    pub fn open(path: &Path, config: &Config, clock: Clock) -> anyhow::Result<Self> {
        let connection = connection::open_writer(path, config)?;
        let writer = Writer::start(connection, config.snapshots_kept)?;
        let readers = (0..config.readers.max(1)).map(|_| connection::open_reader(path, config)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { writer, readers: Arc::new(Readers::new(readers)), clock })
    }
}

#[async_trait]
impl Journal for Sqlite {
    async fn acquire_partitions(&self, owner: String, partitions: Vec<u32>, lease: Duration, force: bool) -> Result<Vec<Lease>> {
        let now = self.clock.now();
        let until = partitions::until(now, lease);
        self.writer.submit(0, 0, move |session| partitions::acquire(session, &owner, &partitions, now, until, force)).await
    }

    async fn renew_partitions(&self, owner: String, claims: Vec<Claim>, lease: Duration) -> Result<Renewal> {
        let now = self.clock.now();
        let until = partitions::until(now, lease);
        self.writer.submit(0, 0, move |session| partitions::renew(session, &owner, &claims, now, until)).await
    }

    async fn release_partitions(&self, owner: String, claims: Vec<Claim>, leave: bool) -> Result<()> {
        self.writer.submit(0, 0, move |session| partitions::release(session, &owner, &claims, leave)).await
    }

    async fn list_partitions(&self) -> Result<Vec<Lease>> {
        let now = self.clock.now();
        self.readers.read(move |connection| partitions::list(connection, now)).await
    }

    fn append(&self, batch: Batch) -> Committed {
        if let Err(error) = check::batch(&batch) {
            return futures::future::ready(Err(error.into())).boxed();
        }
        let (weight, writes, digests) = (batch.weight(), batch.writes.len(), blob::digests(&batch));
        self.writer.submit(weight, writes, move |session| append::append(session, &batch, &digests)).boxed()
    }

    async fn load_runs(&self, keys: Vec<RunKey>, at_seq: u64) -> Result<Vec<LoadedRun>> {
        self.readers.read(move |connection| load::runs(connection, &keys, at_seq)).await
    }

    async fn load_open_runs(&self, partition: u32, limit: usize, after: Option<RunId>) -> Result<Vec<LoadedRun>> {
        self.readers.read(move |connection| load::open_runs(connection, partition, limit, after)).await
    }

    async fn list_due(&self, partition: u32, before: Micros, limit: usize) -> Result<Vec<DueRun>> {
        self.readers.read(move |connection| load::due(connection, partition, before, limit)).await
    }

    async fn list_runs(&self, query: RunQuery) -> Result<Listing<RunRow>> {
        self.readers.read(move |connection| list::runs(connection, &query)).await
    }

    async fn read_entries(&self, key: RunKey, from_seq: u64, limit: usize) -> Result<Vec<Entry>> {
        self.readers.read(move |connection| load::entries(connection, &key, from_seq, limit)).await
    }

    async fn put_definition(&self, definition: Definition) -> Result<(Definition, bool)> {
        check::definition(&definition)?;
        let weight = definition.body.len() + definition.source.len();
        self.writer.submit(weight, 0, move |session| definitions::put(session, &definition)).await
    }

    async fn get_definition(&self, namespace: Namespace, key: DefinitionKey) -> Result<Definition> {
        self.readers.read(move |connection| definitions::get(connection, &namespace, &key)).await
    }

    async fn list_definitions(&self, namespace: Namespace, name: String, limit: usize, cursor: String) -> Result<Listing<Definition>> {
        self.readers.read(move |connection| definitions::list(connection, &namespace, &name, limit, &cursor)).await
    }

    async fn prune(&self, rules: Retention) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for group in self.readers.read(prune::groups).await? {
            loop {
                let name = group.clone();
                let candidates = self.readers.read(move |connection| prune::candidates(connection, &name, rules)).await?;
                if candidates.is_empty() {
                    break;
                }
                let removed = self.writer.submit(0, 0, move |session| prune::remove(session, &candidates)).await?;
                pruned.runs += removed;
                if removed == 0 {
                    // All of them were reopened meanwhile: the next call looks again.
                    break;
                }
            }
        }
        loop {
            let swept = self.writer.submit(0, 0, prune::sweep).await?;
            pruned.blobs += swept.blobs;
            if swept.done {
                return Ok(pruned);
            }
        }
    }

    async fn flush(&self) -> Result<()> {
        self.writer.submit(0, 0, |_| Ok(())).await
    }

    async fn probe(&self) -> Result<()> {
        self.readers.read(|connection| Ok(connection.prepare_cached("SELECT 1")?.query_row([], |_| Ok(()))?)).await?;
        if self.writer.is_failing() {
            // Writes the header page: succeeds again as soon as the disk takes writes.
            self.writer.submit(0, 0, |session| Ok(migrate::stamp(&session.connection)?)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
