//! `PeerService`: what other executors pass on, and what they tell.

use super::{Api, key};
use crate::{message::Reply, peers::convert};
use futures::{StreamExt, stream::BoxStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use troupe_domain::{Error, Result};
use troupe_proto::executor::v1::{self as wire, peer_service_server::PeerService};

/// Answers of one message: their bytes are those of rows and of the outputs of runs that were started before.
const ANSWERS: usize = 256;

#[tonic::async_trait]
impl PeerService for Api {
    type ForwardStream = BoxStream<'static, Result<wire::ForwardResponse, Status>>;

    async fn forward(&self, request: Request<Streaming<wire::ForwardRequest>>) -> Result<Response<Self::ForwardStream>, Status> {
        Ok(Response::new(serve(self.clone(), request.into_inner())))
    }

    async fn rebalance(&self, _: Request<wire::RebalanceRequest>) -> Result<Response<wire::RebalanceResponse>, Status> {
        self.shared.look.notify_one();
        Ok(Response::new(wire::RebalanceResponse {}))
    }

    async fn forget_workflow(
        &self,
        request: Request<wire::ForgetWorkflowRequest>,
    ) -> Result<Response<wire::ForgetWorkflowResponse>, Status> {
        let wire::ForgetWorkflowRequest { namespace, name } = request.into_inner();
        self.shared.definitions.forget(&namespace, &name);
        Ok(Response::new(wire::ForgetWorkflowResponse {}))
    }
}

/// Serves one peer's stream. Answers come in any order.
fn serve(api: Api, mut items: Streaming<wire::ForwardRequest>) -> BoxStream<'static, Result<wire::ForwardResponse, Status>> {
    // As many answers wait here as the peer has items under way, which it bounds.
    let (answers, answered) = mpsc::unbounded_channel();
    let tasks = api.shared.tasks.clone();
    tasks.clone().spawn("forwarded", async move {
        loop {
            let batch = tokio::select! {
                () = tasks.cancelled() => return,
                () = answers.closed() => return,
                batch = items.message() => batch,
            };
            match batch {
                Ok(Some(batch)) => {
                    for item in batch.items {
                        api.take_forwarded(item, &answers).await;
                    }
                }
                Ok(None) => return,
                Err(cause) => {
                    tracing::debug!(%cause, "a peer's stream was lost");
                    return;
                }
            }
        }
    });
    UnboundedReceiverStream::new(answered).ready_chunks(ANSWERS).map(|answers| Ok(wire::ForwardResponse { answers })).boxed()
}

impl Api {
    /// Gives an item to its run; what cannot be given is answered at once.
    async fn take_forwarded(&self, item: wire::ForwardItem, answers: &mpsc::UnboundedSender<wire::ForwardAnswer>) {
        let (id, brief, traceparent) = (item.id, item.brief, item.traceparent);
        let refuse = |error: &Error| {
            // A stream that is gone tells its callers that nothing is known.
            let _ = answers.send(wire::ForwardAnswer { id, result: Some(convert::failed(error)) });
        };
        let key = match key(&item.namespace, &item.run_id) {
            Ok(key) => key,
            Err(error) => return refuse(&error),
        };
        let partition = self.shared.router.partition_of(key.run);
        // Whoever does not own the run need not read its definition.
        if let Err(error) = self.shared.router.mailbox(partition) {
            return refuse(&error);
        }
        let Some(intent) = item.intent else { return refuse(&Error::invalid_field("intent", "is missing")) };
        let intent = match convert::intent(&key, intent, &self.shared.definitions).await {
            Ok(intent) => intent,
            Err(error) => return refuse(&error),
        };
        let op = intent.op(Reply::peer(id, brief, answers.clone()));
        // Where it cannot be delivered the reply is dropped with it, and that says that nothing is known.
        if let Err(cause) = self.shared.router.deliver(key, op, traceparent).await {
            tracing::debug!(%cause, "a forwarded item has no owner now");
        }
    }
}
