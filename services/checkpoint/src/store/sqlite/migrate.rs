//! The schema's versions. `PRAGMA user_version` says how many migrations a file has had.

use anyhow::{Context as _, bail};
use rusqlite::{Connection, TransactionBehavior};

const MIGRATIONS: [&str; 2] =
    [include_str!("../../../migrations/0001_initial.sql"), include_str!("../../../migrations/0002_executors.sql")];

/// Applies what the file has not had. Refuses a file from the future.
pub(super) fn run(connection: &mut Connection) -> anyhow::Result<()> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = MIGRATIONS.len();
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    if done > known {
        bail!(
            "its schema is version {version}, and this Troupe knows versions up to {known}: use the newer Troupe that wrote it, or another data folder"
        );
    }
    for (i, sql) in MIGRATIONS.iter().enumerate().skip(done) {
        tx.execute_batch(sql).with_context(|| format!("migration {} failed", i + 1))?;
    }
    if done < known {
        stamp(&tx)?;
    }
    tx.commit()?;
    Ok(())
}

/// Writes the schema's version (again).
pub(super) fn stamp(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "user_version", i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_from_the_future_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        run(&mut connection).unwrap();
        run(&mut connection).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let error = run(&mut connection).unwrap_err().to_string();
        assert!(error.contains("version 99") && error.contains("newer Troupe"), "{error}");
    }
}
