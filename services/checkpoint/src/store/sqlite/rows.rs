//! Rows of the database as values of the model.

use crate::model::{Entry, Micros, RunKey, RunRow, Snapshot, Status};
use bytes::Bytes;
use rusqlite::{
    Connection, OptionalExtension as _, Row,
    types::{Type, ValueRef},
};
use std::collections::BTreeMap;
use troupe_domain::{Namespace, RunId};
use uuid::Uuid;

/// Columns of `runs r JOIN namespaces n`, as [`run`] reads them.
pub(super) const RUN_COLUMNS: &str = "r.id, n.name, r.run_id, r.partition, r.seq, r.status, r.priority, r.created_at, r.updated_at, \
     r.ended_at, r.wake_at, r.parent, r.dead_queue, r.workflow, r.version, r.definition_hash, r.labels, r.error_code, r.error_message";

/// Columns of `entries e LEFT JOIN blobs b`, as [`entry`] reads them.
pub(super) const ENTRY_COLUMNS: &str = "e.seq, e.at, e.kind, e.traceparent, e.event, e.changes, ifnull(e.payload, b.body)";

/// A row's number and its values.
pub(super) fn run(row: &Row<'_>) -> rusqlite::Result<(i64, RunRow)> {
    let value = RunRow {
        key: RunKey { namespace: namespace(row, 1)?, id: run_id(row, 2)? },
        partition: row.get(3)?,
        seq: unsigned(row.get(4)?),
        status: status(row, 5)?,
        priority: row.get(6)?,
        created_at: Micros(row.get(7)?),
        updated_at: Micros(row.get(8)?),
        ended_at: row.get::<_, Option<i64>>(9)?.map(Micros),
        wake_at: row.get::<_, Option<i64>>(10)?.map(Micros),
        parent: row.get::<_, Option<[u8; 16]>>(11)?.map(|bytes| RunId(Uuid::from_bytes(bytes))),
        dead_queue: text(row, 12)?,
        workflow: text(row, 13)?,
        version: text(row, 14)?,
        definition_hash: text(row, 15)?,
        labels: labels(row, 16)?,
        error_code: text(row, 17)?,
        error_message: text(row, 18)?,
    };
    Ok((row.get(0)?, value))
}

pub(super) fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        seq: unsigned(row.get(0)?),
        at: Micros(row.get(1)?),
        kind: text(row, 2)?,
        traceparent: text(row, 3)?,
        event: bytes(row, 4)?,
        changes: bytes(row, 5)?,
        payload: bytes(row, 6)?,
    })
}

/// A sequence number and a state.
pub(super) fn snapshot(row: &Row<'_>) -> rusqlite::Result<Snapshot> {
    Ok(Snapshot { seq: unsigned(row.get(0)?), state: bytes(row, 1)? })
}

pub(super) fn namespace(row: &Row<'_>, column: usize) -> rusqlite::Result<Namespace> {
    Namespace::parse(row.get_ref(column)?.as_str()?).map_err(|error| damaged(column, Type::Text, error))
}

pub(super) fn run_id(row: &Row<'_>, column: usize) -> rusqlite::Result<RunId> {
    Ok(RunId(Uuid::from_bytes(row.get(column)?)))
}

fn status(row: &Row<'_>, column: usize) -> rusqlite::Result<Status> {
    Status::from_number(row.get(column)?).ok_or_else(|| damaged(column, Type::Integer, "no status has this number"))
}

fn labels(row: &Row<'_>, column: usize) -> rusqlite::Result<BTreeMap<String, String>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(BTreeMap::new()),
        value => serde_json::from_str(value.as_str()?).map_err(|error| damaged(column, Type::Text, error)),
    }
}

/// NULL is the empty text.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(row.get::<_, Option<String>>(column)?.unwrap_or_default())
}

/// NULL is nothing.
pub(super) fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    Ok(row.get::<_, Option<Vec<u8>>>(column)?.map(Bytes::from).unwrap_or_default())
}

fn damaged(column: usize, kind: Type, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, kind, error.into())
}

/// The number of a namespace, if it was ever used.
pub(super) fn namespace_number(connection: &Connection, namespace: &Namespace) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached("SELECT id FROM namespaces WHERE name = ?1")?.query_row([namespace.as_str()], |row| row.get(0)).optional()
}

/// For a column: numbers stay below 2^53 (`model::check`), so nothing is lost.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// NULL for the empty text.
pub(super) fn some_text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// NULL for nothing.
pub(super) fn some_bytes(bytes: &Bytes) -> Option<&[u8]> {
    (!bytes.is_empty()).then_some(bytes)
}

/// For a LIMIT.
pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
