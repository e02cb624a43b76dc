//! The gRPC face: decode and check, ask the core or the bus, encode.

pub mod check;
pub mod work;

use crate::{bus::EventBus, clock::Clock, config::Config, core::Message, queue::TaskKey};
use futures::{Stream, StreamExt, stream};
use std::{pin::Pin, sync::Arc};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::{Request, Response, Status, Streaming};
use troupe_domain::{Error, Namespace};
use troupe_proto::scheduler::v1::{
    DispatchRequest, DispatchResponse, ExplainTasksRequest, ExplainTasksResponse, ListQueuesRequest, ListQueuesResponse, SubscribeRequest,
    SubscribeResponse, scheduler_server::Scheduler,
};
use troupe_service_kit::Tasks;
use troupe_wire::to_status;

/// Batches that are answered together, at most.
const GATHERED: usize = 16;

/// A stream of answers.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Everything a server of the scheduler needs. Cheap to clone.
#[derive(Clone)]
pub struct Face {
    pub config: Arc<Config>,
    pub clock: Clock,
    pub core: mpsc::Sender<Message>,
    pub bus: Arc<dyn EventBus>,
    pub tasks: Tasks,
    /// Changes when the queue has lost tasks.
    pub lost: watch::Receiver<u64>,
}

impl Face {
    /// Asks the core and waits for its answer.
    pub(crate) async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Status> {
        let stopped = || to_status(&Error::unavailable("the scheduler has stopped"));
        let (reply, answer) = oneshot::channel();
        self.core.send(make(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }

    async fn dispatch_one(&self, request: DispatchRequest) -> Result<DispatchResponse, Status> {
        let id = request.id;
        let checked = check::dispatch(request, &self.config, self.clock.now()).map_err(|e| to_status(&e))?;
        let check::Dispatched { tasks, refused, cancels } = checked;
        self.ask(|reply| Message::Dispatch { tasks, refused, cancels, reply }).await?.map_err(|e| to_status(&e))?;
        Ok(DispatchResponse { id })
    }

    /// Answers that end when the process stops.
    fn answers<T: 'static>(&self, answers: impl Stream<Item = Result<T, Status>> + Send + 'static) -> Response<Answers<T>> {
        let stopped = self.tasks.token().clone().cancelled_owned();
        Response::new(Box::pin(answers.take_until(stopped)))
    }
}

/// One answer for each request, in order; the first error ends the stream.
fn each<Q, A, F, Fut>(face: Face, requests: Streaming<Q>, answer: F) -> impl Stream<Item = Result<A, Status>> + Send + 'static
where
    Q: Send + 'static,
    A: Send + 'static,
    F: Fn(Face, Q) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = Result<A, Status>> + Send,
{
    stream::try_unfold((face, requests), move |(face, mut requests)| {
        let answer = answer.clone();
        async move {
            let Some(request) = requests.message().await? else { return Ok(None) };
            let response = answer(face.clone(), request).await?;
            Ok(Some((response, (face, requests))))
        }
    })
}

#[tonic::async_trait]
impl Scheduler for Face {
    type DispatchStream = Answers<DispatchResponse>;
    type SubscribeStream = Answers<SubscribeResponse>;

    async fn dispatch(&self, request: Request<Streaming<DispatchRequest>>) -> Result<Response<Self::DispatchStream>, Status> {
        let answers = each(self.clone(), request.into_inner(), |face, request| async move { face.dispatch_one(request).await });
        // Nobody waits for an answer, and one stands for those before it.
        let answers = tokio_stream::StreamExt::chunks_timeout(answers, GATHERED, troupe_wire::GATHER).flat_map(|answers| {
            let (taken, failed): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
            stream::iter(taken.into_iter().last().into_iter().chain(failed))
        });
        // An executor whose stream ends dispatches again what its journal says is pending.
        let mut lost = self.lost.clone();
        lost.mark_unchanged();
        let after = lost.clone();
        let until_lost = async move { lost.changed().await };
        let why = stream::iter([()]).filter_map(move |()| {
            let lost = after.has_changed().unwrap_or(false);
            async move { lost.then(|| Err(to_status(&Error::unavailable("the queue has lost tasks: dispatch again what is pending")))) }
        });
        Ok(self.answers(answers.take_until(until_lost).chain(why)))
    }

    async fn list_queues(&self, request: Request<ListQueuesRequest>) -> Result<Response<ListQueuesResponse>, Status> {
        let namespace = Namespace::parse(&request.get_ref().namespace).map_err(|e| to_status(&e))?.to_string();
        let queues = self.ask(|reply| Message::List { namespace, reply }).await?.map_err(|e| to_status(&e))?;
        Ok(Response::new(ListQueuesResponse { queues }))
    }

    async fn explain_tasks(&self, request: Request<ExplainTasksRequest>) -> Result<Response<ExplainTasksResponse>, Status> {
        let request = request.into_inner();
        let namespace = Namespace::parse(&request.namespace).map_err(|e| to_status(&e))?;
        check::at_most("task_ids", request.task_ids.len(), check::MAX_EXPLAINED).map_err(|e| to_status(&e))?;
        let keys = request.task_ids.iter().map(|id| TaskKey::new(namespace.as_str(), id)).collect();
        let tasks = self.ask(|reply| Message::Explain { keys, reply }).await?.map_err(|e| to_status(&e))?;
        Ok(Response::new(ExplainTasksResponse { tasks }))
    }

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        let request = request.into_inner();
        check::topic(&request.topic).map_err(|e| to_status(&e))?;
        let events = self.bus.subscribe(&request.topic, &request.cursor).await.map_err(|e| to_status(&e))?;
        Ok(self.answers(events.map(|event| event.map_err(|e| to_status(&e)))))
    }
}
