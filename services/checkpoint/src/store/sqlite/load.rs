//! Loading runs with their state, and what to wake.

use super::{
    rows::{self, namespace_number, signed},
    writer::Attempt,
};
use crate::{
    model::{DueRun, Entry, LoadedRun, Micros, RunKey, RunRow, Snapshot},
    store::{ENTRIES_BYTES, LOAD_BYTES, OPEN_RUNS_BYTES},
};
use rusqlite::{Connection, OptionalExtension as _, params};
use troupe_domain::{Code, Error, RunId};

pub(super) fn runs(connection: &Connection, keys: &[RunKey], at_seq: u64) -> Attempt<Vec<LoadedRun>> {
    let mut found = Vec::with_capacity(keys.len());
    let mut weight = 0;
    for key in keys {
        let Some((id, row)) = find(connection, key)? else { continue };
        let run = loaded(connection, id, row, at_seq)?;
        weight += run.weight();
        if keys.len() > 1 && weight > LOAD_BYTES {
            let error = Error::new(Code::PayloadTooLarge, format!("the {} runs have more than {LOAD_BYTES} bytes", keys.len()));
            return Err(error.with_help("ask for fewer runs at a time").into());
        }
        found.push(run);
    }
    Ok(found)
}

fn find(connection: &Connection, key: &RunKey) -> rusqlite::Result<Option<(i64, RunRow)>> {
    let sql = select_runs("r.namespace = (SELECT id FROM namespaces WHERE name = ?1) AND r.run_id = ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_row(params![key.namespace.as_str(), key.id.0.as_bytes()], rows::run).optional()
}

fn select_runs(condition: &str) -> String {
    format!("SELECT {} FROM runs r JOIN namespaces n ON n.id = r.namespace WHERE {condition}", rows::RUN_COLUMNS)
}

/// The state of a run after `at_seq` (0: now).
fn loaded(connection: &Connection, id: i64, row: RunRow, at_seq: u64) -> rusqlite::Result<LoadedRun> {
    let last = if at_seq == 0 { row.seq } else { at_seq.min(row.seq) };
    let snapshot = snapshot_at(connection, id, last)?;
    let from = snapshot.as_ref().map_or(0, |snapshot| snapshot.seq) + 1;
    let sql = format!(
        "SELECT {} FROM entries e LEFT JOIN blobs b ON b.id = e.blob WHERE e.run = ?1 AND e.seq BETWEEN ?2 AND ?3 ORDER BY e.seq",
        rows::ENTRY_COLUMNS
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let entries = statement.query_map(params![id, signed(from), signed(last)], rows::entry)?.collect::<rusqlite::Result<_>>()?;
    Ok(LoadedRun { row, snapshot, entries })
}

fn snapshot_at(connection: &Connection, run: i64, seq: u64) -> rusqlite::Result<Option<Snapshot>> {
    let sql = "SELECT seq, state FROM snapshots WHERE run = ?1 AND seq <= ?2 ORDER BY seq DESC LIMIT 1";
    connection.prepare_cached(sql)?.query_row(params![run, signed(seq)], rows::snapshot).optional()
}

pub(super) fn open_runs(connection: &Connection, partition: u32, limit: usize, after: Option<RunId>) -> Attempt<Vec<LoadedRun>> {
    let sql = select_runs("r.partition = ?1 AND r.ended_at IS NULL AND r.run_id > ?2 ORDER BY r.run_id, r.namespace");
    let mut statement = connection.prepare_cached(&sql)?;
    let after = after.map_or_else(Vec::new, |id| id.0.as_bytes().to_vec());
    let mut page: Vec<LoadedRun> = Vec::new();
    let mut weight = 0;
    for found in statement.query_map(params![partition, after], rows::run)? {
        let (id, row) = found?;
        // Two namespaces may have a run of the same id: a page never ends between them, or the next one would skip the second.
        let full = page.len() >= limit || weight >= OPEN_RUNS_BYTES;
        if full && page.last().is_some_and(|run| run.row.key.id != row.key.id) {
            break;
        }
        let run = loaded(connection, id, row, 0)?;
        weight += run.weight();
        page.push(run);
    }
    Ok(page)
}

pub(super) fn due(connection: &Connection, partition: u32, before: Micros, limit: usize) -> Attempt<Vec<DueRun>> {
    let mut statement = connection.prepare_cached(
        "SELECT n.name, r.run_id, r.wake_at FROM runs r JOIN namespaces n ON n.id = r.namespace
         WHERE r.partition = ?1 AND r.wake_at <= ?2 ORDER BY r.wake_at, r.id LIMIT ?3",
    )?;
    let found = statement.query_map(params![partition, before.0, rows::count(limit)], |row| {
        Ok(DueRun { key: RunKey { namespace: rows::namespace(row, 0)?, id: rows::run_id(row, 1)? }, wake_at: Micros(row.get(2)?) })
    })?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn entries(connection: &Connection, key: &RunKey, from_seq: u64, limit: usize) -> Attempt<Vec<Entry>> {
    let Some(namespace) = namespace_number(connection, &key.namespace)? else { return Err(Error::not_found(key).into()) };
    let mut statement = connection.prepare_cached("SELECT id FROM runs WHERE namespace = ?1 AND run_id = ?2")?;
    let run: Option<i64> = statement.query_row(params![namespace, key.id.0.as_bytes()], |row| row.get(0)).optional()?;
    let Some(run) = run else { return Err(Error::not_found(key).into()) };
    let sql = format!(
        "SELECT {} FROM entries e LEFT JOIN blobs b ON b.id = e.blob WHERE e.run = ?1 AND e.seq >= ?2 ORDER BY e.seq LIMIT ?3",
        rows::ENTRY_COLUMNS
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found: Vec<Entry> = Vec::new();
    let mut weight = 0;
    for entry in statement.query_map(params![run, signed(from_seq), rows::count(limit)], rows::entry)? {
        let entry = entry?;
        weight += entry.event.len() + entry.payload.len() + entry.changes.len() + 64;
        if weight > ENTRIES_BYTES && !found.is_empty() {
            break;
        }
        found.push(entry);
    }
    Ok(found)
}
