//! Removing ended runs: first their rows go, then, in small transactions, what belongs to them. Appends go on in between. A crash in the
//! middle leaves numbers in `removed_runs`, and the next removal goes on with them.

use super::{
    rows::signed,
    writer::{Attempt, Session},
};
use crate::model::Retention;
use rusqlite::{Connection, OptionalExtension as _, params};

/// Runs whose rows go in one transaction.
const RUNS: u32 = 200;
/// Entries that go in one transaction.
const ENTRIES: usize = 1000;

/// The number of a namespace and the name of a workflow.
pub(super) type Group = (i64, String);

/// A run that may go, as long as it still ended at this moment.
pub(super) struct Candidate {
    id: i64,
    ended_at: i64,
}

/// Every namespace and workflow with ended runs: one step in the index for each.
pub(super) fn groups(connection: &Connection) -> Attempt<Vec<Group>> {
    let mut statement = connection.prepare_cached(
        "SELECT namespace, workflow FROM runs WHERE ended_at IS NOT NULL AND (namespace, workflow) > (?1, ?2)
         ORDER BY namespace, workflow LIMIT 1",
    )?;
    let mut groups = Vec::new();
    let mut last: Group = (-1, String::new());
    while let Some(group) = statement.query_row(params![last.0, last.1], |row| Ok((row.get(0)?, row.get(1)?))).optional()? {
        groups.push(group);
        last = groups[groups.len() - 1].clone();
    }
    Ok(groups)
}

/// Some of a group's runs that the rules do not keep.
pub(super) fn candidates(connection: &Connection, group: &Group, rules: Retention) -> Attempt<Vec<Candidate>> {
    let mut found = Vec::new();
    if let Some(before) = rules.ended_before {
        let mut statement = connection.prepare_cached(
            "SELECT id, ended_at FROM runs WHERE namespace = ?1 AND workflow = ?2 AND ended_at < ?3 ORDER BY ended_at LIMIT ?4",
        )?;
        for candidate in statement.query_map(params![group.0, group.1, before.0, RUNS], candidate)? {
            found.push(candidate?);
        }
    }
    if let (Some(keep), true) = (rules.keep, found.is_empty()) {
        let mut statement = connection.prepare_cached(
            "SELECT id, ended_at FROM runs WHERE namespace = ?1 AND workflow = ?2 AND ended_at IS NOT NULL
             ORDER BY ended_at DESC, id DESC LIMIT ?3 OFFSET ?4",
        )?;
        for candidate in statement.query_map(params![group.0, group.1, RUNS, signed(keep)], candidate)? {
            found.push(candidate?);
        }
    }
    Ok(found)
}

fn candidate(row: &rusqlite::Row<'_>) -> rusqlite::Result<Candidate> {
    Ok(Candidate { id: row.get(0)?, ended_at: row.get(1)? })
}

/// Removes the rows of those that were not reopened meanwhile; answers how many. What belonged to them is for [`sweep`].
pub(super) fn remove(session: &mut Session, candidates: &[Candidate]) -> Attempt<u64> {
    let connection = &session.connection;
    let mut removed = 0;
    for candidate in candidates {
        let mut still = connection.prepare_cached("SELECT 1 FROM runs WHERE id = ?1 AND ended_at = ?2")?;
        if !still.exists(params![candidate.id, candidate.ended_at])? {
            continue;
        }
        super::append::delete_labels(connection, candidate.id)?;
        connection.prepare_cached("DELETE FROM runs WHERE id = ?1")?.execute([candidate.id])?;
        connection.prepare_cached("INSERT INTO removed_runs (run) VALUES (?1)")?.execute([candidate.id])?;
        removed += 1;
    }
    Ok(removed)
}

/// What one step of sweeping did.
pub(super) struct Swept {
    pub(super) blobs: u64,
    /// Nothing is left to sweep.
    pub(super) done: bool,
}

/// Removes some of what belonged to removed runs.
pub(super) fn sweep(session: &mut Session) -> Attempt<Swept> {
    let connection = &session.connection;
    let mut budget = ENTRIES;
    let mut blobs = 0;
    while budget > 0 {
        let mut next = connection.prepare_cached("SELECT run FROM removed_runs ORDER BY run LIMIT 1")?;
        let Some(run) = next.query_row([], |row| row.get::<_, i64>(0)).optional()? else {
            return Ok(Swept { blobs, done: true });
        };
        let gone = sweep_entries(connection, run, budget, &mut blobs)?;
        if gone < budget {
            connection.prepare_cached("DELETE FROM snapshots WHERE run = ?1")?.execute([run])?;
            connection.prepare_cached("DELETE FROM removed_runs WHERE run = ?1")?.execute([run])?;
        }
        // A run without entries costs something too.
        budget = budget.saturating_sub(gone.max(1));
    }
    Ok(Swept { blobs, done: false })
}

/// Removes up to `limit` entries of a run, and blobs that nobody uses any more; answers how many entries there were.
fn sweep_entries(connection: &Connection, run: i64, limit: usize, blobs: &mut u64) -> rusqlite::Result<usize> {
    let mut select = connection.prepare_cached("SELECT id, seq, blob FROM entries WHERE run = ?1 ORDER BY seq LIMIT ?2")?;
    let found = select.query_map(params![run, super::rows::count(limit)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let entries: Vec<(i64, i64, Option<i64>)> = found.collect::<rusqlite::Result<_>>()?;
    let mut delete = connection.prepare_cached("DELETE FROM entries WHERE id = ?1")?;
    for (id, seq, blob) in &entries {
        if let Some(blob) = blob {
            *blobs += release_blob(connection, *blob, run, *seq)?;
        }
        delete.execute([id])?;
    }
    Ok(entries.len())
}

fn release_blob(connection: &Connection, blob: i64, run: i64, seq: i64) -> rusqlite::Result<u64> {
    let mut unuse = connection.prepare_cached("DELETE FROM blob_uses WHERE blob = ?1 AND run = ?2 AND seq = ?3")?;
    unuse.execute(params![blob, run, seq])?;
    let mut delete =
        connection.prepare_cached("DELETE FROM blobs WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM blob_uses WHERE blob = ?1)")?;
    Ok(delete.execute([blob])? as u64)
}
