//! The threads behind a [`crate::Database`]: one writes in groups, one reads.

use crate::Outcome;
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::sync::mpsc;
use troupe_domain::Error;

/// Jobs in one transaction at most: bounds how long the first of them waits.
const GROUP: usize = 1024;

/// Answers the caller, once it is known whether the group's commit succeeded.
pub(crate) type Finish = Box<dyn FnOnce(Result<(), Error>) + Send>;
pub(crate) type WriteJob = Box<dyn FnOnce(&Connection) -> Finish + Send>;
pub(crate) type ReadJob = Box<dyn FnOnce(&Connection) + Send>;

/// Takes all jobs that wait, runs them in one transaction, answers them after the commit; until nobody can send any more.
pub(crate) fn write(connection: &Connection, mut jobs: mpsc::Receiver<WriteJob>) {
    let mut group = Vec::with_capacity(GROUP);
    while jobs.blocking_recv_many(&mut group, GROUP) > 0 {
        commit_group(connection, &mut group);
    }
}

fn commit_group(connection: &Connection, group: &mut Vec<WriteJob>) {
    let begun = connection.execute_batch("BEGIN IMMEDIATE");
    // Without a transaction each job fails in `in_savepoint`, and so answers for itself.
    let answers: Vec<Finish> = group.drain(..).map(|job| job(connection)).collect();
    let committed = begun.and_then(|()| connection.execute_batch("COMMIT")).map_err(|cause| {
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!(error = %error, "rollback failed");
        }
        failure(&cause)
    });
    for answer in answers {
        answer(committed.clone());
    }
}

/// Runs one job so that its failure undoes its own writes and nobody else's.
pub(crate) fn in_savepoint<T>(connection: &Connection, job: impl FnOnce(&Connection) -> Outcome<T>) -> Result<T, Error> {
    // A statement's failure (disk full) may have ended the whole transaction: what follows must not commit alone.
    if connection.is_autocommit() {
        return Err(lost());
    }
    let run = |sql| connection.prepare_cached(sql).and_then(|mut statement| statement.execute([])).map_err(|cause| failure(&cause));
    run("SAVEPOINT job")?;
    let result = guarded(|| job(connection));
    if connection.is_autocommit() {
        return result.and_then(|_| Err(lost()));
    }
    if result.is_err() {
        run("ROLLBACK TO job")?;
    }
    run("RELEASE job")?;
    result
}

/// Runs read jobs, each on one consistent snapshot.
pub(crate) fn read(connection: &Connection, mut jobs: mpsc::Receiver<ReadJob>) {
    while let Some(job) = jobs.blocking_recv() {
        job(connection);
    }
}

pub(crate) fn in_snapshot<T>(connection: &Connection, job: impl FnOnce(&Connection) -> Outcome<T>) -> Result<T, Error> {
    let transaction = connection.unchecked_transaction().map_err(|cause| failure(&cause))?;
    guarded(|| job(&transaction))
}

/// A job's result in the words of callers. A job that panics fails alone: the thread and its connection go on.
fn guarded<T>(job: impl FnOnce() -> Outcome<T>) -> Result<T, Error> {
    match catch_unwind(AssertUnwindSafe(job)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(crate::Abort::Refused(error))) => Err(*error),
        Ok(Err(crate::Abort::Sqlite(cause))) => Err(failure(&cause)),
        Err(_) => {
            tracing::error!("a database job panicked");
            Err(Error::internal())
        }
    }
}

/// Logs the cause and says what a caller may know.
fn failure(cause: &rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull};
    tracing::error!(error = %cause, "sqlite failed");
    match cause.sqlite_error_code() {
        Some(DatabaseBusy | DatabaseLocked) => Error::unavailable("another process holds the database; try again"),
        Some(DiskFull) => Error::unavailable("the disk of the database is full").with_reason("DISK_FULL"),
        _ => Error::internal(),
    }
}

fn lost() -> Error {
    Error::unavailable("the database undid this write with others of its group; try again").with_reason("ROLLED_BACK")
}
