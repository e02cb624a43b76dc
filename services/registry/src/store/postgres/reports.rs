//! Schedulers' reports: each is held up by the replica that the scheduler's stream ends at, and expires with that replica. Times are the
//! database's: the clocks of the replicas do not matter.

use super::PostgresStore;
use sqlx::{Row as _, postgres::PgRow};
use std::{collections::BTreeSet, time::Duration};
use troupe_domain::Error;
use troupe_postgres::{Attempt, Link};

/// A stream that speaks for a scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaker {
    pub scheduler: String,
    /// Unique among all streams of all replicas.
    pub stream: String,
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX / 2)
}

fn report(row: &PgRow) -> Attempt<(String, Vec<u8>)> {
    Ok((row.try_get(0)?, row.try_get(1)?))
}

impl PostgresStore {
    /// Keeps a report until `life` is over or it is renewed. `takes_over`: also when another stream speaks for the scheduler; else the
    /// answer is false then, and nothing is written.
    pub async fn report(&self, by: &Speaker, takes_over: bool, body: &[u8], life: Duration) -> Result<bool, Error> {
        Ok(self.0.work(true, |mut link| async move { (keep(&mut link, by, takes_over, body, life).await, link) }).await?)
    }

    /// Holds a report up. False: it is not there, or another stream's.
    pub async fn renew(&self, by: &Speaker, life: Duration) -> Result<bool, Error> {
        Ok(self.0.work(true, |mut link| async move { (renew(&mut link, by, life).await, link) }).await?)
    }

    /// Drops a stream's report.
    pub async fn end_report(&self, by: &Speaker) -> Result<(), Error> {
        Ok(self.0.work(true, |mut link| async move { (end(&mut link, by).await, link) }).await?)
    }

    /// Drops the reports that nobody holds up any more; answers how many.
    pub async fn expire_reports(&self) -> Result<u64, Error> {
        Ok(self.0.work(true, |mut link| async move { (expire(&mut link).await, link) }).await?)
    }

    /// The reports of these schedulers, or of all: scheduler and `ReportInstancesRequest`.
    pub async fn reports(&self, of: Option<&BTreeSet<String>>) -> Result<Vec<(String, Vec<u8>)>, Error> {
        Ok(self.0.work(false, |mut link| async move { (list(&mut link, of).await, link) }).await?)
    }
}

async fn keep(link: &mut Link, by: &Speaker, takes_over: bool, body: &[u8], life: Duration) -> Attempt<bool> {
    let query = link.query("SELECT registry.report($1, $2, $3, $4, $5)").bind(&by.scheduler).bind(&by.stream);
    let row = query.bind(takes_over).bind(body).bind(micros(life)).fetch_one(link.connection()).await?;
    Ok(row.try_get(0)?)
}

async fn renew(link: &mut Link, by: &Speaker, life: Duration) -> Attempt<bool> {
    let sql = "UPDATE registry.reports SET expires_at = registry.now_micros() + $3 WHERE scheduler = $1 AND stream = $2";
    let query = link.query(sql).bind(&by.scheduler).bind(&by.stream).bind(micros(life));
    Ok(query.execute(link.connection()).await?.rows_affected() == 1)
}

async fn end(link: &mut Link, by: &Speaker) -> Attempt<()> {
    let query = link.query("SELECT registry.end_report($1, $2)").bind(&by.scheduler).bind(&by.stream);
    query.execute(link.connection()).await?;
    Ok(())
}

async fn expire(link: &mut Link) -> Attempt<u64> {
    let row = link.query("SELECT registry.expire_reports()").fetch_one(link.connection()).await?;
    Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
}

async fn list(link: &mut Link, of: Option<&BTreeSet<String>>) -> Attempt<Vec<(String, Vec<u8>)>> {
    let sql = "SELECT scheduler, body FROM registry.reports WHERE $1::text[] IS NULL OR scheduler = ANY($1)";
    let schedulers: Option<Vec<&String>> = of.map(|of| of.iter().collect());
    let rows = link.query(sql).bind(schedulers).fetch_all(link.connection()).await?;
    rows.iter().map(report).collect()
}
