//! Immutable definitions.

use super::{
    fault::Attempt,
    link::Link,
    rows::{Read, bytes, clean, count},
};
use crate::{
    model::{Definition, DefinitionKey, Listing, Micros},
    store::cursor,
};
use bytes::Bytes;
use sqlx::{Row as _, postgres::PgRow};
use troupe_domain::{Error, Namespace};

const BY_HASH: &str = "SELECT name, version, hash, created_at, body, source FROM journal.definitions
    WHERE namespace = $1 AND hash = $2 ORDER BY id DESC LIMIT 1";
const BY_VERSION: &str = "SELECT name, version, hash, created_at, body, source FROM journal.definitions
    WHERE namespace = $1 AND name = $2 AND version = $3";
const BY_NAME: &str = "SELECT name, version, hash, created_at, body, source FROM journal.definitions
    WHERE namespace = $1 AND name = $2 ORDER BY id DESC LIMIT 1";
/// The newest version of each workflow, by name: one step in the index for each.
const NEWEST: &str = "WITH RECURSIVE names AS (
        (SELECT name FROM journal.definitions WHERE namespace = $1 AND name > $2 ORDER BY name LIMIT 1)
        UNION ALL
        SELECT next.name FROM names CROSS JOIN LATERAL (
            SELECT d.name FROM journal.definitions d WHERE d.namespace = $1 AND d.name > names.name ORDER BY d.name LIMIT 1) next
    )
    SELECT d.name, d.version, d.hash, d.created_at, d.id FROM (SELECT name FROM names LIMIT $3) n CROSS JOIN LATERAL (
        SELECT * FROM journal.definitions d WHERE d.namespace = $1 AND d.name = n.name ORDER BY d.id DESC LIMIT 1) d ORDER BY d.name";
const VERSIONS: &str = "SELECT name, version, hash, created_at, id FROM journal.definitions
    WHERE namespace = $1 AND name = $2 AND id < $3 ORDER BY id DESC LIMIT $4";

fn short(row: &PgRow, namespace: &Namespace) -> Read<Definition> {
    Ok(Definition {
        namespace: namespace.clone(),
        name: row.try_get(0)?,
        version: row.try_get(1)?,
        hash: row.try_get(2)?,
        created_at: Micros(row.try_get(3)?),
        body: Bytes::new(),
        source: String::new(),
    })
}

fn full(row: &PgRow, namespace: &Namespace) -> Read<Definition> {
    Ok(Definition { body: bytes(row.try_get(4)?), source: row.try_get(5)?, ..short(row, namespace)? })
}

pub(super) async fn put(link: &mut Link, definition: &Definition) -> Attempt<(Definition, bool)> {
    let query = link.query(
        "INSERT INTO journal.definitions (namespace, name, version, hash, body, source, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (namespace, name, version) DO NOTHING",
    );
    let query = query.bind(definition.namespace.as_str()).bind(clean(&definition.name)).bind(clean(&definition.version));
    let query = query.bind(clean(&definition.hash)).bind(&definition.body[..]).bind(clean(&definition.source));
    if query.bind(definition.created_at.0).execute(link.connection()).await?.rows_affected() == 1 {
        return Ok((definition.clone(), true));
    }
    let key = DefinitionKey::Version(definition.name.clone(), definition.version.clone());
    let stored = get(link, &definition.namespace, &key).await?;
    if stored.hash == definition.hash {
        return Ok((stored, false));
    }
    let text = format!("version {} of workflow {} exists with other content", definition.version, definition.name);
    Err(Error::conflict(text).with_reason("DEFINITION").with_help("give the changed workflow a new version").into())
}

pub(super) async fn get(link: &mut Link, namespace: &Namespace, key: &DefinitionKey) -> Attempt<Definition> {
    let (sql, values) = match key {
        DefinitionKey::Hash(hash) => (BY_HASH, vec![hash]),
        DefinitionKey::Version(name, version) => (BY_VERSION, vec![name, version]),
        DefinitionKey::Newest(name) => (BY_NAME, vec![name]),
    };
    let query = values.into_iter().fold(link.query(sql).bind(namespace.as_str()), |query, value| query.bind(clean(value)));
    let row = query.fetch_optional(link.connection()).await?;
    Ok(full(&row.ok_or_else(|| Error::not_found(key))?, namespace)?)
}

pub(super) async fn list(link: &mut Link, namespace: &Namespace, name: &str, limit: usize, after: &str) -> Attempt<Listing<Definition>> {
    let query = if name.is_empty() {
        let after = cursor::decode_text(after)?;
        link.query(NEWEST).bind(namespace.as_str()).bind(after).bind(count(limit + 1))
    } else {
        let (_, last) = cursor::decode(after)?.unwrap_or((0, i64::MAX));
        link.query(VERSIONS).bind(namespace.as_str()).bind(clean(name)).bind(last).bind(count(limit + 1))
    };
    let rows = query.fetch_all(link.connection()).await?;
    let items = rows.iter().take(limit).map(|row| short(row, namespace)).collect::<Read<Vec<_>>>()?;
    let next_cursor = match items.last() {
        Some(last) if rows.len() > limit && name.is_empty() => cursor::encode_text(&last.name),
        Some(_) if rows.len() > limit => cursor::encode(0, rows[items.len() - 1].try_get(4)?),
        _ => String::new(),
    };
    Ok(Listing { items, next_cursor })
}
