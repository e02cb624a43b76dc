//! Definitions, standings and schedulers' reports in a PostgreSQL database, for many replicas of the service. Every change has a number, so
//! that replicas can ask for what is new to them.

pub mod reports;
mod rows;

use super::{Put, Store};
use crate::agent::{Active, Definition, Key, Standing, Time};
use async_trait::async_trait;
use rows::{active, agent_columns, capabilities, definition, key, standing};
use sqlx::Row as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use troupe_domain::Error;
use troupe_postgres::{Abort, Attempt, Config, Db, Link, Schema, migrate};

const SCHEMA: Schema = Schema { name: "registry", migrations: &[include_str!("../../migrations/postgres/0001_initial.sql")] };

/// Changes in one answer; more come with the next.
const CHANGES: u32 = 1000;

const ACTIVE: &str = concat!(
    "SELECT ",
    agent_columns!(),
    ", a.created_at, a.updated_at FROM registry.agents a
     JOIN registry.versions v ON v.namespace = a.namespace AND v.name = a.name AND v.version = a.active_version"
);
const ACTIVE_OF: &str = concat!(
    "SELECT ",
    agent_columns!(),
    ", a.created_at, a.updated_at FROM unnest($1::text[], $2::text[]) k(namespace, name)
     JOIN registry.agents a ON a.namespace = k.namespace AND a.name = k.name
     JOIN registry.versions v ON v.namespace = a.namespace AND v.name = a.name AND v.version = a.active_version"
);
const STANDINGS: &str = "SELECT s.namespace, s.name, s.state, s.reason, s.updated_at FROM registry.standings s";
const STANDINGS_OF: &str =
    "SELECT s.namespace, s.name, s.state, s.reason, s.updated_at FROM unnest($1::text[], $2::text[]) k(namespace, name)
     JOIN registry.standings s ON s.namespace = k.namespace AND s.name = k.name";
const VERSION: &str =
    concat!("SELECT ", agent_columns!(), ", v.source FROM registry.versions v WHERE v.namespace = $1 AND v.name = $2 AND v.version = $3");
const CHANGED: &str = "SELECT h.revision, c.revision, c.namespace, c.name, c.scheduler
     FROM registry.head h LEFT JOIN registry.changes c ON c.revision > $1 ORDER BY c.revision LIMIT $2";

/// See the module. Clones share it.
#[derive(Clone, Debug)]
pub struct PostgresStore(Arc<Db>);

/// What is new since a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Too much: everything has to be read anew.
    Missed,
    These {
        /// Everything up to here was told.
        revision: u64,
        agents: BTreeSet<Key>,
        schedulers: BTreeSet<String>,
        /// There are more.
        more: bool,
    },
}

/// Definitions in force and standings.
pub type Agents = (Vec<Active>, Vec<(Key, Standing)>);

impl PostgresStore {
    /// Connects and brings the schema up to date. Refuses a schema that a newer Troupe made.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let db = Db::open(config, "registry").await?;
        migrate::run(&db, SCHEMA).await?;
        Ok(Self(Arc::new(db)))
    }

    /// The number of the newest change.
    pub async fn revision(&self) -> Result<u64, Error> {
        Ok(self.0.work(false, |mut link| async move { (revision(&mut link).await, link) }).await?)
    }

    /// What changed after a revision.
    pub async fn changes(&self, since: u64) -> Result<Changes, Error> {
        Ok(self.0.work(false, |mut link| async move { (changes(&mut link, since).await, link) }).await?)
    }

    /// How these agents are now; those that are gone are in neither list.
    pub async fn agents(&self, keys: &BTreeSet<Key>) -> Result<Agents, Error> {
        Ok(self.0.work(false, |mut link| async move { (agents(&mut link, keys).await, link) }).await?)
    }
}

async fn revision(link: &mut Link) -> Attempt<u64> {
    let row = link.query("SELECT revision FROM registry.head").fetch_one(link.connection()).await?;
    Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
}

