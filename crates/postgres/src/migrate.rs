//! The schema's versions: the row of `<schema>.schema_version` says how many migrations the database has had. One process migrates at a
//! time, whatever its schema; all of it is one transaction.

use crate::{
    fault::Attempt,
    link::{Db, Link},
};
use anyhow::{Context as _, bail};
use sqlx::{AssertSqlSafe, Row as _};

/// The lock is held until the transaction ends, so that it works through a pooler too.
const LOCK: &str = "SELECT pg_advisory_xact_lock(1920103728::bigint << 32)";

/// A service's schema.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// Its name in the database: part of the statements, so never from outside.
    pub name: &'static str,
    /// The SQL that takes it from version `i` to `i + 1`, for each `i`; never edited once released.
    pub migrations: &'static [&'static str],
}

/// Applies what the database has not had. Refuses a schema from the future.
pub async fn run(db: &Db, schema: Schema) -> anyhow::Result<()> {
    let Schema { name, migrations } = schema;
    let mut link = db.link().await?;
    // A link that is dropped in its transaction is closed, and the server undoes what it began.
    let Ok(()) = link.transaction().await else { bail!("the database gave the connection up") };
    let begin = format!(
        "{LOCK};
         CREATE SCHEMA IF NOT EXISTS {name};
         CREATE TABLE IF NOT EXISTS {name}.schema_version (version bigint NOT NULL)"
    );
    sqlx::raw_sql(AssertSqlSafe(begin))
        .execute(link.connection())
        .await
        .with_context(|| format!("cannot prepare the schema {name}: does the user own the database?"))?;
    let select = AssertSqlSafe(format!("SELECT version FROM {name}.schema_version"));
    let row = sqlx::query(select).persistent(false).fetch_optional(link.connection()).await?;
    let version: Option<i64> = row.map(|row| row.try_get(0)).transpose()?;
    let done = usize::try_from(version.unwrap_or(0))?;
    let known = migrations.len();
    if done > known {
        bail!(
            "the schema {name} is version {done}, and this Troupe knows versions up to {known}: use the newer Troupe that made it, or another database"
        );
    }
    for (i, sql) in migrations.iter().enumerate().skip(done) {
        sqlx::raw_sql(*sql).execute(link.connection()).await.with_context(|| format!("migration {} of {name} failed", i + 1))?;
    }
    if done < known {
        let stamp = match version {
            None => format!("INSERT INTO {name}.schema_version (version) VALUES ({known})"),
            Some(_) => format!("UPDATE {name}.schema_version SET version = {known}"),
        };
        sqlx::raw_sql(AssertSqlSafe(stamp)).execute(link.connection()).await?;
        tracing::info!(schema = name, version = known, "schema migrated");
    }
    Ok(link.end(Ok(())).await?)
}

/// Asks whether the database answers, and takes writes when the last one failed.
pub async fn probe(link: &mut Link, schema: Schema, writes: bool) -> Attempt<()> {
    let name = schema.name;
    let statement = if writes { format!("UPDATE {name}.schema_version SET version = version") } else { "SELECT 1".to_owned() };
    sqlx::query(AssertSqlSafe(statement)).persistent(false).execute(link.connection()).await?;
    Ok(())
}
