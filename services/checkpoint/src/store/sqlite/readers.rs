//! Connections that read, each used by one blocking thread at a time.

use super::writer::{Abort, Attempt, describe};
use crate::error::{Result, StoreError};
use rusqlite::Connection;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(super) struct Readers {
    free: Mutex<Vec<Connection>>,
    /// As many as there are connections: who has a permit finds a free one.
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(connections: Vec<Connection>) -> Self {
        let permits = Arc::new(Semaphore::new(connections.len()));
        Self { free: Mutex::new(connections), permits }
    }

    /// Runs a question on one consistent view of everything committed so far.
    pub(super) async fn read<T, F>(self: &Arc<Self>, question: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Attempt<T> + Send + 'static,
    {
        let closed = || StoreError::Storage("its readers have ended".to_owned());
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| closed())?;
        let connection = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or_else(closed)?;
        let borrowed = Borrowed { connection: Some(connection), readers: Arc::clone(self), _permit: permit };
        tokio::task::spawn_blocking(move || borrowed.ask(question)).await.map_err(|_| closed())?
    }
}

/// A connection that goes back when this is dropped, before its permit does.
struct Borrowed {
    connection: Option<Connection>,
    readers: Arc<Readers>,
    _permit: OwnedSemaphorePermit,
}

impl Borrowed {
    fn ask<T>(self, question: impl FnOnce(&Connection) -> Attempt<T>) -> Result<T> {
        let Some(connection) = &self.connection else { return Err(StoreError::Storage("no reader is free".to_owned())) };
        let answer = connection.unchecked_transaction().map_err(Abort::from).and_then(|view| question(&view));
        answer.map_err(|abort| match abort {
            Abort::Refused(error) => error,
            Abort::Lost(error) => {
                tracing::error!(%error, "journal read failed");
                StoreError::Storage(describe(&error))
            }
        })
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.readers.free.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }
}
