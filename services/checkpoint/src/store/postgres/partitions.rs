//! Who owns which partition, and which executors are live. Times are the database's: the clocks of the services' machines do not matter.

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

/// A row of partition, epoch, end, and (but for those just granted) owner and microseconds left.
fn lease(row: &PgRow) -> Result<Lease, sqlx::Error> {
    let partition = u32::try_from(row.try_get::<i64, _>(0)?).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let (expires_at, owner, left) = (Micros(row.try_get(2)?), row.try_get(3)?, row.try_get::<i64, _>(4)?);
    let lease = Lease { partition, epoch: unsigned(row.try_get(1)?), owner, expires_at, remaining_ms: 0 };
    Ok(lease.seen_at(Micros(expires_at.0.saturating_sub(left))))
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
    let query = link.query("SELECT partition, epoch, expires_at, $1, $3 FROM journal.acquire($1, $2, $3, $4, $5)");
    let query = query.bind(owner).bind(wanted).bind(micros(time)).bind(force).bind(moment.map(|at| at.0));
    let rows = query.fetch_all(link.connection()).await?;
    let granted = rows.iter().map(lease).collect::<Result<Vec<_>, _>>()?;
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
    let query =
        link.query("SELECT partition, epoch, expires_at, owner, remaining FROM journal.renew($1, $2, $3, $4, $5) ORDER BY partition");
    let query = query.bind(owner).bind(partitions).bind(epochs).bind(micros(time)).bind(moment.map(|at| at.0));
    let rows = query.fetch_all(link.connection()).await?;
    let (mut leases, mut executors) = (Vec::new(), Vec::new());
    for row in &rows {
        match row.try_get::<Option<i64>, _>(0)? {
            Some(_) => leases.push(lease(row)?),
            None => executors.push(row.try_get(3)?),
        }
    }
    // By bytes, not as the database's language sorts.
    executors.sort_unstable();
    Ok(Renewal::of(owner, claims, executors, leases))
}

pub(super) async fn release(link: &mut Link, owner: &str, claims: &[Claim], leave: bool) -> Attempt<()> {
    let (partitions, epochs) = columns(claims);
    let query = link.query("SELECT journal.release($1, $2, $3, $4)");
    query.bind(owner).bind(partitions).bind(epochs).bind(leave).execute(link.connection()).await?;
    Ok(())
}

pub(super) async fn list(link: &mut Link, moment: Option<Micros>) -> Attempt<Vec<Lease>> {
    let query = link.query(
        "SELECT partition, epoch, expires_at, owner, expires_at - coalesce($1, journal.now_micros())
         FROM journal.partitions ORDER BY partition",
    );
    let rows = query.bind(moment.map(|at| at.0)).fetch_all(link.connection()).await?;
    Ok(rows.iter().map(lease).collect::<Result<_, _>>()?)
}
