//! Approvals in a PostgreSQL database, for many replicas of the service. Changes that wait together share one transaction. A claimed
//! delivery is nobody else's until its claim ends by itself: then whoever looks first delivers it again.

mod page;
mod writers;

use super::{Change, Delivery, Listed, Query, Store, Update, body};
use crate::approval::{Approval, Key, Time};
use async_trait::async_trait;
use chrono::DateTime;
use sqlx::{Row as _, postgres::PgRow};
use std::{sync::Arc, time::Duration};
use troupe_domain::{Error, Namespace};
use troupe_postgres::{Attempt, Config, Db, Link, Schema, migrate};
use troupe_service_kit::Tasks;
use writers::Writers;

const SCHEMA: Schema = Schema { name: "approval", migrations: &[include_str!("../../migrations/postgres/0001_initial.sql")] };

/// How long what another replica wrote may go unnoticed.
const LOOK: Duration = Duration::from_secs(1);

const INSERT: &str = "INSERT INTO approval.approvals (namespace, approval_id, run_id, status, expires_at, body)
     SELECT namespace, approval_id, run_id, status, expires_at, body
     FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::bigint[], $6::bytea[])
         WITH ORDINALITY x(namespace, approval_id, run_id, status, expires_at, body, no) ORDER BY no
     ON CONFLICT (namespace, approval_id) DO NOTHING";
/// Rows that another replica claims at this moment are left to it.
const CLAIM: &str = "WITH due AS MATERIALIZED (
         SELECT seq FROM approval.approvals WHERE deliver_at <= $1 ORDER BY deliver_at, seq LIMIT $3 FOR UPDATE SKIP LOCKED
     )
     UPDATE approval.approvals a SET deliver_at = $2, attempts = a.attempts + 1 FROM due WHERE a.seq = due.seq RETURNING a.attempts, a.body";

/// See the module. Clones share it.
#[derive(Clone)]
pub struct PostgresStore {
    db: Arc<Db>,
    writers: Arc<Writers>,
}

impl PostgresStore {
    /// Connects, brings the schema up to date and starts the writers on `tasks`. Refuses a schema that a newer Troupe made.
    pub async fn open(config: &Config, tasks: &Tasks) -> anyhow::Result<Self> {
        let db = Arc::new(Db::open(config, "approval").await?);
        migrate::run(&db, SCHEMA).await?;
        let writers = Arc::new(Writers::start(&db, config.writers, tasks));
        Ok(Self { db, writers })
    }
}

fn micros(at: Option<Time>) -> Option<i64> {
    at.map(|at| at.timestamp_micros())
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

async fn insert(link: &mut Link, approvals: &[Approval]) -> Attempt<usize> {
    let query = link.query(INSERT);
    let query = query.bind(approvals.iter().map(|a| a.key.namespace.to_string()).collect::<Vec<_>>());
    let query = query.bind(approvals.iter().map(|a| a.key.id.clone()).collect::<Vec<_>>());
    let query = query.bind(approvals.iter().map(|a| a.run.0).collect::<Vec<_>>());
    let query = query.bind(approvals.iter().map(|a| a.status.name()).collect::<Vec<_>>());
    let query = query.bind(approvals.iter().map(|a| micros(a.expires_at)).collect::<Vec<_>>());
    let query = query.bind(approvals.iter().map(body::encode).collect::<Vec<_>>());
    let done = query.execute(link.connection()).await?;
    Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
}

async fn get(link: &mut Link, key: &Key) -> Attempt<Option<Approval>> {
    let query = link.query("SELECT body FROM approval.approvals WHERE namespace = $1 AND approval_id = $2");
    let row = query.bind(key.namespace.as_str()).bind(&key.id).fetch_optional(link.connection()).await?;
    row.map(|row| approval(&row, 0)).transpose()
}

fn approval(row: &PgRow, column: usize) -> Attempt<Approval> {
    Ok(body::decode(row.try_get(column)?)?)
}

/// The only number or moment that a statement answers.
async fn number(link: &mut Link, sql: &'static str) -> Attempt<Option<i64>> {
    Ok(link.query(sql).fetch_one(link.connection()).await?.try_get(0)?)
}

async fn due(link: &mut Link, now: Time, limit: usize) -> Attempt<Vec<Key>> {
    let sql = "SELECT namespace, approval_id FROM approval.approvals
               WHERE status = 'pending' AND expires_at <= $1 ORDER BY expires_at LIMIT $2";
    let rows = link.query(sql).bind(now.timestamp_micros()).bind(count(limit)).fetch_all(link.connection()).await?;
    let key = |row: &PgRow| Ok(Key { namespace: Namespace::parse(row.try_get::<&str, _>(0)?)?, id: row.try_get(1)? });
    rows.iter().map(key).collect()
}

async fn pending(link: &mut Link, after: i64, limit: usize) -> Attempt<Vec<(i64, Approval)>> {
    let sql = "SELECT seq, body FROM approval.approvals WHERE status = 'pending' AND seq > $1 ORDER BY seq LIMIT $2";
    let rows = link.query(sql).bind(after).bind(count(limit)).fetch_all(link.connection()).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, approval(row, 1)?))).collect()
}

