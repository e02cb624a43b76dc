//! Definitions in a SQLite file.

use super::{Put, Store};
use crate::agent::{Active, Definition, Key, Standing, State, Time};
use async_trait::async_trait;
use chrono::DateTime;
use std::path::PathBuf;
use troupe_domain::{Error, Json};
use troupe_sqlite::{
    Database, Migrations, OpenError, Outcome,
    rusqlite::{Connection, OptionalExtension, Result as Sql, Row, params},
};

const MIGRATIONS: Migrations = &[include_str!("../../migrations/0001_initial.sql")];

/// See the module.
#[derive(Clone, Debug)]
pub struct SqliteStore(Database);

impl SqliteStore {
    /// Opens or creates the file. Refuses one that a newer Troupe wrote.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        Ok(Self(Database::open(path, MIGRATIONS).await?))
    }
}

/// What was stored was checked when it came: failing to read it back means a damaged file.
fn damaged(what: &'static str) -> Error {
    tracing::error!(what, "a stored value cannot be read");
    Error::internal()
}

fn time(micros: i64) -> Result<Time, Error> {
    DateTime::from_timestamp_micros(micros).ok_or_else(|| damaged("time"))
}

/// A row of `versions` as text, in the order of [`VERSION`].
struct Raw {
    key: Key,
    version: String,
    hash: String,
    kind: String,
    capabilities: String,
    spec: String,
    source: String,
}

const VERSION: &str = "v.namespace, v.name, v.version, v.hash, v.kind, v.capabilities, v.spec";

impl Raw {
    fn read(row: &Row<'_>) -> Sql<Self> {
        Ok(Self {
            key: Key { namespace: row.get(0)?, name: row.get(1)? },
            version: row.get(2)?,
            hash: row.get(3)?,
            kind: row.get(4)?,
            capabilities: row.get(5)?,
            spec: row.get(6)?,
            source: String::new(),
        })
    }

    fn definition(self) -> Result<Definition, Error> {
        Ok(Definition {
            key: self.key,
            version: self.version,
            hash: self.hash,
            kind: self.kind,
            capabilities: serde_json::from_str(&self.capabilities).map_err(|_| damaged("capabilities"))?,
            spec: Json::parse(self.spec.as_bytes(), "spec").map_err(|_| damaged("spec"))?,
            source: self.source,
        })
    }
}

fn load_active(connection: &Connection) -> Outcome<Vec<Active>> {
    let mut statement = connection.prepare(&format!(
        "SELECT {VERSION}, a.created_at, a.updated_at FROM agents a
         JOIN versions v ON v.namespace = a.namespace AND v.name = a.name AND v.version = a.active_version"
    ))?;
    let rows = statement.query_map([], |row| Ok((Raw::read(row)?, row.get::<_, i64>(7)?, row.get::<_, i64>(8)?)))?;
    let rows = rows.collect::<Sql<Vec<_>>>()?;
    let active = rows.into_iter().map(|(raw, created_at, updated_at)| {
        Ok(Active { definition: raw.definition()?, created_at: time(created_at)?, updated_at: time(updated_at)? })
    });
    Ok(active.collect::<Result<_, Error>>()?)
}

fn load_standings(connection: &Connection) -> Outcome<Vec<(Key, Standing)>> {
    let mut statement = connection.prepare("SELECT namespace, name, state, reason, updated_at FROM standings")?;
    let rows = statement.query_map([], |row| {
        let key = Key { namespace: row.get(0)?, name: row.get(1)? };
        Ok((key, row.get::<_, String>(2)?, row.get::<_, String>(3)?, row.get::<_, i64>(4)?))
    })?;
    let rows = rows.collect::<Sql<Vec<_>>>()?;
    let standings = rows.into_iter().map(|(key, state, reason, updated_at)| {
        let state = State::from_name(&state).ok_or_else(|| damaged("state"))?;
        Ok((key, Standing { state, reason, updated_at: time(updated_at)? }))
    });
    Ok(standings.collect::<Result<_, Error>>()?)
}

