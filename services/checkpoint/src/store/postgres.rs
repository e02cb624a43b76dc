//! The journal in a PostgreSQL database, for many replicas of the service. A few tasks write, each for its share of the partitions: each
//! commits whatever waits for it in one transaction, and their commits overlap. Questions take connections from a pool.

mod columns;
mod definitions;
mod group;
mod list;
mod load;
mod migrate;
mod partitions;
mod prune;
mod rows;
mod writer;

use super::{Committed, Journal, blob};
use crate::{
    clock::Clock,
    config::PostgresConfig,
    error::Result,
    model::{
        Batch, Claim, Definition, DefinitionKey, DueRun, Entry, Lease, Listing, LoadedRun, Micros, Pruned, Renewal, Retention, RunKey,
        RunQuery, RunRow, check,
    },
};
use async_trait::async_trait;
use futures::FutureExt as _;
use std::{sync::Arc, time::Duration};
use troupe_domain::{Namespace, RunId};
use troupe_postgres::{Db, fault, link};
use troupe_service_kit::Tasks;
use writer::Writers;

/// For leases, besides those of the settings.
const LEASE_CONNECTIONS: u32 = 2;

/// A journal in a database. Clones share it.
#[derive(Clone)]
pub struct Postgres {
    db: Arc<Db>,
    /// Leases have connections of their own: an executor whose renewal waits behind loads and lists loses its partitions, and whoever takes
    /// them over loads their runs again, which is more of the load that made it wait.
    leases: Arc<Db>,
    writers: Arc<Writers>,
    clock: Clock,
}

impl Postgres {
    /// Connects, brings the schema up to date (one process at a time, wherever they are) and starts the writers on `tasks`. Refuses a
    /// schema that a newer version made. Leases go by the database's clock unless `clock` is one that a test turns.
    pub async fn open(config: &PostgresConfig, snapshots_kept: u32, clock: Clock, tasks: &Tasks) -> anyhow::Result<Self> {
        let db = Arc::new(Db::open(config, "checkpoint").await?);
        troupe_postgres::migrate::run(&db, migrate::SCHEMA).await?;
        let leases = Arc::new(Db::open_few(config, "checkpoint", LEASE_CONNECTIONS).await?);
        let writers = Arc::new(Writers::start(&db, config.writers, snapshots_kept, tasks));
        Ok(Self { db, leases, writers, clock })
    }
}

#[async_trait]
impl Journal for Postgres {
    async fn acquire_partitions(&self, owner: String, partitions: Vec<u32>, lease: Duration, force: bool) -> Result<Vec<Lease>> {
        // It waits for appends that are on their way, and renewals must not wait with it.
        let mut link = self.db.link().await?;
        let work = partitions::acquire(&mut link, &owner, &partitions, lease, force, self.clock.turned());
        let outcome = self.db.limit(work).await;
        Ok(link.end(outcome).await?)
    }

    async fn renew_partitions(&self, owner: String, claims: Vec<Claim>, lease: Duration) -> Result<Renewal> {
        let mut link = self.leases.link().await?;
        let outcome = self.leases.limit(partitions::renew(&mut link, &owner, &claims, lease, self.clock.turned())).await;
        Ok(link.end(outcome).await?)
    }

    async fn release_partitions(&self, owner: String, claims: Vec<Claim>, leave: bool) -> Result<()> {
        let mut link = self.leases.link().await?;
        let outcome = self.leases.limit(partitions::release(&mut link, &owner, &claims, leave)).await;
        Ok(link.end(outcome).await?)
    }

    async fn list_partitions(&self) -> Result<Vec<Lease>> {
        let mut link = self.leases.link().await?;
        let outcome = self.leases.limit(partitions::list(&mut link, self.clock.turned())).await;
        Ok(link.end(outcome).await?)
    }

    fn append(&self, batch: Batch) -> Committed {
        if let Err(error) = check::batch(&batch) {
            return futures::future::ready(Err(error.into())).boxed();
        }
        let digests = blob::digests(&batch);
        self.writers.submit(batch, digests).boxed()
    }

    async fn load_runs(&self, keys: Vec<RunKey>, at_seq: u64) -> Result<Vec<LoadedRun>> {
        let mut link = self.db.link().await?;
        let outcome = self.db.limit(load::runs(&mut link, &keys, at_seq)).await;
        Ok(link.end(outcome).await?)
    }

    async fn load_open_runs(&self, partition: u32, limit: usize, after: Option<RunId>) -> Result<Vec<LoadedRun>> {
        let mut link = self.db.link().await?;
        let outcome = self.db.limit(load::open_runs(&mut link, partition, limit, after)).await;
        Ok(link.end(outcome).await?)
    }

    async fn list_due(&self, partition: u32, before: Micros, limit: usize) -> Result<Vec<DueRun>> {
        let mut link = self.db.link().await?;
        let outcome = self.db.limit(load::due(&mut link, partition, before, limit)).await;
        Ok(link.end(outcome).await?)
    }

    async fn list_runs(&self, query: RunQuery) -> Result<Listing<RunRow>> {
        let mut link = self.db.link().await?;
        let outcome = self.db.limit(list::runs(&mut link, &query)).await;
        Ok(link.end(outcome).await?)
    }

    async fn read_entries(&self, key: RunKey, from_seq: u64, limit: usize) -> Result<Vec<Entry>> {
        let mut link = self.db.link().await?;
        let outcome = self.db.limit(load::entries(&mut link, &key, from_seq, limit)).await;
        Ok(link.end(outcome).await?)
    }

    async fn put_definition(&self, definition: Definition) -> Result<(Definition, bool)> {
        check::definition(&definition)?;
        let mut link = self.db.link().await?;
        let outcome = self.db.limit(definitions::put(&mut link, &definition)).await;
        Ok(link.end(outcome).await?)
    }

    async fn get_definition(&self, namespace: Namespace, key: DefinitionKey) -> Result<Definition> {
        let mut link = self.db.link().await?;
        let outcome = self.db.limit(definitions::get(&mut link, &namespace, &key)).await;
        Ok(link.end(outcome).await?)
    }

    async fn list_definitions(&self, namespace: Namespace, name: String, limit: usize, cursor: String) -> Result<Listing<Definition>> {
        let mut link = self.db.link().await?;
        let outcome = self.db.limit(definitions::list(&mut link, &namespace, &name, limit, &cursor)).await;
        Ok(link.end(outcome).await?)
    }

    async fn prune(&self, rules: Retention) -> Result<Pruned> {
        prune::run(&self.db, rules).await
    }

    async fn flush(&self) -> Result<()> {
        self.writers.flush().await
    }

    async fn probe(&self) -> Result<()> {
        let mut link = self.db.link().await?;
        let outcome = self.db.limit(troupe_postgres::migrate::probe(&mut link, migrate::SCHEMA, self.writers.is_failing())).await;
        link.end(outcome).await?;
        self.writers.recovered();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
