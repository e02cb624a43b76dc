//! Who owns which partition, and which executors are live.

use super::{
    rows::{signed, unsigned},
    writer::{Attempt, Session},
};
use crate::model::{Claim, Lease, Micros, Renewal, name_of};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::time::Duration;

/// The end of a lease that begins now.
pub(super) fn until(now: Micros, lease: Duration) -> Micros {
    Micros(now.0.saturating_add(i64::try_from(lease.as_micros()).unwrap_or(i64::MAX)))
}

fn lease(row: &Row<'_>) -> rusqlite::Result<Lease> {
    let expires_at = Micros(row.get(3)?);
    Ok(Lease { partition: row.get(0)?, epoch: unsigned(row.get(1)?), owner: row.get(2)?, expires_at, remaining_ms: 0 })
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
        let lease = Lease { partition, epoch, owner: owner.to_owned(), expires_at: until, remaining_ms: 0 };
        put(&session.connection, &lease)?;
        granted.push(lease.seen_at(now));
    }
    Ok(granted)
}

pub(super) fn renew(session: &mut Session, owner: &str, claims: &[Claim], now: Micros, until: Micros) -> Attempt<Renewal> {
    let connection = &session.connection;
    for claim in claims {
        if let Some(lease) = find(connection, claim.partition)?.filter(|lease| lease.is_claimed_by(owner, *claim)) {
            put(connection, &Lease { expires_at: until, ..lease })?;
        }
    }
    connection.prepare_cached("DELETE FROM executors WHERE expires_at <= ?1")?.execute([now.0])?;
    let join = "INSERT INTO executors (name, owner, expires_at) VALUES (?1, ?2, ?3)
                ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at";
    connection.prepare_cached(join)?.execute(params![name_of(owner), owner, until.0])?;
    let mut live = connection.prepare_cached("SELECT owner FROM executors ORDER BY owner")?;
    let executors = live.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(Renewal::of(owner, claims, executors, list(connection, now)?))
}

pub(super) fn release(session: &mut Session, owner: &str, claims: &[Claim], leave: bool) -> Attempt<()> {
    for claim in claims {
        if let Some(lease) = find(&session.connection, claim.partition)?.filter(|lease| lease.is_claimed_by(owner, *claim)) {
            put(&session.connection, &Lease { owner: String::new(), expires_at: Micros(0), ..lease })?;
        }
    }
    if leave {
        let mut statement = session.connection.prepare_cached("DELETE FROM executors WHERE name = ?1 AND owner = ?2")?;
        statement.execute(params![name_of(owner), owner])?;
    }
    Ok(())
}

pub(super) fn list(connection: &Connection, now: Micros) -> Attempt<Vec<Lease>> {
    let mut statement = connection.prepare_cached("SELECT partition, epoch, owner, expires_at FROM partitions ORDER BY partition")?;
    let leases = statement.query_map([], lease)?;
    Ok(leases.map(|lease| lease.map(|lease| lease.seen_at(now))).collect::<rusqlite::Result<_>>()?)
}