fn find(connection: &Connection, key: &Key, version: &str) -> Outcome<Option<Definition>> {
    let sql = format!("SELECT {VERSION}, v.source FROM versions v WHERE v.namespace = ?1 AND v.name = ?2 AND v.version = ?3");
    let raw = connection
        .prepare_cached(&sql)?
        .query_row(params![key.namespace, key.name, version], |row| Ok(Raw { source: row.get(7)?, ..Raw::read(row)? }))
        .optional()?;
    Ok(raw.map(Raw::definition).transpose()?)
}

fn put(connection: &Connection, new: &Definition, now: Time, keep: usize) -> Outcome<Put> {
    let key = &new.key;
    let known = find(connection, key, &new.version)?;
    if known.as_ref().is_some_and(|known| known.hash != new.hash) {
        return Ok(Put::Conflict);
    }
    if known.is_none() {
        let capabilities = serde_json::to_string(&new.capabilities).map_err(|_| damaged("capabilities"))?;
        connection
            .prepare_cached(
                "INSERT INTO versions (namespace, name, version, hash, kind, capabilities, spec, source)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![key.namespace, key.name, new.version, new.hash, new.kind, capabilities, new.spec.as_str(), new.source])?;
    }
    let (created_at, updated_at) = activate(connection, new, now)?;
    drop_surplus(connection, key, keep)?;
    let definition = Definition { source: String::new(), ..new.clone() };
    let active = Box::new(Active { definition, created_at: time(created_at)?, updated_at: time(updated_at)? });
    Ok(Put::Stored { created: known.is_none(), active })
}

/// Makes a version the active one; one that is already keeps its time.
fn activate(connection: &Connection, new: &Definition, now: Time) -> Outcome<(i64, i64)> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO agents (namespace, name, active_version, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?4)
         ON CONFLICT (namespace, name) DO UPDATE SET
             updated_at = CASE active_version WHEN excluded.active_version THEN updated_at ELSE excluded.updated_at END,
             active_version = excluded.active_version
         RETURNING created_at, updated_at",
    )?;
    let values = params![new.key.namespace, new.key.name, new.version, now.timestamp_micros()];
    Ok(statement.query_row(values, |row| Ok((row.get(0)?, row.get(1)?)))?)
}

fn drop_surplus(connection: &Connection, key: &Key, keep: usize) -> Outcome<()> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM versions WHERE seq IN (
             SELECT v.seq FROM versions v JOIN agents a USING (namespace, name)
             WHERE v.namespace = ?1 AND v.name = ?2 AND v.version != a.active_version
             ORDER BY v.seq DESC LIMIT -1 OFFSET ?3)",
    )?;
    // The active one is kept besides.
    let others = i64::try_from(keep.saturating_sub(1)).unwrap_or(i64::MAX);
    statement.execute(params![key.namespace, key.name, others])?;
    Ok(())
}

fn delete(connection: &Connection, key: &Key) -> Outcome<bool> {
    let mut deleted = 0;
    for table in ["versions", "agents", "standings"] {
        let sql = format!("DELETE FROM {table} WHERE namespace = ?1 AND name = ?2");
        deleted += connection.prepare_cached(&sql)?.execute(params![key.namespace, key.name])?;
    }
    Ok(deleted > 0)
}

#[async_trait]
impl Store for SqliteStore {
    async fn load(&self) -> Result<(Vec<Active>, Vec<(Key, Standing)>), Error> {
        self.0.read(|c| Ok((load_active(c)?, load_standings(c)?))).await
    }

    async fn version(&self, key: Key, version: String) -> Result<Option<Definition>, Error> {
        self.0.read(move |c| find(c, &key, &version)).await
    }

    async fn put(&self, definition: Definition, now: Time, keep: usize) -> Result<Put, Error> {
        self.0.write(move |c| put(c, &definition, now, keep)).await
    }

    async fn delete(&self, key: Key) -> Result<bool, Error> {
        self.0.write(move |c| delete(c, &key)).await
    }

    async fn set_standing(&self, key: Key, standing: Standing) -> Result<(), Error> {
        let sql = "INSERT OR REPLACE INTO standings (namespace, name, state, reason, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)";
        let write = self.0.write(move |c| {
            let at = standing.updated_at.timestamp_micros();
            c.execute(sql, params![key.namespace, key.name, standing.state.name(), standing.reason, at])?;
            Ok(())
        });
        write.await
    }

    async fn check(&self) -> Result<(), Error> {
        self.0.check().await
    }
}
