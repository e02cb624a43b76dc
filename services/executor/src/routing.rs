//! Which executor owns a run's partition, and how messages get there.
//!
//! All partitions that this process owns have a mailbox here. Those that others own have none: callers get `NOT_OWNER`.

use crate::{
    message::{Answer, Message, Op, Reply},
    run::Key,
};
use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use troupe_domain::{Code, Error, Result, RunId, partition_of};

/// How long a call waits for room in a mailbox.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Router {
    mailboxes: Box<[RwLock<Option<mpsc::Sender<Message>>>]>,
}

impl Router {
    pub(crate) fn new(partitions: u32) -> Self {
        Self { mailboxes: (0..partitions).map(|_| RwLock::new(None)).collect() }
    }

    pub(crate) fn partition_of(&self, run: RunId) -> u32 {
        partition_of(run, u32::try_from(self.mailboxes.len()).unwrap_or(u32::MAX))
    }

    /// Opens a partition's mailbox, or closes it (`None`): messages already in it are still served.
    pub(crate) fn set(&self, partition: u32, mailbox: Option<mpsc::Sender<Message>>) {
        if let Some(slot) = self.mailboxes.get(partition as usize) {
            *slot.write().unwrap_or_else(PoisonError::into_inner) = mailbox;
        }
    }

    /// Closes a mailbox unless it was opened anew meanwhile.
    pub(crate) fn close(&self, partition: u32, mailbox: &mpsc::WeakSender<Message>) {
        if let Some(slot) = self.mailboxes.get(partition as usize) {
            let mut slot = slot.write().unwrap_or_else(PoisonError::into_inner);
            let same = mailbox.upgrade().is_some_and(|ours| slot.as_ref().is_some_and(|current| current.same_channel(&ours)));
            if same {
                *slot = None;
            }
        }
    }

    pub(crate) fn mailbox(&self, partition: u32) -> Result<mpsc::Sender<Message>> {
        let slot = self.mailboxes.get(partition as usize).map(|slot| slot.read().unwrap_or_else(PoisonError::into_inner).clone());
        slot.flatten().ok_or_else(|| not_owner(partition))
    }

    pub(crate) async fn send(&self, key: Key, op: Op, traceparent: String) -> Result<()> {
        let partition = self.partition_of(key.run);
        let mailbox = self.mailbox(partition)?;
        let message = Message::Run { key, op, traceparent };
        match mailbox.try_send(message) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(not_owner(partition)),
            Err(mpsc::error::TrySendError::Full(message)) => match mailbox.send_timeout(message, PATIENCE).await {
                Ok(()) => Ok(()),
                Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(not_owner(partition)),
                Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(busy()),
            },
        }
    }

    /// Sends and waits for the durable answer.
    pub(crate) async fn call(&self, key: Key, traceparent: String, op: impl FnOnce(Reply) -> Op) -> Result<Answer> {
        let (reply, answer) = Reply::call();
        self.send(key, op(reply), traceparent).await?;
        answer.await.map_err(|_| unanswered())?
    }

    /// Sends a question that only memory answers; `None`: nobody could.
    pub(crate) async fn ask<T>(&self, key: Key, op: impl FnOnce(oneshot::Sender<T>) -> Op) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(key, op(reply), String::new()).await?;
        answer.await.map_err(|_| unanswered())
    }
}

fn not_owner(partition: u32) -> Error {
    Error { retry_after_ms: Some(200), ..Error::unavailable(format!("partition {partition} is not owned here")) }.with_reason("NOT_OWNER")
}

fn busy() -> Error {
    Error { retry_after_ms: Some(1_000), ..Error::unavailable("the partition is busy: the journal does not keep up") }.with_reason("BUSY")
}

fn unanswered() -> Error {
    Error::new(Code::Unavailable, "the partition's owner changed before the answer was known")
        .with_reason("NOT_OWNER")
        .with_help("repeat the call with the same idempotency key")
}
