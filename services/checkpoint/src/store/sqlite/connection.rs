//! Opening the file.

use super::migrate;
use crate::config::Config;
use anyhow::Context as _;
use rusqlite::{Connection, OpenFlags};
use std::{path::Path, time::Duration};

/// Another process may hold the file's lock for a moment (a backup, an inspection).
const BUSY: Duration = Duration::from_secs(5);
const PAGE_KIB: u32 = 4;
const STATEMENTS: usize = 64;

/// The one connection that writes; creates the file and its folder, and applies migrations.
pub(super) fn open_writer(path: &Path, config: &Config) -> anyhow::Result<Connection> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
    }
    let place = || format!("cannot open the journal {}", path.display());
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).with_context(place)?;
    connection.busy_timeout(BUSY).with_context(place)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    let pages = config.wal_kib / PAGE_KIB;
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = OFF;
             PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -{};
             PRAGMA wal_autocheckpoint = {pages};
             PRAGMA journal_size_limit = {};",
            config.writer_cache_kib,
            u64::from(config.wal_kib) * 2048,
        ))
        .with_context(place)?;
    migrate::run(&mut connection).with_context(place)?;
    Ok(connection)
}

/// A connection that only reads. It never waits for the writer: that is what the write-ahead log is for.
pub(super) fn open_reader(path: &Path, config: &Config) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    let mapped = u64::from(config.mmap_kib) * 1024;
    connection.execute_batch(&format!("PRAGMA cache_size = -{}; PRAGMA mmap_size = {mapped};", config.reader_cache_kib))?;
    Ok(connection)
}
