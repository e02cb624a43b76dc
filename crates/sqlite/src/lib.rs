//! A SQLite file on its own two threads, with group commit: what waits together is committed together.
//!
//! [`Database`] is what services hold, [`open`] brings a file to the schema, [`thread`] runs the jobs.

mod database;
mod open;
mod thread;

pub use database::Database;
pub use open::OpenError;
pub use rusqlite;

use troupe_domain::Error;

/// The SQL that takes a schema from version `i` to `i + 1`, for each `i`; never edited once released.
pub type Migrations = &'static [&'static str];

/// Why a job gave up. Nothing that it wrote stays.
#[derive(Debug)]
pub enum Abort {
    /// SQLite failed: logged with its cause, the caller gets a constant text.
    Sqlite(rusqlite::Error),
    /// The job refused: the caller gets exactly this.
    Refused(Box<Error>),
}

impl From<rusqlite::Error> for Abort {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Error> for Abort {
    fn from(error: Error) -> Self {
        Self::Refused(Box::new(error))
    }
}

/// What a job returns.
pub type Outcome<T> = Result<T, Abort>;
