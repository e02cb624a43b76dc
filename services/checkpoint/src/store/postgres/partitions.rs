//! Who owns which partition. Times are the database's: the clocks of the services' machines do not matter.

use super::{
    fault::Attempt,
    link::Link,
    rows::{signed, unsigned},
};
use crate::model::{Claim, Lease, Micros, Renewal};
use sqlx::{Row as _, postgres::PgRow};
use std::{collections::HashMap, time::Duration};

fn micros(lease: Duration) -> i64 {
    i64::try_from(lease.as_micros()).unwrap_or(i64::MAX / 2)
}

fn partition(row: &PgRow) -> Result<u32, sqlx::Error> {
    u32::try_from(row.try_get::<i64, _>(0)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn lease(row: &PgRow, owner: &str) -> Result<Lease, sqlx::Error> {
    let expires_at = Micros(row.try_get(2)?);
    Ok(Lease { partition: partition(row)?, epoch: unsigned(row.try_get(1)?), owner: owner.to_owned(), expires_at })
}

pub(super) async fn acquire(
    link: &mut Link,
    owner: &str,
    partitions: &[u32],
    time: Duration,
    force: bool,
    moment: Option<Micros>,
) -> Attempt<Vec<Lease>> {
    let wanted: Vec<i64> = partitions.iter().copied().map(i64::from).collect();
    let query = link.query("SELECT partition, epoch, expires_at FROM journal.acquire($1, $2, $3, $4, $5)");
    let query = query.bind(owner).bind(wanted).bind(micros(time)).bind(force).bind(moment.map(|at| at.0));
    let rows = query.fetch_all(link.connection()).await?;
    let granted = rows.iter().map(|row| lease(row, owner)).collect::<Result<Vec<_>, _>>()?;
    let mut by_number: HashMap<u32, Lease> = granted.into_iter().map(|lease| (lease.partition, lease)).collect();
    Ok(partitions.iter().filter_map(|partition| by_number.remove(partition)).collect())
}

/// The claims in the order of partitions: two callers lock the same rows in the same order.
fn columns(claims: &[Claim]) -> (Vec<i64>, Vec<i64>) {
    let mut sorted = claims.to_vec();
    sorted.sort_unstable_by_key(|claim| claim.partition);
    sorted.iter().map(|claim| (i64::from(claim.partition), signed(claim.epoch))).unzip()
}

pub(super) async fn renew(link: &mut Link, owner: &str, claims: &[Claim], time: Duration, moment: Option<Micros>) -> Attempt<Renewal> {
    let (partitions, epochs) = columns(claims);
    let query = link.query(
        "UPDATE journal.partitions p SET expires_at = coalesce($4, journal.now_micros()) + $5
         FROM unnest($1::bigint[], $2::bigint[]) c(partition, epoch)
         WHERE p.partition = c.partition AND p.epoch = c.epoch AND p.owner = $3 RETURNING p.partition, p.epoch, p.expires_at",
    );
    let query = query.bind(partitions).bind(epochs).bind(owner).bind(moment.map(|at| at.0)).bind(micros(time));
    let rows = query.fetch_all(link.connection()).await?;
    let renewed = rows.iter().map(|row| lease(row, owner)).collect::<Result<Vec<_>, _>>()?;
    let by_number: HashMap<u32, Lease> = renewed.into_iter().map(|lease| (lease.partition, lease)).collect();
    let mut renewal = Renewal::default();
    for claim in claims {
        match by_number.get(&claim.partition).filter(|lease| lease.epoch == claim.epoch) {
            Some(lease) => renewal.held.push(lease.clone()),
            None => renewal.lost.push(claim.partition),
        }
    }
    Ok(renewal)
}

pub(super) async fn release(link: &mut Link, owner: &str, claims: &[Claim]) -> Attempt<()> {
    let (partitions, epochs) = columns(claims);
    let query = link.query(
        "UPDATE journal.partitions p SET owner = '', expires_at = 0 FROM unnest($1::bigint[], $2::bigint[]) c(partition, epoch)
         WHERE p.partition = c.partition AND p.epoch = c.epoch AND p.owner = $3",
    );
    query.bind(partitions).bind(epochs).bind(owner).execute(link.connection()).await?;
    Ok(())
}

pub(super) async fn list(link: &mut Link) -> Attempt<Vec<Lease>> {
    let query = link.query("SELECT partition, epoch, expires_at, owner FROM journal.partitions ORDER BY partition");
    let rows = query.fetch_all(link.connection()).await?;
    Ok(rows.iter().map(|row| lease(row, row.try_get(3)?)).collect::<Result<_, _>>()?)
}
