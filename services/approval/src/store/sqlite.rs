//! Approvals in a SQLite file. Calls that wait together share one commit, so a thousand decisions cost few more disk writes than one.

use super::{
    Change, Delivery, Listed, Query, Store, Update,
    body::{decode, encode},
    first_delivery,
};
use crate::approval::{Approval, Key, Time};
use async_trait::async_trait;
use chrono::DateTime;
use std::path::PathBuf;
use troupe_domain::{Error, Namespace};
use troupe_sqlite::{
    Database, Migrations, OpenError, Outcome,
    rusqlite::{Connection, OptionalExtension, Row, params},
};

const MIGRATIONS: Migrations = &[include_str!("../../migrations/0001_initial.sql"), include_str!("../../migrations/0002_pending.sql")];

/// See the module.
#[derive(Clone, Debug)]
pub struct SqliteStore(Database);

impl SqliteStore {
    /// Opens or creates the file. Refuses one that a newer Troupe wrote.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        Ok(Self(Database::open(path, MIGRATIONS).await?))
    }
}

fn micros(at: Option<Time>) -> Option<i64> {
    at.map(|at| at.timestamp_micros())
}

fn first_time(connection: &Connection, sql: &str) -> Outcome<Option<Time>> {
    let found: Option<i64> = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(found.and_then(DateTime::from_timestamp_micros))
}

fn insert_all(connection: &Connection, approvals: &[Approval]) -> Outcome<usize> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO approvals (namespace, approval_id, run_id, status, expires_at, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (namespace, approval_id) DO NOTHING",
    )?;
    let mut new = 0;
    for approval in approvals {
        let key = &approval.key;
        let (run, status) = (approval.run.to_string(), approval.status.name());
        new += statement.execute(params![key.namespace.as_str(), key.id, run, status, micros(approval.expires_at), encode(approval)])?;
    }
    Ok(new)
}

