//! The schema's versions: the row of `journal.schema_version` says how many migrations the database has had. One process migrates at a
//! time; all of it is one transaction.

use super::{
    fault::Attempt,
    link::{Db, Link},
};
use anyhow::{Context as _, bail};
use sqlx::Row as _;

const MIGRATIONS: [&str; 2] =
    [include_str!("../../../migrations/postgres/0001_initial.sql"), include_str!("../../../migrations/postgres/0002_functions.sql")];

/// The lock is held until the transaction ends, so that it works through a pooler too.
const BEGIN: &str = "SELECT pg_advisory_xact_lock(1920103728::bigint << 32);
    CREATE SCHEMA IF NOT EXISTS journal;
    CREATE TABLE IF NOT EXISTS journal.schema_version (version bigint NOT NULL)";
const VERSION: &str = "SELECT version FROM journal.schema_version";

/// Applies what the database has not had. Refuses a schema from the future.
pub(super) async fn run(db: &Db) -> anyhow::Result<()> {
    let mut link = db.link().await?;
    // A link that is dropped in its transaction is closed, and the server undoes what it began.
    let Ok(()) = link.transaction().await else { bail!("the database gave the connection up") };
    sqlx::raw_sql(BEGIN).execute(link.connection()).await.context("cannot prepare the schema: does the user own the database?")?;
    let row = link.query(VERSION).fetch_optional(link.connection()).await?;
    let version: Option<i64> = row.map(|row| row.try_get(0)).transpose()?;
    let done = usize::try_from(version.unwrap_or(0))?;
    let known = MIGRATIONS.len();
    if done > known {
        bail!(
            "the journal's schema is version {done}, and this Troupe knows versions up to {known}: use the newer Troupe that made it, or another database"
        );
    }
    for (i, sql) in MIGRATIONS.iter().enumerate().skip(done) {
        sqlx::raw_sql(*sql).execute(link.connection()).await.with_context(|| format!("migration {} failed", i + 1))?;
    }
    if done < known {
        let stamp = match version {
            None => "INSERT INTO journal.schema_version (version) VALUES ($1)",
            Some(_) => "UPDATE journal.schema_version SET version = $1",
        };
        link.query(stamp).bind(i64::try_from(known)?).execute(link.connection()).await?;
    }
    Ok(link.end(Ok(())).await?)
}

/// Asks whether the database answers, and takes writes when the last one failed.
pub(super) async fn probe(link: &mut Link, writes: bool) -> Attempt<()> {
    let statement = if writes { "UPDATE journal.schema_version SET version = version" } else { "SELECT 1" };
    link.query(statement).execute(link.connection()).await?;
    Ok(())
}
