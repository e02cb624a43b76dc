//! Appending to the journal: one long-lived stream for each partition, one batch in flight.

use crate::{backoff::Backoff, store::Store};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use troupe_domain::{Code, Error};
use troupe_proto::checkpoint::v1 as pb;

/// What became of a batch.
pub(crate) enum Appended {
    /// It is durable.
    Durable,
    /// Another executor owns the partition.
    Stale,
    /// Nothing of it was written, and trying again would not help.
    Refused(Error),
    /// The process stops; it may have been written or not.
    Stopped,
}

pub(crate) struct Appender {
    store: Store,
    stream: Option<Open>,
    next_id: u64,
    token: CancellationToken,
}

struct Open {
    requests: mpsc::Sender<pb::AppendRequest>,
    answers: Streaming<pb::AppendResponse>,
}

impl Appender {
    pub(crate) fn new(store: Store, token: CancellationToken) -> Self {
        Self { store, stream: None, next_id: 0, token }
    }

    /// Appends one batch, and tries until the store has said yes or no.
    pub(crate) async fn append(&mut self, batch: &pb::AppendBatchRequest) -> Appended {
        let mut backoff = Backoff::default();
        // Set when the store may have written the batch without our hearing of it.
        let mut may_have_landed = false;
        loop {
            self.next_id += 1;
            let request = pb::AppendRequest { id: self.next_id, batch: Some(batch.clone()) };
            let token = self.token.clone();
            let answer = tokio::select! {
                () = token.cancelled() => return Appended::Stopped,
                answer = self.exchange(request) => answer,
            };
            let error = match answer {
                Ok(None) => return Appended::Durable,
                Ok(Some(error)) => error,
                Err(status) => {
                    self.stream = None;
                    may_have_landed = true;
                    tracing::warn!(partition = batch.partition, cause = %status, "the journal does not answer");
                    if !backoff.wait(&self.token).await {
                        return Appended::Stopped;
                    }
                    continue;
                }
            };
            match error.reason.as_str() {
                "STALE_EPOCH" => return Appended::Stale,
                "SEQUENCE" if may_have_landed => match self.landed(batch, &error.run_id).await {
                    Ok(true) => return Appended::Durable,
                    Ok(false) => return Appended::Refused(conflict(&error)),
                    Err(cause) => tracing::warn!(%cause, "the journal does not tell whether a batch landed"),
                },
                "SEQUENCE" => return Appended::Refused(conflict(&error)),
                _ => {
                    let code = Code::from_name(&error.code).unwrap_or(Code::Internal);
                    tracing::warn!(partition = batch.partition, code = %code, cause = error.message, "the journal refused a batch");
                    if !code.is_transient() {
                        return Appended::Refused(Error::new(code, error.message));
                    }
                    // The store itself may not know: it has lost its database in the middle.
                    may_have_landed = true;
                }
            }
            if !backoff.wait(&self.token).await {
                return Appended::Stopped;
            }
        }
    }

    /// One request and its answer. `Err`: the stream is broken and it is not known what happened.
    async fn exchange(&mut self, request: pb::AppendRequest) -> Result<Option<pb::AppendError>, tonic::Status> {
        let id = request.id;
        let lost = || tonic::Status::unavailable("the append stream ended");
        let open = match &mut self.stream {
            Some(open) => {
                open.requests.send(request).await.map_err(|_| lost())?;
                open
            }
            None => {
                let (requests, outbound) = mpsc::channel(1);
                // The first request goes first: a server may answer the call only once it has seen one.
                requests.send(request).await.map_err(|_| lost())?;
                let answers = self.store.client().append(ReceiverStream::new(outbound)).await?.into_inner();
                self.stream.insert(Open { requests, answers })
            }
        };
        loop {
            let answer = open.answers.message().await?.ok_or_else(lost)?;
            if answer.id == id {
                return Ok(answer.error);
            }
        }
    }

    /// Whether the entries that are in the way are those of the batch itself. A batch lands as a whole, so one run tells.
    async fn landed(&self, batch: &pb::AppendBatchRequest, run_id: &str) -> Result<bool, Error> {
        let Some(write) = batch.writes.iter().find(|write| write.summary.as_ref().is_some_and(|s| s.run_id == run_id)) else {
            return Ok(false);
        };
        let (Some(summary), Some(first)) = (&write.summary, write.entries.first()) else { return Ok(false) };
        let key = pb::RunKey { namespace: summary.namespace.clone(), run_id: run_id.to_owned() };
        let same = |(a, b): (&pb::JournalEntry, &pb::JournalEntry)| a.seq == b.seq && a.at == b.at && a.event == b.event;
        let (mut rest, mut from) = (&write.entries[..], first.seq);
        // An answer ends early at a number of bytes.
        while !rest.is_empty() {
            let limit = u32::try_from(rest.len()).unwrap_or(u32::MAX);
            let there = match self.store.entries(key.clone(), from, limit).await {
                Ok(there) => there,
                // It was removed since: whatever landed, nothing of it is left.
                Err(error) if error.code == Code::NotFound => return Ok(false),
                Err(error) => return Err(error),
            };
            if there.is_empty() || there.len() > rest.len() || !there.iter().zip(rest).all(same) {
                return Ok(false);
            }
            rest = &rest[there.len()..];
            from += there.len() as u64;
        }
        Ok(true)
    }
}

