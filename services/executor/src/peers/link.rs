//! What is passed on to one peer: a long-lived stream of batches that form by themselves while others are under way.

use super::{Item, convert};
use crate::{message::Reply, metrics::FORWARDED};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use troupe_proto::executor::v1::{self as wire, forward_item, peer_service_client::PeerServiceClient};
use troupe_wire::Transport;

/// Items of one batch.
const BATCH: usize = 512;

/// Bytes after which a batch is closed. One item more may come on top: a fork's state, at most.
const BATCH_BYTES: usize = 8 << 20;

/// Batches that the peer has not taken yet.
const IN_FLIGHT: usize = 4;

pub(super) struct Link {
    client: PeerServiceClient<Transport>,
    work: mpsc::Receiver<Item>,
    /// Taken out of the queue, not sent yet.
    taken: Vec<Item>,
    doubt: Arc<Notify>,
    /// Items that may be under way.
    most: usize,
    last_id: u64,
}

type Pending = HashMap<u64, Reply>;

impl Link {
    pub(super) fn new(client: PeerServiceClient<Transport>, work: mpsc::Receiver<Item>, doubt: Arc<Notify>, most: usize) -> Self {
        Self { client, work, taken: Vec::new(), doubt, most, last_id: 0 }
    }

    /// Runs until the peer leaves. Replies that are dropped tell their callers that nothing is known.
    pub(super) async fn run(mut self) {
        while self.work.recv_many(&mut self.taken, BATCH).await > 0 {
            let mut pending = Pending::new();
            let mut answered = false;
            let cause = self.session(&mut pending, &mut answered).await;
            if pending.is_empty() && self.taken.is_empty() {
                continue;
            }
            tracing::debug!(%cause, items = pending.len(), "an executor does not answer");
            self.taken.clear();
            if !answered {
                // What has come meanwhile would fare no better.
                while self.work.try_recv().is_ok() {}
            }
            drop(pending);
            self.doubt.notify_one();
        }
    }

    async fn session(&mut self, pending: &mut Pending, answered: &mut bool) -> Status {
        let lost = || Status::unavailable("the stream ended");
        let (requests, outbound) = mpsc::channel(IN_FLIGHT);
        // The first batch goes ahead of the answer: a server may answer the call only once it has seen one.
        let first = self.batch(pending);
        if requests.send(first).await.is_err() {
            return lost();
        }
        let mut answers = match self.client.forward(ReceiverStream::new(outbound)).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return status,
        };
        loop {
            let room = pending.len() < self.most;
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        *answered = true;
                        self.pass(answer, pending);
                    }
                    Ok(None) => return lost(),
                    Err(status) => return status,
                },
                permit = take(&requests, &mut self.work, &mut self.taken), if room => {
                    let Some(permit) = permit else { return lost() };
                    permit.send(self.batch(pending));
                }
            }
        }
    }

    /// A message of what has been taken; what makes it too large waits for the next one.
    fn batch(&mut self, pending: &mut Pending) -> wire::ForwardRequest {
        let (mut request, mut bytes) = (wire::ForwardRequest::default(), 0);
        let (mut starts, mut events) = (0, 0);
        let mut rest = Vec::new();
        for Item { key, intent, traceparent, reply } in self.taken.drain(..) {
            if bytes >= BATCH_BYTES {
                rest.push(Item { key, intent, traceparent, reply });
                continue;
            }
            self.last_id += 1;
            let item = convert::item(self.last_id, &key, intent, traceparent, reply.is_brief());
            match item.intent {
                Some(forward_item::Intent::Start(_)) => starts += 1,
                _ => events += 1,
            }
            bytes += prost_size(&item);
            pending.insert(self.last_id, reply);
            request.items.push(item);
        }
        self.taken = rest;
        metrics::counter!(FORWARDED, "kind" => "start").increment(starts);
        metrics::counter!(FORWARDED, "kind" => "event").increment(events);
        request
    }

    fn pass(&self, answer: wire::ForwardResponse, pending: &mut Pending) {
        let mut doubtful = false;
        for answer in answer.answers {
            let Some(reply) = pending.remove(&answer.id) else { continue };
            match convert::answer(answer) {
                Some(answer) => {
                    doubtful |= answer.as_ref().is_err_and(|error| error.reason == crate::routing::NOT_OWNER);
                    reply.passed(answer);
                }
                None => doubtful = true,
            }
        }
        if doubtful {
            self.doubt.notify_one();
        }
    }
}

/// Room for a message, and something to send in it. May be cancelled without losing anything.
async fn take<'a>(
    requests: &'a mpsc::Sender<wire::ForwardRequest>,
    work: &mut mpsc::Receiver<Item>,
    taken: &mut Vec<Item>,
) -> Option<mpsc::Permit<'a, wire::ForwardRequest>> {
    let permit = requests.reserve().await.ok()?;
    if taken.is_empty() && work.recv_many(taken, BATCH).await == 0 {
        return None;
    }
    Some(permit)
}

/// Bytes of an item on the wire, roughly.
fn prost_size(item: &wire::ForwardItem) -> usize {
    let event = |event: Option<&wire::ForwardEvent>| event.map_or(0, |event| event.kind.len() + event.payload.len());
    128 + match &item.intent {
        Some(forward_item::Intent::Start(start)) => start.fork.len() + event(start.event.as_ref()),
        Some(forward_item::Intent::Apply(applied)) => event(Some(applied)),
        None => 0,
    }
}
