//! Appending a batch: first everything is validated, then everything is written.

use super::{
    rows::{namespace_number, signed, some_bytes, some_text, unsigned},
    writer::{Attempt, Session},
};
use crate::{
    error::StoreError,
    model::{Batch, Entry, RunRow, RunWrite, Snapshot},
    store::blob::{Digest, Digests},
};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::{BTreeMap, HashMap};
use troupe_domain::{Error, Namespace};

/// Writes the whole batch or refuses it.
pub(super) fn append(session: &mut Session, batch: &Batch, digests: &Digests) -> Attempt<()> {
    check_epoch(&session.connection, batch)?;
    let mut before = validate(session, batch)?;
    for (w, write) in batch.writes.iter().enumerate() {
        let known = std::mem::take(&mut before[w]);
        write_run(session, write, known, &|entry| digests.get(&(w, entry)))?;
    }
    Ok(())
}

fn check_epoch(connection: &Connection, batch: &Batch) -> Attempt<()> {
    let mut statement = connection.prepare_cached("SELECT epoch FROM partitions WHERE partition = ?1")?;
    let newest = unsigned(statement.query_row([batch.partition], |row| row.get(0)).optional()?.unwrap_or(0));
    if newest == 0 || newest != batch.epoch {
        return Err(StoreError::StaleEpoch { partition: batch.partition, given: batch.epoch, newest }.into());
    }
    Ok(())
}

/// What is known of a run's row before a write.
#[derive(Default)]
enum Before {
    /// It has to be looked at again: an earlier write of the same batch changes it.
    #[default]
    Stale,
    New,
    Stored(Stored),
}

struct Stored {
    id: i64,
    seq: u64,
    ended: bool,
    same_wake: bool,
    /// The columns that change seldom have the values they are to have.
    same_rest: bool,
    same_labels: bool,
}

/// Finds out what every write meets, and refuses the batch if one of them does not fit. Writes nothing.
fn validate(session: &mut Session, batch: &Batch) -> Attempt<Vec<Before>> {
    let mut found = Vec::with_capacity(batch.writes.len());
    let mut seen = HashMap::with_capacity(batch.writes.len());
    for write in &batch.writes {
        // A second write of the same run follows the first one, which is not written yet.
        if let Some(earlier) = seen.insert(&write.row.key, write.row.seq) {
            in_sequence(write, earlier)?;
            found.push(Before::Stale);
            continue;
        }
        let before = look_up(session, write, batch.partition)?;
        in_sequence(write, before.as_ref().map_or(0, |stored| stored.seq))?;
        found.push(before.map_or(Before::New, Before::Stored));
    }
    Ok(found)
}

fn in_sequence(write: &RunWrite, actual: u64) -> Result<(), StoreError> {
    if actual == write.expected_seq {
        return Ok(());
    }
    Err(StoreError::Sequence { run: write.row.key.id, expected: write.expected_seq, actual })
}

fn look_up(session: &mut Session, write: &RunWrite, partition: u32) -> Attempt<Option<Stored>> {
    let row = &write.row;
    let Some(namespace) = known_namespace(session, &row.key.namespace)? else { return Ok(None) };
    let mut statement = session.connection.prepare_cached(
        "SELECT id, seq, partition, status, priority, ended_at, wake_at, dead_queue, version, definition_hash, error_code, error_message, labels
         FROM runs WHERE namespace = ?1 AND run_id = ?2",
    )?;
    let found = statement.query_row(params![namespace, row.key.id.0.as_bytes()], |stored| compare(stored, row)).optional()?;
    let Some((place, stored)) = found else { return Ok(None) };
    if place != partition {
        let text = format!("run {} is in partition {place}, not {partition}: the number of partitions was changed", row.key.id);
        let help = "use the number of partitions that the journal was begun with";
        return Err(Error::precondition(text).with_reason("PARTITION").with_help(help).into());
    }
    Ok(Some(stored))
}

/// The stored row against the row to be, without copying its texts.
fn compare(stored: &rusqlite::Row<'_>, row: &RunRow) -> rusqlite::Result<(u32, Stored)> {
    let same_text =
        |column: usize, text: &str| -> rusqlite::Result<bool> { Ok(stored.get_ref(column)?.as_str_or_null()?.unwrap_or_default() == text) };
    let ended_at: Option<i64> = stored.get(5)?;
    let same_rest = stored.get::<_, i64>(3)? == row.status as i64
        && stored.get::<_, u32>(4)? == row.priority
        && ended_at == row.ended_at.map(|at| at.0)
        && same_text(7, &row.dead_queue)?
        && same_text(8, &row.version)?
        && same_text(9, &row.definition_hash)?
        && same_text(10, &row.error_code)?
        && same_text(11, &row.error_message)?;
    let same_wake = stored.get::<_, Option<i64>>(6)? == row.wake_at.map(|at| at.0);
    let same_labels = stored.get_ref(12)?.as_str_or_null()?.unwrap_or_default() == labels_text(&row.labels).unwrap_or_default();
    let seq = unsigned(stored.get(1)?);
    let value = Stored { id: stored.get(0)?, seq, ended: ended_at.is_some(), same_wake, same_rest, same_labels };
    Ok((stored.get(2)?, value))
}