fn conflict(error: &pb::AppendError) -> Error {
    tracing::error!(run.id = error.run_id, cause = error.message, "a run's journal is not where its owner left it");
    Error::unavailable("the run is being loaded again").with_reason("SEQUENCE")
}

/// Bytes of an entry on the wire, roughly.
pub(crate) fn weight(entry: &pb::JournalEntry) -> usize {
    128 + entry.event.len() + entry.payload.len() + entry.changes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };
    use troupe_domain::RunId;
    use troupe_service_kit::Tasks;
    use troupe_wire::Transport;

    fn summary(run_id: &str, seq: u64) -> pb::RunSummary {
        let now = Some(troupe_wire::timestamp(crate::run::now()));
        pb::RunSummary {
            namespace: "default".into(),
            run_id: run_id.to_owned(),
            workflow: "w".into(),
            version: "1".into(),
            definition_hash: "h".into(),
            status: "running".into(),
            created_at: now,
            updated_at: now,
            seq,
            ..Default::default()
        }
    }

    fn entry(seq: u64, payload: &str) -> pb::JournalEntry {
        pb::JournalEntry {
            seq,
            at: Some(troupe_wire::timestamp(crate::run::now())),
            kind: "signalled".into(),
            event: format!("{{\"n\":{seq}}}").into(),
            payload: format!("\"{payload}\"").into(),
            ..Default::default()
        }
    }

    async fn journal(tasks: &Tasks) -> Transport {
        let journal = troupe_checkpoint::Service::start(Default::default(), troupe_checkpoint::Backend::Memory, tasks).await.unwrap();
        Transport::embedded(journal.routes())
    }

    /// A journal that writes the first batch, and says in its answer that it may not have.
    fn forgetful(inner: &Transport) -> Transport {
        let (inner, answered) = (inner.clone(), Arc::new(AtomicBool::new(false)));
        Transport::embedded(tower::service_fn(move |request: tonic::codegen::http::Request<tonic::body::Body>| {
            let (inner, answered) = (inner.clone(), Arc::clone(&answered));
            async move {
                let appends = request.uri().path().ends_with("/Append");
                let (head, body) = tower::ServiceExt::oneshot(inner, request).await?.into_parts();
                let frames = http_body_util::BodyStream::new(body).map(move |frame| match frame {
                    Ok(frame) if appends && frame.is_data() && !answered.swap(true, Ordering::SeqCst) => {
                        Ok(frame.map_data(|_| unavailable()))
                    }
                    frame => frame,
                });
                let body = tonic::body::Body::new(http_body_util::StreamBody::new(frames));
                Ok::<_, tonic::codegen::StdError>(tonic::codegen::http::Response::from_parts(head, body))
            }
        }))
    }

    /// The answer to request 1 on the wire: an error with nothing but its code.
    fn unavailable() -> bytes::Bytes {
        let code = Code::Unavailable.name().as_bytes();
        let length = u8::try_from(code.len()).unwrap();
        let (id, error, text) = ([0x08, 1], [0x12, length + 2], [0x0a, length]);
        let message = [&id[..], &error, &text, code].concat();
        let frame = [0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
        [&frame[..], &message].concat().into()
    }

    /// The database behind the store was lost in the middle of the commit, and the store says so in its answer.
    #[tokio::test]
    async fn a_batch_that_landed_although_the_store_said_unavailable_is_recognised() {
        let tasks = Tasks::new();
        let inner = journal(&tasks).await;
        let store = Store::new(forgetful(&inner));
        let lease = store.acquire("me", vec![0], 60_000, true).await.unwrap().remove(0);
        let run_id = RunId::generate().to_string();
        let write = |expected_seq: u64| {
            let seq = expected_seq + 1;
            let write = pb::RunWrite { summary: Some(summary(&run_id, seq)), expected_seq, entries: vec![entry(seq, "x")], snapshot: None };
            pb::AppendBatchRequest { partition: 0, epoch: lease.epoch, writes: vec![write] }
        };
        let mut appender = Appender::new(store, CancellationToken::new());
        assert!(matches!(appender.append(&write(0)).await, Appended::Durable), "it is there");
        assert!(matches!(appender.append(&write(1)).await, Appended::Durable), "and what follows it too");
        // Without such an answer it is somebody else's.
        assert!(matches!(appender.append(&write(0)).await, Appended::Refused(_)));
    }

    /// More than one answer of the journal can hold.
    #[tokio::test]
    async fn a_large_write_is_recognised_when_it_has_landed() {
        let tasks = Tasks::new();
        let store = Store::new(journal(&tasks).await);
        let lease = store.acquire("me", vec![0], 60_000, true).await.unwrap().remove(0);
        let run_id = RunId::generate().to_string();
        let payload = "x".repeat(3 << 20);
        let entries = (1..=4).map(|seq| entry(seq, &payload)).collect();
        let write = pb::RunWrite { summary: Some(summary(&run_id, 4)), expected_seq: 0, entries, snapshot: None };
        let mut batch = pb::AppendBatchRequest { partition: 0, epoch: lease.epoch, writes: vec![write] };
        let mut appender = Appender::new(store, CancellationToken::new());
        assert!(matches!(appender.append(&batch).await, Appended::Durable));
        assert!(appender.landed(&batch, &run_id).await.unwrap());
        batch.writes[0].entries[3].event = "{}".into();
        assert!(!appender.landed(&batch, &run_id).await.unwrap(), "another's entries are in the way");
    }
}
