//! Who owns which partition.

use super::{
    rows::{signed, unsigned},
    writer::{Attempt, Session},
};
use crate::model::{Claim, Lease, Micros, Renewal};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::time::Duration;

/// The end of a lease that begins now.
pub(super) fn until(now: Micros, lease: Duration) -> Micros {
    Micros(now.0.saturating_add(i64::try_from(lease.as_micros()).unwrap_or(i64::MAX)))
}

fn lease(row: &Row<'_>) -> rusqlite::Result<Lease> {
    Ok(Lease { partition: row.get(0)?, epoch: unsigned(row.get(1)?), owner: row.get(2)?, expires_at: Micros(row.get(3)?) })
}

fn find(connection: &Connection, partition: u32) -> rusqlite::Result<Option<Lease>> {
    let mut statement = connection.prepare_cached("SELECT partition, epoch, owner, expires_at FROM partitions WHERE partition = ?1")?;
    statement.query_row([partition], lease).optional()
}

fn put(connection: &Connection, lease: &Lease) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO partitions (partition, epoch, owner, expires_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (partition) DO UPDATE SET epoch = excluded.epoch, owner = excluded.owner, expires_at = excluded.expires_at",
    )?;
    statement.execute(params![lease.partition, signed(lease.epoch), lease.owner, lease.expires_at.0])?;
    Ok(())
}

pub(super) fn acquire(
    session: &mut Session,
    owner: &str,
    partitions: &[u32],
    now: Micros,
    until: Micros,
    force: bool,
) -> Attempt<Vec<Lease>> {
    let mut granted = Vec::with_capacity(partitions.len());
    for &partition in partitions {
        let current = find(&session.connection, partition)?;
        if !force && current.as_ref().is_some_and(|lease| lease.is_held_against(owner, now)) {
            continue;
        }
        let epoch = current.map_or(0, |lease| lease.epoch) + 1;
        let lease = Lease { partition, epoch, owner: owner.to_owned(), expires_at: until };
        put(&session.connection, &lease)?;
        granted.push(lease);
    }
    Ok(granted)
}

pub(super) fn renew(session: &mut Session, owner: &str, claims: &[Claim], until: Micros) -> Attempt<Renewal> {
    let mut renewal = Renewal::default();
    for claim in claims {
        match find(&session.connection, claim.partition)?.filter(|lease| lease.is_claimed_by(owner, *claim)) {
            Some(lease) => {
                let lease = Lease { expires_at: until, ..lease };
                put(&session.connection, &lease)?;
                renewal.held.push(lease);
            }
            None => renewal.lost.push(claim.partition),
        }
    }
    Ok(renewal)
}

pub(super) fn release(session: &mut Session, owner: &str, claims: &[Claim]) -> Attempt<()> {
    for claim in claims {
        if let Some(lease) = find(&session.connection, claim.partition)?.filter(|lease| lease.is_claimed_by(owner, *claim)) {
            put(&session.connection, &Lease { owner: String::new(), expires_at: Micros(0), ..lease })?;
        }
    }
    Ok(())
}

pub(super) fn list(connection: &Connection) -> Attempt<Vec<Lease>> {
    let mut statement = connection.prepare_cached("SELECT partition, epoch, owner, expires_at FROM partitions ORDER BY partition")?;
    Ok(statement.query_map([], lease)?.collect::<rusqlite::Result<_>>()?)
}