fn labels_text(labels: &BTreeMap<String, String>) -> Option<String> {
    // A map of texts always has a JSON text.
    (!labels.is_empty()).then(|| serde_json::to_string(labels).unwrap_or_default())
}

fn known_namespace(session: &mut Session, namespace: &Namespace) -> rusqlite::Result<Option<i64>> {
    if let Some(number) = session.namespaces.get(namespace) {
        return Ok(Some(*number));
    }
    let number = namespace_number(&session.connection, namespace)?;
    if let Some(number) = number {
        session.namespaces.insert(namespace.clone(), number);
    }
    Ok(number)
}

/// The number of a namespace, given to it now if it has none.
pub(super) fn namespace_for_write(session: &mut Session, namespace: &Namespace) -> rusqlite::Result<i64> {
    if let Some(number) = known_namespace(session, namespace)? {
        return Ok(number);
    }
    session.connection.prepare_cached("INSERT INTO namespaces (name) VALUES (?1)")?.execute([namespace.as_str()])?;
    let number = session.connection.last_insert_rowid();
    session.namespaces.insert(namespace.clone(), number);
    Ok(number)
}

fn write_run<'a>(session: &mut Session, write: &RunWrite, before: Before, digest: &dyn Fn(usize) -> Option<&'a Digest>) -> Attempt<()> {
    let before = match before {
        Before::Stale => look_up(session, write, write.row.partition)?,
        Before::New => None,
        Before::Stored(stored) => Some(stored),
    };
    let id = match &before {
        None => insert_run(session, &write.row)?,
        Some(stored) => {
            update_run(session, &write.row, stored)?;
            stored.id
        }
    };
    for (e, entry) in write.entries.iter().enumerate() {
        insert_entry(&session.connection, id, entry, digest(e))?;
    }
    if let Some(snapshot) = &write.snapshot {
        put_snapshot(&session.connection, id, snapshot)?;
    }
    if write.row.ended_at.is_some() && !before.is_some_and(|stored| stored.ended) {
        thin_snapshots(&session.connection, id, session.snapshots_kept)?;
    }
    Ok(())
}

fn insert_run(session: &mut Session, row: &RunRow) -> rusqlite::Result<i64> {
    let namespace = namespace_for_write(session, &row.key.namespace)?;
    // Numbers of removed runs are not given again while their entries are still there.
    let mut statement = session.connection.prepare_cached(
        "INSERT INTO runs (id, namespace, run_id, partition, seq, status, priority, created_at, updated_at, ended_at, wake_at, parent,
             dead_queue, workflow, version, definition_hash, labels, error_code, error_message)
         VALUES (1 + max(ifnull((SELECT max(id) FROM runs), 0), ifnull((SELECT max(run) FROM removed_runs), 0)),
             ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
    )?;
    statement.execute(params![
        namespace,
        row.key.id.0.as_bytes(),
        row.partition,
        signed(row.seq),
        row.status as i64,
        row.priority,
        row.created_at.0,
        row.updated_at.0,
        row.ended_at.map(|at| at.0),
        row.wake_at.map(|at| at.0),
        row.parent.as_ref().map(|id| id.0.as_bytes()),
        some_text(&row.dead_queue),
        row.workflow,
        row.version,
        row.definition_hash,
        labels_text(&row.labels),
        some_text(&row.error_code),
        some_text(&row.error_message),
    ])?;
    let id = session.connection.last_insert_rowid();
    insert_labels(&session.connection, namespace, id, row.created_at.0, &row.labels)?;
    Ok(id)
}

fn insert_labels(
    connection: &Connection,
    namespace: i64,
    run: i64,
    created_at: i64,
    labels: &BTreeMap<String, String>,
) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("INSERT INTO run_labels (namespace, key, value, created_at, run) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for (key, value) in labels {
        statement.execute(params![namespace, key, value, created_at, run])?;
    }
    Ok(())
}

/// Removes the label rows of a run, whose row is still there.
pub(super) fn delete_labels(connection: &Connection, run: i64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM run_labels WHERE (namespace, key, value, created_at, run) IN (
             SELECT r.namespace, l.key, l.value, r.created_at, r.id FROM runs r, json_each(r.labels) l WHERE r.id = ?1 AND r.labels IS NOT NULL)",
    )?;
    statement.execute([run])?;
    Ok(())
}

