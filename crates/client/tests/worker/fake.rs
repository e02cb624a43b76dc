//! A scheduler that a test plays by hand.

use std::{pin::Pin, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use troupe_client::Transport;
use troupe_proto::{
    common::v1::{Record, Target, target::Kind as TargetKind},
    scheduler::v1::{
        Ack, Assignment, Cancel, Hello, ServerMessage, Task, Welcome, WorkRequest, WorkResponse,
        server_message::Kind as ServerKind,
        worker_message::Kind as WorkerKind,
        worker_service_server::{WorkerService, WorkerServiceServer},
    },
};

/// Longer than anything in these tests takes; reaching it is a failure.
const LIMIT: Duration = Duration::from_secs(20);

struct Server(mpsc::Sender<Session>);

#[tonic::async_trait]
impl WorkerService for Server {
    type WorkStream = Pin<Box<dyn Stream<Item = Result<WorkResponse, Status>> + Send>>;

    async fn work(&self, request: Request<Streaming<WorkRequest>>) -> Result<Response<Self::WorkStream>, Status> {
        let (sender, receiver) = mpsc::channel(64);
        let session = Session { inbound: request.into_inner(), queue: Vec::new(), outbound: sender };
        self.0.send(session).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// The test's end of the fake.
pub(crate) struct Fake {
    sessions: mpsc::Receiver<Session>,
}

/// One worker's stream. Dropping it is the loss of the stream.
pub(crate) struct Session {
    inbound: Streaming<WorkRequest>,
    queue: Vec<WorkerKind>,
    outbound: mpsc::Sender<Result<WorkResponse, Status>>,
}

pub(crate) fn fake() -> (Fake, Transport) {
    let (sender, sessions) = mpsc::channel(8);
    let server = WorkerServiceServer::new(Server(sender)).max_decoding_message_size(troupe_client::MAX_MESSAGE_BYTES);
    (Fake { sessions }, Transport::embedded(server))
}

impl Fake {
    /// The next stream, after its Hello and the answer to it.
    pub(crate) async fn session(&mut self) -> (Session, Hello) {
        let mut session = tokio::time::timeout(LIMIT, self.sessions.recv()).await.expect("a worker connects").expect("a session");
        let WorkerKind::Hello(hello) = session.next().await else { panic!("the first message is Hello") };
        session.send(ServerKind::Welcome(Welcome { lease_ms: 30_000 })).await;
        (session, hello)
    }
}

#[allow(dead_code, reason = "each test crate uses its part")]
impl Session {
    pub(crate) async fn next(&mut self) -> WorkerKind {
        loop {
            if !self.queue.is_empty() {
                return self.queue.remove(0);
            }
            let next = tokio::time::timeout(LIMIT, self.inbound.next()).await.expect("the worker says something");
            let request = next.expect("the stream lives").expect("a message");
            self.queue.extend(request.messages.into_iter().filter_map(|m| m.kind));
        }
    }

    /// The next message that is neither progress nor a chunk.
    pub(crate) async fn next_durable(&mut self) -> WorkerKind {
        loop {
            match self.next().await {
                WorkerKind::Progress(_) | WorkerKind::Chunk(_) => {}
                other => return other,
            }
        }
    }

    pub(crate) async fn send(&self, kind: ServerKind) {
        let response = WorkResponse { messages: vec![ServerMessage { kind: Some(kind) }] };
        self.outbound.send(Ok(response)).await.expect("the worker listens");
    }

    pub(crate) async fn assign(&self, task: Task, fence: u64) {
        let agent = match task.target.as_ref().and_then(|t| t.kind.clone()) {
            Some(TargetKind::Agent(name) | TargetKind::Capability(name)) => name,
            _ => String::new(),
        };
        self.send(ServerKind::Assignment(Assignment { task: Some(task), fence, agent, ..Assignment::default() })).await;
    }

    pub(crate) async fn ack(&self, task_id: &str, fence: u64, record_index: Option<u32>, applied: bool) {
        let ack =
            Ack { namespace: "default".to_owned(), task_id: task_id.to_owned(), fence, record_index, applied, message: String::new() };
        self.send(ServerKind::Ack(ack)).await;
    }

    pub(crate) async fn cancel(&self, task_id: &str, fence: u64, reason: &str) {
        let cancel = Cancel { namespace: "default".to_owned(), task_id: task_id.to_owned(), fence, reason: reason.to_owned() };
        self.send(ServerKind::Cancel(cancel)).await;
    }

    /// Acknowledges records as they come, and answers with the first other durable message and the records before it.
    pub(crate) async fn run_to_result(&mut self) -> (Vec<Record>, WorkerKind) {
        let mut records = Vec::new();
        loop {
            match self.next_durable().await {
                WorkerKind::Record(r) => {
                    self.ack(&r.task_id, r.fence, Some(r.index), true).await;
                    records.push(Record { index: r.index, name: r.name, value: r.value, recorded_at: None });
                }
                other => {
                    if let WorkerKind::Completed(c) = &other {
                        self.ack(&c.task_id, c.fence, None, true).await;
                    }
                    if let WorkerKind::Failed(f) = &other {
                        self.ack(&f.task_id, f.fence, None, true).await;
                    }
                    return (records, other);
                }
            }
        }
    }
}

/// A task for an agent.
pub(crate) fn task(agent: &str, id: &str, input: &str) -> Task {
    Task {
        namespace: "default".to_owned(),
        task_id: id.to_owned(),
        run_id: "0190a000-0000-7000-8000-000000000001".to_owned(),
        step: "step".to_owned(),
        target: Some(Target { kind: Some(TargetKind::Agent(agent.to_owned())) }),
        input: input.to_owned().into(),
        attempt: 1,
        ..Task::default()
    }
}