async fn agents(link: &mut Link, keys: &BTreeSet<Key>) -> Attempt<Agents> {
    let (namespaces, names): (Vec<&str>, Vec<&str>) = keys.iter().map(|key| (key.namespace.as_str(), key.name.as_str())).unzip();
    let rows = link.query(ACTIVE_OF).bind(&namespaces).bind(&names).fetch_all(link.connection()).await?;
    let agents = rows.iter().map(active).collect::<Attempt<_>>()?;
    let rows = link.query(STANDINGS_OF).bind(&namespaces).bind(&names).fetch_all(link.connection()).await?;
    Ok((agents, rows.iter().map(standing).collect::<Attempt<_>>()?))
}

async fn load(link: &mut Link) -> Attempt<Agents> {
    let agents = link.query(ACTIVE).fetch_all(link.connection()).await?.iter().map(active).collect::<Attempt<_>>()?;
    let standings = link.query(STANDINGS).fetch_all(link.connection()).await?.iter().map(standing).collect::<Attempt<_>>()?;
    Ok((agents, standings))
}

async fn version(link: &mut Link, of: &Key, version: &str) -> Attempt<Option<Definition>> {
    let query = link.query(VERSION).bind(&of.namespace).bind(&of.name).bind(version);
    let Some(row) = query.fetch_optional(link.connection()).await? else { return Ok(None) };
    Ok(Some(Definition { source: row.try_get(7)?, ..definition(&row)? }))
}

async fn changes(link: &mut Link, since: u64) -> Attempt<Changes> {
    let query = link.query(CHANGED).bind(since.cast_signed()).bind(i64::from(CHANGES));
    let rows = query.fetch_all(link.connection()).await?;
    let (mut revision, mut head) = (since, since);
    let (mut agents, mut schedulers) = (BTreeSet::new(), BTreeSet::new());
    for row in &rows {
        head = row.try_get::<i64, _>(0)?.unsigned_abs();
        let Some(number) = row.try_get::<Option<i64>, _>(1)? else { break };
        if number.unsigned_abs() != revision + 1 {
            return Ok(Changes::Missed);
        }
        revision += 1;
        match row.try_get::<Option<String>, _>(4)? {
            Some(scheduler) => _ = schedulers.insert(scheduler),
            None => _ = agents.insert(key(row, 2)?),
        }
    }
    let more = rows.len() == CHANGES as usize;
    // Smaller than what was seen: the database was put back to an older state.
    if head < since || (revision < head && !more) {
        return Ok(Changes::Missed);
    }
    Ok(Changes::These { revision, agents, schedulers, more })
}

async fn put(link: &mut Link, new: &Definition, now: Time, keep: usize) -> Attempt<Put> {
    link.transaction().await?;
    let of = &new.key;
    let insert = "INSERT INTO registry.versions (namespace, name, version, hash, kind, capabilities, spec, source)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (namespace, name, version) DO NOTHING";
    let query = link.query(insert).bind(&of.namespace).bind(&of.name).bind(&new.version).bind(&new.hash).bind(&new.kind);
    let query = query.bind(capabilities(new)?).bind(new.spec.as_str()).bind(&new.source);
    let created = query.execute(link.connection()).await?.rows_affected() == 1;
    if !created {
        // A statement of its own: it sees what another replica stored a moment before, and keeps it until the end.
        let hash = "SELECT hash FROM registry.versions WHERE namespace = $1 AND name = $2 AND version = $3 FOR SHARE";
        let query = link.query(hash).bind(&of.namespace).bind(&of.name).bind(&new.version);
        let known = query.fetch_optional(link.connection()).await?;
        match known.map(|row| row.try_get::<String, _>(0)).transpose()? {
            Some(hash) if hash == new.hash => {}
            Some(_) => return Ok(Put::Conflict),
            // Deleted in between: the same again stores it.
            None => return Err(Abort::Again),
        }
    }
    let activate = "INSERT INTO registry.agents AS a (namespace, name, active_version, created_at, updated_at) VALUES ($1, $2, $3, $4, $4)
         ON CONFLICT (namespace, name) DO UPDATE SET
             updated_at = CASE a.active_version WHEN excluded.active_version THEN a.updated_at ELSE excluded.updated_at END,
             active_version = excluded.active_version
         RETURNING created_at, updated_at";
    let query = link.query(activate).bind(&of.namespace).bind(&of.name).bind(&new.version).bind(now.timestamp_micros());
    let row = query.fetch_one(link.connection()).await?;
    let (created_at, updated_at) = (rows::time(&row, 0)?, rows::time(&row, 1)?);
    let surplus = "DELETE FROM registry.versions WHERE seq IN (
             SELECT v.seq FROM registry.versions v JOIN registry.agents a USING (namespace, name)
             WHERE v.namespace = $1 AND v.name = $2 AND v.version <> a.active_version ORDER BY v.seq DESC OFFSET $3)";
    // The active one is kept besides.
    let others = i64::try_from(keep.saturating_sub(1)).unwrap_or(i64::MAX);
    link.query(surplus).bind(&of.namespace).bind(&of.name).bind(others).execute(link.connection()).await?;
    changed(link, of).await?;
    let definition = Definition { source: String::new(), ..new.clone() };
    Ok(Put::Stored { created, active: Box::new(Active { definition, created_at, updated_at }) })
}

