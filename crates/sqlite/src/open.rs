//! Opening a file: settings that make a commit durable, and the schema.

use crate::Migrations;
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};

/// How long a connection waits for another process's lock.
const BUSY: std::time::Duration = std::time::Duration::from_secs(5);

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot create the directory {}: {cause}", .path.display())]
    Directory { path: PathBuf, cause: std::io::Error },
    #[error("cannot open {}: {cause}", .path.display())]
    Sqlite { path: PathBuf, cause: rusqlite::Error },
    #[error("{} was written by a newer Troupe (schema {found}, this program knows {known}): start the newer program", .path.display())]
    Future { path: PathBuf, found: i64, known: i64 },
    #[error("{} cannot use a write-ahead log (journal mode is '{mode}'): put it on a local file system", .path.display())]
    NoWal { path: PathBuf, mode: String },
    #[error("migration {version} of {} failed: {cause}", .path.display())]
    Migration { path: PathBuf, version: i64, cause: rusqlite::Error },
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// The connection that writes. Creates the file and its directory, and brings the schema up to date.
pub(crate) fn open_writer(path: &Path, migrations: Migrations) -> Result<Connection, OpenError> {
    if let Some(directory) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory).map_err(|cause| OpenError::Directory { path: directory.to_owned(), cause })?;
    }
    let failed = |cause| OpenError::Sqlite { path: path.to_owned(), cause };
    let mut connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(OpenError::NoWal { path: path.to_owned(), mode });
    }
    // FULL: a commit is on the disk before it is answered.
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    connection.pragma_update(None, "foreign_keys", "ON").map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(128);
    migrate(&mut connection, path, migrations)?;
    Ok(connection)
}

/// A connection that only reads, to a file that [`open_writer`] has opened.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let failed = |cause| OpenError::Sqlite { path: path.to_owned(), cause };
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    connection.pragma_update(None, "query_only", "ON").map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path, migrations: Migrations) -> Result<(), OpenError> {
    let failed = |cause| OpenError::Sqlite { path: path.to_owned(), cause };
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    if found > known || found < 0 {
        return Err(OpenError::Future { path: path.to_owned(), found, known });
    }
    for (version, sql) in (1_i64..).zip(migrations).filter(|(version, _)| *version > found) {
        let applied = connection.transaction().and_then(|transaction| {
            transaction.execute_batch(sql)?;
            transaction.pragma_update(None, "user_version", version)?;
            transaction.commit()
        });
        applied.map_err(|cause| OpenError::Migration { path: path.to_owned(), version, cause })?;
        tracing::info!(path = %path.display(), version, "schema migrated");
    }
    Ok(())
}