/// Touches only the columns that change: SQLite maintains an index when a statement sets one of its columns, to whatever value.
/// Namespace, workflow, partition, parent and time of creation never change.
fn update_run(session: &Session, row: &RunRow, stored: &Stored) -> rusqlite::Result<()> {
    let connection = &session.connection;
    let (seq, updated, wake) = (signed(row.seq), row.updated_at.0, row.wake_at.map(|at| at.0));
    if stored.same_rest && stored.same_wake {
        connection.prepare_cached("UPDATE runs SET seq = ?1, updated_at = ?2 WHERE id = ?3")?.execute(params![seq, updated, stored.id])?;
    } else if stored.same_rest {
        let mut statement = connection.prepare_cached("UPDATE runs SET seq = ?1, updated_at = ?2, wake_at = ?3 WHERE id = ?4")?;
        statement.execute(params![seq, updated, wake, stored.id])?;
    } else {
        let mut statement = connection.prepare_cached(
            "UPDATE runs SET seq = ?1, updated_at = ?2, wake_at = ?3, status = ?4, priority = ?5, ended_at = ?6, dead_queue = ?7,
                 version = ?8, definition_hash = ?9, error_code = ?10, error_message = ?11
             WHERE id = ?12",
        )?;
        statement.execute(params![
            seq,
            updated,
            wake,
            row.status as i64,
            row.priority,
            row.ended_at.map(|at| at.0),
            some_text(&row.dead_queue),
            row.version,
            row.definition_hash,
            some_text(&row.error_code),
            some_text(&row.error_message),
            stored.id,
        ])?;
    }
    if stored.same_labels { Ok(()) } else { replace_labels(connection, stored.id, &row.labels) }
}

fn replace_labels(connection: &Connection, run: i64, labels: &BTreeMap<String, String>) -> rusqlite::Result<()> {
    delete_labels(connection, run)?;
    let mut statement = connection.prepare_cached("UPDATE runs SET labels = ?1 WHERE id = ?2 RETURNING namespace, created_at")?;
    let (namespace, created_at) = statement.query_row(params![labels_text(labels), run], |row| Ok((row.get(0)?, row.get(1)?)))?;
    insert_labels(connection, namespace, run, created_at, labels)
}

fn insert_entry(connection: &Connection, run: i64, entry: &Entry, digest: Option<&Digest>) -> rusqlite::Result<()> {
    let blob = digest.map(|digest| use_blob(connection, run, entry, digest)).transpose()?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO entries (run, seq, at, kind, traceparent, event, changes, payload, blob) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    statement.execute(params![
        run,
        signed(entry.seq),
        entry.at.0,
        entry.kind,
        some_text(&entry.traceparent),
        some_bytes(&entry.event),
        some_bytes(&entry.changes),
        if blob.is_some() { None } else { some_bytes(&entry.payload) },
        blob,
    ])?;
    Ok(())
}

/// The number of the blob with this payload, stored now if nobody had it.
fn use_blob(connection: &Connection, run: i64, entry: &Entry, digest: &Digest) -> rusqlite::Result<i64> {
    let mut find = connection.prepare_cached("SELECT id FROM blobs WHERE hash = ?1")?;
    let blob = match find.query_row([&digest[..]], |row| row.get(0)).optional()? {
        Some(blob) => blob,
        None => {
            let mut insert = connection.prepare_cached("INSERT INTO blobs (hash, body) VALUES (?1, ?2)")?;
            insert.execute(params![&digest[..], &entry.payload[..]])?;
            connection.last_insert_rowid()
        }
    };
    let mut statement = connection.prepare_cached("INSERT INTO blob_uses (blob, run, seq) VALUES (?1, ?2, ?3)")?;
    statement.execute(params![blob, run, signed(entry.seq)])?;
    Ok(blob)
}

fn put_snapshot(connection: &Connection, run: i64, snapshot: &Snapshot) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO snapshots (run, seq, state) VALUES (?1, ?2, ?3) ON CONFLICT (run, seq) DO UPDATE SET state = excluded.state",
    )?;
    statement.execute(params![run, signed(snapshot.seq), &snapshot.state[..]])?;
    Ok(())
}

/// Keeps the newest snapshots of a run that ended. Older states are read from the entries, which all stay.
fn thin_snapshots(connection: &Connection, run: i64, keep: u32) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM snapshots WHERE run = ?1 AND seq <= (SELECT seq FROM snapshots WHERE run = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
    )?;
    statement.execute(params![run, keep])?;
    Ok(())
}
