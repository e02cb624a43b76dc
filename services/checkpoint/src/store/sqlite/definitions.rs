//! Immutable definitions.

use super::{
    append::namespace_for_write,
    rows::{self, count, namespace_number},
    writer::{Attempt, Session},
};
use crate::{
    model::{Definition, DefinitionKey, Listing, Micros},
    store::cursor,
};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter, types::Value};
use troupe_domain::{Error, Namespace};

const COLUMNS: &str = "d.name, d.version, d.hash, d.created_at, d.body, d.source";
/// The same without the large ones, and with the row's number.
const SHORT_COLUMNS: &str = "d.name, d.version, d.hash, d.created_at, d.id";

fn short(row: &Row<'_>, namespace: &Namespace) -> rusqlite::Result<Definition> {
    Ok(Definition {
        namespace: namespace.clone(),
        name: row.get(0)?,
        version: row.get(1)?,
        hash: row.get(2)?,
        created_at: Micros(row.get(3)?),
        body: Bytes::new(),
        source: String::new(),
    })
}

fn full(row: &Row<'_>, namespace: &Namespace) -> rusqlite::Result<Definition> {
    Ok(Definition { body: rows::bytes(row, 4)?, source: row.get(5)?, ..short(row, namespace)? })
}

pub(super) fn put(session: &mut Session, definition: &Definition) -> Attempt<(Definition, bool)> {
    let key = DefinitionKey::Version(definition.name.clone(), definition.version.clone());
    if let Some(stored) = find(&session.connection, &definition.namespace, &key)? {
        if stored.hash == definition.hash {
            return Ok((stored, false));
        }
        let text = format!("version {} of workflow {} exists with other content", definition.version, definition.name);
        return Err(Error::conflict(text).with_reason("DEFINITION").with_help("give the changed workflow a new version").into());
    }
    let namespace = namespace_for_write(session, &definition.namespace)?;
    let mut statement = session.connection.prepare_cached(
        "INSERT INTO definitions (namespace, name, version, hash, body, source, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    statement.execute(params![
        namespace,
        definition.name,
        definition.version,
        definition.hash,
        &definition.body[..],
        definition.source,
        definition.created_at.0,
    ])?;
    Ok((definition.clone(), true))
}

pub(super) fn get(connection: &Connection, namespace: &Namespace, key: &DefinitionKey) -> Attempt<Definition> {
    find(connection, namespace, key)?.ok_or_else(|| Error::not_found(key).into())
}

fn find(connection: &Connection, namespace: &Namespace, key: &DefinitionKey) -> rusqlite::Result<Option<Definition>> {
    let Some(number) = namespace_number(connection, namespace)? else { return Ok(None) };
    let (condition, values) = match key {
        DefinitionKey::Hash(hash) => ("d.hash = ?2", vec![hash]),
        DefinitionKey::Version(name, version) => ("d.name = ?2 AND d.version = ?3", vec![name, version]),
        DefinitionKey::Newest(name) => ("d.name = ?2", vec![name]),
    };
    let sql = format!("SELECT {COLUMNS} FROM definitions d WHERE d.namespace = ?1 AND {condition} ORDER BY d.id DESC LIMIT 1");
    let values = std::iter::once(Value::from(number)).chain(values.into_iter().cloned().map(Value::from));
    connection.prepare_cached(&sql)?.query_row(params_from_iter(values), |row| full(row, namespace)).optional()
}

pub(super) fn list(connection: &Connection, namespace: &Namespace, name: &str, limit: usize, after: &str) -> Attempt<Listing<Definition>> {
    let Some(number) = namespace_number(connection, namespace)? else {
        return Ok(Listing { items: Vec::new(), next_cursor: String::new() });
    };
    if name.is_empty() {
        newest(connection, namespace, number, limit, after)
    } else {
        versions(connection, namespace, number, name, limit, after)
    }
}

/// The newest version of each workflow, by name.
fn newest(connection: &Connection, namespace: &Namespace, number: i64, limit: usize, after: &str) -> Attempt<Listing<Definition>> {
    let after = cursor::decode_text(after)?;
    let sql = format!(
        "SELECT {SHORT_COLUMNS} FROM definitions d WHERE d.namespace = ?1 AND d.name > ?2
         AND d.id = (SELECT max(o.id) FROM definitions o WHERE o.namespace = ?1 AND o.name = d.name) ORDER BY d.name LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_map(params![number, after, count(limit + 1)], |row| short(row, namespace))?;
    let mut items: Vec<Definition> = found.collect::<rusqlite::Result<_>>()?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map_or_else(String::new, |last| cursor::encode_text(&last.name));
    Ok(Listing { items, next_cursor })
}

/// All versions of one workflow, newest first.
fn versions(
    connection: &Connection,
    namespace: &Namespace,
    number: i64,
    name: &str,
    limit: usize,
    after: &str,
) -> Attempt<Listing<Definition>> {
    let (_, last) = cursor::decode(after)?.unwrap_or((0, i64::MAX));
    let sql = format!(
        "SELECT {SHORT_COLUMNS} FROM definitions d WHERE d.namespace = ?1 AND d.name = ?2 AND d.id < ?3 ORDER BY d.id DESC LIMIT ?4"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_map(params![number, name, last, count(limit + 1)], |row| Ok((row.get(4)?, short(row, namespace)?)))?;
    let mut items: Vec<(i64, Definition)> = found.collect::<rusqlite::Result<_>>()?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map_or_else(String::new, |(id, _)| cursor::encode(0, *id));
    Ok(Listing { items: items.into_iter().map(|(_, definition)| definition).collect(), next_cursor })
}
