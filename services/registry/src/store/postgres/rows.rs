//! Rows of the database as values of the registry.

use crate::agent::{Active, Definition, Key, Standing, State, Time};
use chrono::DateTime;
use sqlx::{Row as _, postgres::PgRow};
use troupe_domain::{Error, Json};
use troupe_postgres::Attempt;

/// Columns of `versions v`, as [`definition`] reads them.
macro_rules! agent_columns {
    () => {
        "v.namespace, v.name, v.version, v.hash, v.kind, v.capabilities, v.spec"
    };
}
pub(super) use agent_columns;

/// What was stored was checked when it came: failing to read it back means a damaged database.
fn damaged(what: &'static str) -> Error {
    tracing::error!(what, "a stored value cannot be read");
    Error::internal()
}

pub(super) fn time(row: &PgRow, column: usize) -> Attempt<Time> {
    Ok(DateTime::from_timestamp_micros(row.try_get(column)?).ok_or_else(|| damaged("time"))?)
}

pub(super) fn key(row: &PgRow, column: usize) -> Attempt<Key> {
    Ok(Key { namespace: row.try_get(column)?, name: row.try_get(column + 1)? })
}

/// Without its source.
pub(super) fn definition(row: &PgRow) -> Attempt<Definition> {
    Ok(Definition {
        key: key(row, 0)?,
        version: row.try_get(2)?,
        hash: row.try_get(3)?,
        kind: row.try_get(4)?,
        capabilities: serde_json::from_str(row.try_get(5)?).map_err(|_| damaged("capabilities"))?,
        spec: Json::parse(row.try_get::<&str, _>(6)?.as_bytes(), "spec").map_err(|_| damaged("spec"))?,
        source: String::new(),
    })
}

pub(super) fn capabilities(definition: &Definition) -> Attempt<String> {
    Ok(serde_json::to_string(&definition.capabilities).map_err(|_| damaged("capabilities"))?)
}

pub(super) fn active(row: &PgRow) -> Attempt<Active> {
    Ok(Active { definition: definition(row)?, created_at: time(row, 7)?, updated_at: time(row, 8)? })
}

pub(super) fn standing(row: &PgRow) -> Attempt<(Key, Standing)> {
    let state = State::from_name(row.try_get(2)?).ok_or_else(|| damaged("state"))?;
    Ok((key(row, 0)?, Standing { state, reason: row.try_get(3)?, updated_at: time(row, 4)? }))
}
