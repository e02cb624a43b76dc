//! A task in this worker's hands: running, or ended with a result that is not known to be durable yet.

use super::TaskError;
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use troupe_domain::Json;
use troupe_proto::scheduler::v1::{Completed, Failed, HeldTask, RecordResult, WorkerMessage, worker_message::Kind};

/// A task among those of all namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub namespace: String,
    pub task_id: String,
}

/// Says that a task shall stop, and why.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    pub token: CancellationToken,
    reason: Arc<OnceLock<String>>,
}

impl Stop {
    pub(crate) fn set(&self, reason: &str) {
        // The first reason stays.
        let _ = self.reason.set(reason.to_owned());
        self.token.cancel();
    }

    pub(crate) fn error(&self) -> TaskError {
        TaskError::cancelled(self.reason.get().map_or("", String::as_str))
    }
}

/// A record that is not known to be durable.
pub(crate) struct PendingRecord {
    pub name: String,
    pub value: Bytes,
    pub waiter: oneshot::Sender<Result<(), String>>,
}

pub(crate) struct Held {
    /// The fence under which this attempt came first: answers to older ones are about another attempt.
    pub first_fence: u64,
    pub fence: u64,
    pub attempt: u32,
    /// Tells executions of the same task apart.
    pub execution: u64,
    pub stop: Stop,
    pub records: BTreeMap<u32, PendingRecord>,
    pub result: Option<Result<Json, TaskError>>,
}

impl Held {
    pub(crate) fn listed(&self, key: &Key) -> HeldTask {
        HeldTask { namespace: key.namespace.clone(), task_id: key.task_id.clone(), fence: self.fence, attempt: self.attempt }
    }

    pub(crate) fn record_message(&self, key: &Key, index: u32) -> Option<WorkerMessage> {
        let record = self.records.get(&index)?;
        Some(message(Kind::Record(RecordResult {
            namespace: key.namespace.clone(),
            task_id: key.task_id.clone(),
            fence: self.fence,
            attempt: self.attempt,
            index,
            name: record.name.clone(),
            value: record.value.clone(),
        })))
    }

    pub(crate) fn result_message(&self, key: &Key) -> Option<WorkerMessage> {
        Some(match self.result.as_ref()? {
            Ok(output) => message(Kind::Completed(Completed {
                namespace: key.namespace.clone(),
                task_id: key.task_id.clone(),
                fence: self.fence,
                attempt: self.attempt,
                output: output.to_bytes(),
            })),
            Err(error) => self.failed_message(key, error),
        })
    }

    pub(crate) fn failed_message(&self, key: &Key, error: &TaskError) -> WorkerMessage {
        message(Kind::Failed(Failed {
            namespace: key.namespace.clone(),
            task_id: key.task_id.clone(),
            fence: self.fence,
            attempt: self.attempt,
            failure: Some(error.to_failure()),
        }))
    }
}

pub(crate) fn message(kind: Kind) -> WorkerMessage {
    WorkerMessage { kind: Some(kind) }
}