fn update_one(connection: &Connection, key: &Key, change: Change) -> Outcome<Update> {
    let found: Option<(i64, Option<i64>, Vec<u8>)> = connection
        .prepare_cached("SELECT seq, deliver_at, body FROM approvals WHERE namespace = ?1 AND approval_id = ?2")?
        .query_row(params![key.namespace.as_str(), key.id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((seq, deliver_at, body)) = found else { return Ok(Update::Missing) };
    let before = decode(&body)?;
    let Some(after) = change(&before)? else { return Ok(Update::Unchanged) };
    let deliver_at = micros(first_delivery(&before, &after)).or(deliver_at);
    connection
        .prepare_cached("UPDATE approvals SET status = ?2, expires_at = ?3, deliver_at = ?4, body = ?5 WHERE seq = ?1")?
        .execute(params![seq, after.status.name(), micros(after.expires_at), deliver_at, encode(&after)])?;
    Ok(Update::Changed(Box::new(after)))
}

type Found = (i64, Vec<u8>);

fn found(row: &Row<'_>) -> troupe_sqlite::rusqlite::Result<Found> {
    Ok((row.get(0)?, row.get(1)?))
}

/// One more than the page, of each status by itself: so each is one walk along an index, however many others there are.
fn page(connection: &Connection, query: &Query) -> Outcome<Listed> {
    let namespace = query.namespace.as_str();
    let before = query.before.unwrap_or(i64::MAX);
    let limit = i64::try_from(query.limit + 1).unwrap_or(i64::MAX);
    let mut rows: Vec<Found> = Vec::new();
    for status in &query.statuses {
        let status = status.name();
        match query.run {
            None => {
                let sql = "SELECT seq, body FROM approvals WHERE namespace = ?1 AND status = ?2 AND seq < ?3 ORDER BY seq DESC LIMIT ?4";
                let mut statement = connection.prepare_cached(sql)?;
                let part = statement.query_map(params![namespace, status, before, limit], found)?;
                rows.extend(part.collect::<Result<Vec<_>, _>>()?);
            }
            Some(run) => {
                let sql = "SELECT seq, body FROM approvals INDEXED BY approvals_by_run
                           WHERE namespace = ?1 AND run_id = ?2 AND status = ?3 AND seq < ?4 ORDER BY seq DESC LIMIT ?5";
                let mut statement = connection.prepare_cached(sql)?;
                let part = statement.query_map(params![namespace, run.to_string(), status, before, limit], found)?;
                rows.extend(part.collect::<Result<Vec<_>, _>>()?);
            }
        }
    }
    rows.sort_unstable_by_key(|(seq, _)| std::cmp::Reverse(*seq));
    let more = rows.len() > query.limit;
    rows.truncate(query.limit);
    let next = rows.last().map(|(seq, _)| *seq).filter(|_| more);
    let approvals = rows.iter().map(|(_, body)| decode(body)).collect::<Result<_, _>>()?;
    Ok(Listed { approvals, next })
}

fn claim(connection: &Connection, now: Time, until: Time, limit: usize) -> Outcome<Vec<Delivery>> {
    let mut statement = connection.prepare_cached(
        "UPDATE approvals SET deliver_at = ?2, attempts = attempts + 1
         WHERE seq IN (SELECT seq FROM approvals WHERE deliver_at IS NOT NULL AND deliver_at <= ?1 ORDER BY deliver_at, seq LIMIT ?3)
         RETURNING attempts, body",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![now.timestamp_micros(), until.timestamp_micros(), limit], found)?;
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    let deliveries = rows.into_iter().map(|(attempts, body)| {
        let attempt = u32::try_from(attempts).unwrap_or(u32::MAX);
        decode(&body).map(|approval| Delivery { approval, attempt })
    });
    Ok(deliveries.collect::<Result<_, _>>()?)
}

#[async_trait]
impl Store for SqliteStore {
    async fn insert(&self, approvals: Vec<Approval>) -> Result<usize, Error> {
        self.0.write(move |c| insert_all(c, &approvals)).await
    }

    async fn get(&self, key: Key) -> Result<Option<Approval>, Error> {
        let sql = "SELECT body FROM approvals WHERE namespace = ?1 AND approval_id = ?2";
        let body = self.0.read(move |c| {
            let params = params![key.namespace.as_str(), key.id];
            Ok(c.prepare_cached(sql)?.query_row(params, |row| row.get::<_, Vec<u8>>(0)).optional()?)
        });
        body.await?.map(|body| decode(&body)).transpose()
    }

    async fn list(&self, query: Query) -> Result<Listed, Error> {
        self.0.read(move |c| page(c, &query)).await
    }

    async fn update(&self, key: Key, change: Change) -> Result<Update, Error> {
        self.0.write(move |c| update_one(c, &key, change)).await
    }

    async fn count_pending(&self) -> Result<u64, Error> {
        let sql = "SELECT count(*) FROM approvals WHERE status = 'pending'";
        let count = self.0.read(move |c| Ok(c.query_row(sql, [], |row| row.get::<_, i64>(0))?)).await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    async fn pending(&self, after: i64, limit: usize) -> Result<Vec<(i64, Approval)>, Error> {
        let sql = "SELECT seq, body FROM approvals WHERE status = 'pending' AND seq > ?1 ORDER BY seq LIMIT ?2";
        let rows = self.0.read(move |c| {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            Ok(c.prepare_cached(sql)?.query_map(params![after, limit], found)?.collect::<Result<Vec<_>, _>>()?)
        });
        rows.await?.into_iter().map(|(seq, body)| Ok((seq, decode(&body)?))).collect()
    }

    async fn due(&self, now: Time, limit: usize) -> Result<Vec<Key>, Error> {
        let sql = "SELECT namespace, approval_id FROM approvals
                   WHERE status = 'pending' AND expires_at IS NOT NULL AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2";
        let rows = self.0.read(move |c| {
            let mut statement = c.prepare_cached(sql)?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![now.timestamp_micros(), limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<Vec<(String, String)>, _>>()?)
        });
        rows.await?.into_iter().map(|(namespace, id)| Ok(Key { namespace: Namespace::parse(&namespace)?, id })).collect()
    }

    async fn next_expiry(&self) -> Result<Option<Time>, Error> {
        let sql = "SELECT min(expires_at) FROM approvals WHERE status = 'pending' AND expires_at IS NOT NULL";
        self.0.read(move |c| first_time(c, sql)).await
    }

    async fn claim_deliveries(&self, now: Time, until: Time, limit: usize) -> Result<Vec<Delivery>, Error> {
        self.0.write(move |c| claim(c, now, until, limit)).await
    }

    async fn finish_delivery(&self, key: Key, retry_at: Option<Time>) -> Result<(), Error> {
        let sql = "UPDATE approvals SET deliver_at = ?3 WHERE namespace = ?1 AND approval_id = ?2";
        let write = self.0.write(move |c| {
            c.prepare_cached(sql)?.execute(params![key.namespace.as_str(), key.id, micros(retry_at)])?;
            Ok(())
        });
        write.await
    }

    async fn next_delivery(&self) -> Result<Option<Time>, Error> {
        self.0.read(move |c| first_time(c, "SELECT min(deliver_at) FROM approvals WHERE deliver_at IS NOT NULL")).await
    }

    async fn release_deliveries(&self, now: Time) -> Result<(), Error> {
        let sql = "UPDATE approvals SET deliver_at = ?1 WHERE deliver_at IS NOT NULL";
        self.0.write(move |c| Ok(c.execute(sql, [now.timestamp_micros()]).map(drop)?)).await
    }

    async fn check(&self) -> Result<(), Error> {
        self.0.check().await
    }
}
