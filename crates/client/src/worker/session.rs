//! One `Work` stream, from its Hello to its end.

use super::{Offer, execute::Executor, held::Key, link::Link};
use crate::{MAX_MESSAGE_BYTES, Transport};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Status, Streaming};
use troupe_proto::scheduler::v1::{
    HeldTask, Hello, ServedAgent, ServerMessage, WorkRequest, WorkResponse, server_message::Kind as ServerKind,
    worker_message::Kind as WorkerKind, worker_service_client::WorkerServiceClient,
};

/// Batches on their way to the transport. Few: what waits in the link still joins a batch, what waits here does not.
const IN_FLIGHT: usize = 4;

/// Who the worker is.
pub(crate) struct Identity {
    pub worker_id: String,
    pub namespace: String,
    pub slots: u32,
    pub client: String,
}

impl Identity {
    pub(crate) fn hello(&self, offer: &Offer, held: Vec<HeldTask>) -> WorkerKind {
        let agents = offer.agents.iter().map(|agent| ServedAgent {
            name: agent.name.clone(),
            version: agent.version.clone(),
            capabilities: agent.capabilities.clone(),
            slots: agent.slots,
            namespace: agent.namespace.clone(),
        });
        WorkerKind::Hello(Hello {
            worker_id: self.worker_id.clone(),
            namespace: self.namespace.clone(),
            agents: agents.collect(),
            tools: offer.tools.clone(),
            slots: self.slots,
            client: self.client.clone(),
            held,
        })
    }
}

/// How a stream ended.
pub(crate) struct Ended {
    /// The server had said Welcome: the next attempt need not wait.
    pub welcomed: bool,
    /// Why; none when the server closed the stream in order.
    pub status: Option<Status>,
}

pub(crate) struct Session<'a> {
    pub identity: &'a Identity,
    pub executor: &'a Arc<Executor>,
    pub link: &'a Link,
    pub offers: watch::Receiver<Offer>,
    pub connected: &'a watch::Sender<bool>,
    pub draining: bool,
}

impl Session<'_> {
    /// Connects, says Hello, and serves until the stream ends.
    pub(crate) async fn serve(mut self, transport: Transport) -> Ended {
        let held = self.link.restart();
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let offer = self.offers.borrow_and_update().clone();
        let mut first = vec![super::held::message(self.identity.hello(&offer, held))];
        if self.draining {
            first.push(super::held::message(WorkerKind::Draining(troupe_proto::scheduler::v1::Draining {})));
        }
        // The channel is empty and its receiver is here.
        let _ = sender.send(WorkRequest { messages: first }).await;
        let mut client =
            WorkerServiceClient::new(transport).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES);
        let stream = match client.work(ReceiverStream::new(receiver)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Ended { welcomed: false, status: Some(status) },
        };
        let write = write(self.link, self.identity, self.offers, sender);
        let read = read(self.executor, self.link, self.connected, stream);
        tokio::select! {
            ended = read => ended,
            () = write => Ended { welcomed: false, status: None },
        }
    }
}

/// Sends what waits, and Hello again whenever what is served changes.
async fn write(link: &Link, identity: &Identity, mut offers: watch::Receiver<Offer>, sender: mpsc::Sender<WorkRequest>) {
    loop {
        let messages = tokio::select! {
            messages = link.batch() => messages,
            Ok(()) = offers.changed() => {
                let offer = offers.borrow_and_update().clone();
                vec![super::held::message(identity.hello(&offer, Vec::new()))]
            }
        };
        let dropped = link.take_dropped();
        if dropped > 0 {
            tracing::warn!(dropped, "chunks dropped: the stream is too slow for them");
        }
        if sender.send(WorkRequest { messages }).await.is_err() {
            return;
        }
    }
}

async fn read(executor: &Arc<Executor>, link: &Link, connected: &watch::Sender<bool>, mut stream: Streaming<WorkResponse>) -> Ended {
    let mut welcomed = false;
    let mut leaving = false;
    loop {
        let next = tokio::select! {
            next = stream.next() => next,
            // The server goes away and nothing is left to do on this stream.
            () = link.idle(), if leaving => return Ended { welcomed: false, status: None },
        };
        match next {
            Some(Ok(response)) => {
                for message in response.messages {
                    handle(executor, link, message, &mut welcomed, &mut leaving);
                }
                connected.send_if_modified(|known| std::mem::replace(known, welcomed) != welcomed);
            }
            Some(Err(status)) => return Ended { welcomed, status: Some(status) },
            None => return Ended { welcomed, status: None },
        }
    }
}

fn handle(executor: &Arc<Executor>, link: &Link, message: ServerMessage, welcomed: &mut bool, leaving: &mut bool) {
    match message.kind {
        Some(ServerKind::Welcome(welcome)) => {
            *welcomed = true;
            link.set_lease_ms(welcome.lease_ms);
        }
        Some(ServerKind::Assignment(assignment)) => {
            if assignment.lease_ms > 0 {
                link.set_lease_ms(assignment.lease_ms);
            }
            executor.begin(assignment);
        }
        Some(ServerKind::Ack(ack)) => link.acknowledge(&ack),
        Some(ServerKind::Cancel(cancel)) => {
            let key = Key { namespace: cancel.namespace, task_id: cancel.task_id };
            link.cancel(&key, cancel.fence, &cancel.reason);
        }
        Some(ServerKind::Drain(drain)) => {
            tracing::info!(reason = drain.reason, "the scheduler goes away");
            *leaving = true;
        }
        // A message of a newer server.
        None => {}
    }
}
