//! Rows of the database as values of the model, and back.

use crate::model::{Entry, Micros, RunKey, RunRow, Status};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use sqlx::{Row as _, postgres::PgRow};
use std::{borrow::Cow, collections::BTreeMap};
use troupe_domain::{Namespace, RunId};
use uuid::Uuid;

/// Columns of `runs r`, as [`run`] reads them.
macro_rules! run_columns {
    () => {
        "r.id, r.namespace, r.run_id, r.partition, r.seq, r.status, r.priority, r.created_at, r.updated_at, r.ended_at, r.wake_at, \
         r.parent, r.dead_queue, r.workflow, r.version, r.definition_hash, r.labels, r.error_code, r.error_message"
    };
}
pub(super) use run_columns;

pub(super) type Read<T> = Result<T, sqlx::Error>;

/// The most bytes of a label's value that the index holds as it is: its pages take entries of 2,700 bytes at most.
const INDEXED_BYTES: usize = 512;

/// A row's number and its values.
pub(super) fn run(row: &PgRow) -> Read<(i64, RunRow)> {
    let value = RunRow {
        key: RunKey { namespace: namespace(row, 1)?, id: RunId(row.try_get(2)?) },
        partition: narrow(row.try_get(3)?)?,
        seq: unsigned(row.try_get(4)?),
        status: Status::from_number(row.try_get::<i16, _>(5)?.into()).ok_or_else(|| damaged("no status has this number"))?,
        priority: narrow(row.try_get(6)?)?,
        created_at: Micros(row.try_get(7)?),
        updated_at: Micros(row.try_get(8)?),
        ended_at: row.try_get::<Option<i64>, _>(9)?.map(Micros),
        wake_at: row.try_get::<Option<i64>, _>(10)?.map(Micros),
        parent: row.try_get::<Option<Uuid>, _>(11)?.map(RunId),
        dead_queue: text(row, 12)?,
        workflow: row.try_get(13)?,
        version: row.try_get(14)?,
        definition_hash: row.try_get(15)?,
        labels: labels(row, 16)?,
        error_code: text(row, 17)?,
        error_message: text(row, 18)?,
    };
    Ok((row.try_get(0)?, value))
}

/// From the columns seq, at, kind, traceparent, event, changes and payload.
pub(super) fn entry(row: &PgRow) -> Read<Entry> {
    Ok(Entry {
        seq: unsigned(row.try_get(0)?),
        at: Micros(row.try_get(1)?),
        kind: row.try_get(2)?,
        traceparent: text(row, 3)?,
        event: bytes(row.try_get(4)?),
        changes: bytes(row.try_get(5)?),
        payload: bytes(row.try_get(6)?),
    })
}

pub(super) fn namespace(row: &PgRow, column: usize) -> Read<Namespace> {
    Namespace::parse(row.try_get::<&str, _>(column)?).map_err(damaged)
}

fn labels(row: &PgRow, column: usize) -> Read<BTreeMap<String, String>> {
    match row.try_get::<Option<&str>, _>(column)? {
        None => Ok(BTreeMap::new()),
        Some(text) => serde_json::from_str(text).map_err(damaged),
    }
}

/// A JSON object; NULL for no labels.
pub(super) fn labels_text(labels: &BTreeMap<String, String>) -> Option<String> {
    // A map of texts always has a JSON text.
    (!labels.is_empty()).then(|| serde_json::to_string(labels).unwrap_or_default())
}

/// NULL is the empty text.
fn text(row: &PgRow, column: usize) -> Read<String> {
    Ok(row.try_get::<Option<String>, _>(column)?.unwrap_or_default())
}

/// NULL is nothing.
pub(super) fn bytes(value: Option<Vec<u8>>) -> Bytes {
    value.map(Bytes::from).unwrap_or_default()
}

fn damaged(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

fn narrow(number: i64) -> Read<u32> {
    u32::try_from(number).map_err(damaged)
}

/// For a column: numbers stay below 2^53 (`model::check`), so nothing is lost.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// For a LIMIT.
pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// PostgreSQL's texts cannot hold the character zero: it becomes the replacement character.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// NULL for the empty text.
pub(super) fn some_text(text: &str) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then(|| clean(text))
}

/// NULL for nothing.
pub(super) fn some_bytes(bytes: &Bytes) -> Option<&[u8]> {
    (!bytes.is_empty()).then_some(bytes)
}

/// A label's value as the index has it: a long one as its hash.
pub(super) fn indexed(value: &str) -> Cow<'_, str> {
    if value.len() > INDEXED_BYTES { Cow::Owned(format!("sha256:{}", hex::encode(Sha256::digest(value)))) } else { clean(value) }
}