async fn delete(link: &mut Link, of: &Key) -> Attempt<bool> {
    link.transaction().await?;
    let mut deleted = 0;
    // The agent's row first, as `put` has it: the other waits for the whole of it.
    for sql in [
        "DELETE FROM registry.agents WHERE namespace = $1 AND name = $2",
        "DELETE FROM registry.versions WHERE namespace = $1 AND name = $2",
        "DELETE FROM registry.standings WHERE namespace = $1 AND name = $2",
    ] {
        deleted += link.query(sql).bind(&of.namespace).bind(&of.name).execute(link.connection()).await?.rows_affected();
    }
    if deleted > 0 {
        changed(link, of).await?;
    }
    Ok(deleted > 0)
}

async fn set_standing(link: &mut Link, of: &Key, standing: &Standing) -> Attempt<()> {
    link.transaction().await?;
    let sql = "INSERT INTO registry.standings (namespace, name, state, reason, updated_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (namespace, name) DO UPDATE SET state = excluded.state, reason = excluded.reason, updated_at = excluded.updated_at";
    let query = link.query(sql).bind(&of.namespace).bind(&of.name).bind(standing.state.name()).bind(&standing.reason);
    query.bind(standing.updated_at.timestamp_micros()).execute(link.connection()).await?;
    changed(link, of).await
}

/// Numbers the change. The last statement of its transaction: from here to the commit nobody else changes anything.
async fn changed(link: &mut Link, of: &Key) -> Attempt<()> {
    let query = link.query("SELECT registry.changed($1, $2, NULL)").bind(&of.namespace).bind(&of.name);
    query.execute(link.connection()).await?;
    Ok(())
}

#[async_trait]
impl Store for PostgresStore {
    async fn load(&self) -> Result<Agents, Error> {
        Ok(self.0.work(false, |mut link| async move { (load(&mut link).await, link) }).await?)
    }

    async fn version(&self, key: Key, named: String) -> Result<Option<Definition>, Error> {
        let (key, named) = (&key, &named);
        Ok(self.0.work(false, |mut link| async move { (version(&mut link, key, named).await, link) }).await?)
    }

    async fn put(&self, definition: Definition, now: Time, keep: usize) -> Result<Put, Error> {
        let definition = &definition;
        Ok(self.0.work(true, |mut link| async move { (put(&mut link, definition, now, keep).await, link) }).await?)
    }

    async fn delete(&self, key: Key) -> Result<bool, Error> {
        let key = &key;
        Ok(self.0.work(true, |mut link| async move { (delete(&mut link, key).await, link) }).await?)
    }

    async fn set_standing(&self, key: Key, standing: Standing) -> Result<(), Error> {
        let (key, standing) = (&key, &standing);
        Ok(self.0.work(true, |mut link| async move { (set_standing(&mut link, key, standing).await, link) }).await?)
    }

    async fn check(&self) -> Result<(), Error> {
        Ok(self.0.work(false, |mut link| async move { (migrate::probe(&mut link, SCHEMA, false).await, link) }).await?)
    }
}

/// By agent.
pub(crate) fn by_key((active, standings): Agents) -> (BTreeMap<Key, Active>, BTreeMap<Key, Standing>) {
    (active.into_iter().map(|active| (active.definition.key.clone(), active)).collect(), standings.into_iter().collect())
}
