//! The handle that services hold.

use crate::{
    Migrations, OpenError, Outcome,
    open::{open_reader, open_writer},
    thread::{self, ReadJob, WriteJob, in_savepoint, in_snapshot},
};
use rusqlite::Connection;
use std::{path::PathBuf, sync::Arc};
use tokio::sync::{mpsc, oneshot};
use troupe_domain::Error;

/// Jobs that may wait for a thread; more wait outside.
const QUEUE: usize = 4096;

/// A SQLite file. Clones share it; the threads end when the last clone is gone and everything accepted is done.
#[derive(Clone, Debug)]
pub struct Database {
    writes: mpsc::Sender<WriteJob>,
    reads: mpsc::Sender<ReadJob>,
    path: Arc<PathBuf>,
}

impl Database {
    /// Opens or creates the file, applies the migrations that it lacks, and starts its threads.
    pub async fn open(path: impl Into<PathBuf>, migrations: Migrations) -> Result<Self, OpenError> {
        let path: PathBuf = path.into();
        let file = path.clone();
        let opened = tokio::task::spawn_blocking(move || Ok((open_writer(&file, migrations)?, open_reader(&file)?))).await;
        let (writer, reader) = opened.map_err(|e| OpenError::Thread(std::io::Error::other(e)))??;
        let (writes, write_jobs) = mpsc::channel(QUEUE);
        let (reads, read_jobs) = mpsc::channel(QUEUE);
        start("sqlite-write", move || thread::write(&writer, write_jobs))?;
        start("sqlite-read", move || thread::read(&reader, read_jobs))?;
        Ok(Self { writes, reads, path: Arc::new(path) })
    }

    /// The file.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Runs a job that may write and answers once it is durable. Jobs run one at a time, in the order of the calls; those that
    /// wait together share one commit. An error means that nothing of this job was written, except `UNAVAILABLE` and
    /// `INTERNAL`, after which it may have been.
    pub async fn write<T: Send + 'static>(&self, job: impl FnOnce(&Connection) -> Outcome<T> + Send + 'static) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let run: WriteJob = Box::new(move |connection| {
            let result = in_savepoint(connection, job);
            Box::new(move |committed| {
                // Nobody listens when the caller gave up; the write stands.
                let _ = reply.send(result.and_then(|value| committed.map(|()| value)));
            })
        });
        self.writes.send(run).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Runs a job that only reads, on a snapshot that has every write answered before the call.
    pub async fn read<T: Send + 'static>(&self, job: impl FnOnce(&Connection) -> Outcome<T> + Send + 'static) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let run: ReadJob = Box::new(move |connection| {
            let _ = reply.send(in_snapshot(connection, job));
        });
        self.reads.send(run).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Whether the file can be read.
    pub async fn check(&self) -> Result<(), Error> {
        self.read(|connection| Ok(connection.query_row("SELECT 1", [], |_| Ok(()))?)).await
    }
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop).map_err(OpenError::Thread)
}

fn closed() -> Error {
    Error::unavailable("the database is closed")
}