async fn claim(link: &mut Link, now: Time, until: Time, limit: usize) -> Attempt<Vec<Delivery>> {
    let query = link.query(CLAIM).bind(now.timestamp_micros()).bind(until.timestamp_micros()).bind(count(limit));
    let rows = query.fetch_all(link.connection()).await?;
    let delivery = |row: &PgRow| {
        let attempt = u32::try_from(row.try_get::<i64, _>(0)?).unwrap_or(u32::MAX);
        Ok(Delivery { approval: approval(row, 1)?, attempt })
    };
    rows.iter().map(delivery).collect()
}

#[async_trait]
impl Store for PostgresStore {
    async fn insert(&self, approvals: Vec<Approval>) -> Result<usize, Error> {
        let approvals = &approvals;
        Ok(self.db.work(true, |mut link| async move { (insert(&mut link, approvals).await, link) }).await?)
    }

    async fn get(&self, key: Key) -> Result<Option<Approval>, Error> {
        let key = &key;
        Ok(self.db.work(false, |mut link| async move { (get(&mut link, key).await, link) }).await?)
    }

    async fn list(&self, query: Query) -> Result<Listed, Error> {
        let query = &query;
        Ok(self.db.work(false, |mut link| async move { (page::list(&mut link, query).await, link) }).await?)
    }

    async fn update(&self, key: Key, change: Change) -> Result<Update, Error> {
        self.writers.update(key, change).await
    }

    async fn count_pending(&self) -> Result<u64, Error> {
        let sql = "SELECT count(*) FROM approval.approvals WHERE status = 'pending'";
        let found = self.db.work(false, |mut link| async move { (number(&mut link, sql).await, link) }).await?;
        Ok(found.unwrap_or(0).unsigned_abs())
    }

    async fn pending(&self, after: i64, limit: usize) -> Result<Vec<(i64, Approval)>, Error> {
        Ok(self.db.work(false, |mut link| async move { (pending(&mut link, after, limit).await, link) }).await?)
    }

    async fn due(&self, now: Time, limit: usize) -> Result<Vec<Key>, Error> {
        Ok(self.db.work(false, |mut link| async move { (due(&mut link, now, limit).await, link) }).await?)
    }

    async fn next_expiry(&self) -> Result<Option<Time>, Error> {
        let sql = "SELECT min(expires_at) FROM approval.approvals WHERE status = 'pending' AND expires_at IS NOT NULL";
        let found = self.db.work(false, |mut link| async move { (number(&mut link, sql).await, link) }).await?;
        Ok(found.and_then(DateTime::from_timestamp_micros))
    }

    async fn claim_deliveries(&self, now: Time, until: Time, limit: usize) -> Result<Vec<Delivery>, Error> {
        Ok(self.db.work(true, |mut link| async move { (claim(&mut link, now, until, limit).await, link) }).await?)
    }

    async fn finish_delivery(&self, key: Key, retry_at: Option<Time>) -> Result<(), Error> {
        self.writers.finish(key, retry_at).await
    }

    async fn next_delivery(&self) -> Result<Option<Time>, Error> {
        let sql = "SELECT min(deliver_at) FROM approval.approvals WHERE deliver_at IS NOT NULL";
        let found = self.db.work(false, |mut link| async move { (number(&mut link, sql).await, link) }).await?;
        Ok(found.and_then(DateTime::from_timestamp_micros))
    }

    /// Nothing: other replicas may be delivering, and the claims of those that are gone end by themselves.
    async fn release_deliveries(&self, _now: Time) -> Result<(), Error> {
        Ok(())
    }

    fn look_every(&self) -> Option<Duration> {
        Some(LOOK)
    }

    async fn check(&self) -> Result<(), Error> {
        Ok(self.db.work(false, |mut link| async move { (migrate::probe(&mut link, SCHEMA, false).await, link) }).await?)
    }
}
