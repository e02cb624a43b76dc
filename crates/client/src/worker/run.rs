//! The life of a worker: streams one after the other, then the drain.

use super::{
    Builder,
    execute::Executor,
    link::Link,
    session::{Ended, Identity, Session},
};
use crate::Transport;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, watch};
use tonic::Code;
use troupe_domain::Error;
use troupe_proto::scheduler::v1::{Draining, worker_message::Kind};
use troupe_wire::Backoff;

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A worker that runs.
struct Running {
    transport: Transport,
    identity: Identity,
    executor: Arc<Executor>,
    link: Arc<Link>,
    offers: watch::Receiver<super::Offer>,
    connected: watch::Sender<bool>,
    drain_timeout: Duration,
}

pub(crate) async fn run(builder: Builder, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
    // Kept alive so that `changed` of a fixed offer waits for ever rather than fails.
    let (_fixed, fixed) = watch::channel(builder.offer);
    let link = Arc::new(Link::default());
    let executor = Executor {
        link: Arc::clone(&link),
        slots: Arc::new(Semaphore::new(builder.slots as usize)),
        agents: builder.agents,
        tools: builder.tools,
        any: builder.any,
        cancel_grace: builder.cancel_grace,
    };
    let running = Running {
        transport: builder.transport,
        identity: Identity { worker_id: builder.worker_id, namespace: builder.namespace, slots: builder.slots, client: builder.client },
        executor: Arc::new(executor),
        link,
        offers: builder.offers.unwrap_or(fixed),
        connected: builder.connected,
        drain_timeout: builder.drain_timeout,
    };
    let result = running.serve(shutdown).await;
    running.link.abandon("the worker is shutting down");
    result
}

impl Running {
    async fn serve(&self, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let (draining, is_draining) = watch::channel(false);
        let drained = async {
            shutdown.await;
            draining.send_replace(true);
            self.link.tell(Kind::Draining(Draining {}));
            if tokio::time::timeout(self.drain_timeout, self.link.idle()).await.is_err() {
                tracing::warn!("the drain took too long: what runs is handed back");
            }
        };
        tokio::select! {
            result = self.connect(is_draining) => result,
            () = drained => Ok(()),
        }
    }

    /// One stream after the other, until the server refuses what this worker is.
    async fn connect(&self, draining: watch::Receiver<bool>) -> Result<(), Error> {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            let session = Session {
                identity: &self.identity,
                executor: &self.executor,
                link: &self.link,
                offers: self.offers.clone(),
                connected: &self.connected,
                draining: *draining.borrow(),
            };
            let ended = session.serve(self.transport.clone()).await;
            self.connected.send_replace(false);
            if let Some(refusal) = refusal(&ended) {
                return Err(refusal);
            }
            if ended.welcomed {
                backoff.reset();
            }
            let wait = backoff.next();
            let status = ended.status.as_ref().map_or("closed", |status| status.message());
            tracing::info!(status, wait_ms = troupe_wire::millis(wait), "stream to the scheduler ended; reconnecting");
            tokio::time::sleep(wait).await;
        }
    }
}

/// What no further attempt would change.
fn refusal(ended: &Ended) -> Option<Error> {
    let status = ended.status.as_ref()?;
    let lasting = matches!(status.code(), Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated);
    (lasting && !ended.welcomed).then(|| troupe_wire::from_status(status))
}
