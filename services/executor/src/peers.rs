//! The other live executors, and what is passed on to them: any executor takes every call, and each owns some of the runs.

pub(crate) mod convert;
mod link;

use crate::{
    message::{Intent, Reply},
    run::Key,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Request;
use troupe_proto::executor::v1::{
    ForgetWorkflowRequest, RebalanceRequest, peer_service_client::PeerServiceClient, run_service_client::RunServiceClient,
};
use troupe_service_kit::Tasks;
use troupe_wire::{Connector, MAX_MESSAGE, Transport};

/// Marks a call that a peer has passed on: it is not passed on again.
pub(crate) const FORWARDED: &str = "troupe-forwarded";

/// How long a peer may take to hear of something.
const TELL: Duration = Duration::from_secs(1);

/// Something on its way to another executor.
pub(crate) struct Item {
    pub(crate) key: Key,
    pub(crate) intent: Intent,
    pub(crate) traceparent: String,
    pub(crate) reply: Reply,
}

/// One other executor. Its link ends when it is no live one any more: what waits for it then is not known.
pub(crate) struct Peer {
    transport: Transport,
    pub(crate) items: mpsc::Sender<Item>,
    gone: CancellationToken,
}

impl Peer {
    /// A client of its `RunService`.
    pub(crate) fn runs(&self) -> RunServiceClient<Transport> {
        RunServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    }

    fn client(&self) -> PeerServiceClient<Transport> {
        client(self.transport.clone())
    }

    /// Ends when it is no live executor any more.
    pub(crate) async fn gone(&self) {
        self.gone.cancelled().await;
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

fn client(transport: Transport) -> PeerServiceClient<Transport> {
    PeerServiceClient::new(transport).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
}

/// A request that its receiver answers itself.
pub(crate) fn forwarded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
    request
}

/// The peers by how they call themselves.
pub(crate) struct Peers {
    me: String,
    connector: Connector,
    /// Items that may wait for one peer.
    waiting: usize,
    tasks: Tasks,
    /// Raised when a peer does not own what it was thought to own, or does not answer.
    doubt: Arc<Notify>,
    live: Mutex<HashMap<String, Arc<Peer>>>,
}

impl Peers {
    pub(crate) fn new(me: String, connector: Connector, waiting: usize, tasks: Tasks, doubt: Arc<Notify>) -> Self {
        Self { me, connector, waiting, tasks, doubt, live: Mutex::default() }
    }

    fn live(&self) -> MutexGuard<'_, HashMap<String, Arc<Peer>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Knows these executors from now on, and no others.
    pub(crate) fn keep(&self, executors: &[String]) {
        let left = {
            let mut live = self.live();
            let (stay, left): (HashMap<_, _>, HashMap<_, _>) = live.drain().partition(|(owner, _)| executors.contains(owner));
            *live = stay;
            left
        };
        for (owner, peer) in left {
            tracing::info!(peer = owner, "an executor has left");
            peer.gone.cancel();
        }
        for owner in executors {
            let _ = self.get(owner);
        }
    }

    /// The peer with this owner's name and address; `None`: it is this executor, or it cannot be reached.
    pub(crate) fn get(&self, owner: &str) -> Option<Arc<Peer>> {
        let address = owner.split_once('@').map(|(_, address)| address).filter(|_| owner != self.me)?;
        let mut live = self.live();
        if let Some(peer) = live.get(owner) {
            return Some(Arc::clone(peer));
        }
        let transport = match self.connector.connect(address) {
            Ok(transport) => transport,
            Err(cause) => {
                tracing::warn!(peer = owner, %cause, "an executor cannot be reached");
                return None;
            }
        };
        tracing::info!(peer = owner, "an executor has joined");
        let (items, work) = mpsc::channel(self.waiting);
        let gone = self.tasks.token().child_token();
        let link = link::Link::new(client(transport.clone()), work, Arc::clone(&self.doubt), self.waiting);
        let ended = gone.clone();
        self.tasks.spawn("forward", async move { ended.run_until_cancelled(link.run()).await });
        let peer = Arc::new(Peer { transport, items, gone });
        live.insert(owner.to_owned(), Arc::clone(&peer));
        Some(peer)
    }

    fn all(&self) -> Vec<Arc<Peer>> {
        self.live().values().cloned().collect()
    }

    /// Has all peers look at once who is to own what. Best effort: they look by themselves soon.
    pub(crate) async fn nudge(&self) {
        let told = self.all().into_iter().map(|peer| async move {
            let _ = tokio::time::timeout(TELL, peer.client().rebalance(RebalanceRequest {})).await;
        });
        futures::future::join_all(told).await;
    }

    /// Tells all peers that a workflow has a new version. `false`: not all of them have heard of it.
    pub(crate) async fn forget_workflow(&self, namespace: &str, name: &str) -> bool {
        let told = self.all().into_iter().map(|peer| async move {
            let request = ForgetWorkflowRequest { namespace: namespace.to_owned(), name: name.to_owned() };
            tokio::select! {
                // It is dead, and remembers nothing.
                () = peer.gone() => true,
                told = tokio::time::timeout(TELL, async { peer.client().forget_workflow(request).await }) => matches!(told, Ok(Ok(_))),
            }
        });
        futures::future::join_all(told).await.into_iter().all(|told| told)
    }
}
