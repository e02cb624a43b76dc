//! A scheduler in this process, between an executor and a registry that do what a test says. Time is paused: waiting costs nothing.

use std::{
    collections::VecDeque,
    fmt::Debug,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream, wrappers::UnboundedReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use troupe_proto::{
    common::v1::{Target, target::Kind as TargetKind},
    executor::v1::{effect_service_server::*, task_report::Outcome, *},
    registry::v1::{agent_registry_server::*, *},
    scheduler::v1::{
        scheduler_client::SchedulerClient, server_message::Kind as ServerKind, worker_message::Kind as WorkerKind,
        worker_service_client::WorkerServiceClient, *,
    },
};
use troupe_scheduler::{Config, Dependencies, Service};
use troupe_service_kit::Tasks;
use troupe_wire::Transport;

/// Longer than anything that is waited for; with paused time it passes at once when nothing happens.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3600);

/// An executor that answers this loses its stream instead.
pub(crate) const LOSE: &str = "lose the stream";

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
pub(crate) type Verdict = Arc<dyn Fn(&TaskReport) -> (Applied, String) + Send + Sync>;

#[derive(Clone)]
struct FakeExecutor {
    seen: mpsc::UnboundedSender<TaskReport>,
    verdict: Arc<Mutex<Verdict>>,
    lost: CancellationToken,
}

#[tonic::async_trait]
impl EffectService for FakeExecutor {
    type ReportStream = Answers<ReportResponse>;

    async fn report(&self, request: Request<Streaming<ReportRequest>>) -> Result<Response<Self::ReportStream>, Status> {
        let this = self.clone();
        let answers = request.into_inner().map(move |request| {
            let verdict = this.verdict.lock().unwrap().clone();
            let ack = |item: ReportItem| {
                let report = item.report.unwrap_or_default();
                let (applied, message) = verdict(&report);
                let _ = this.seen.send(report);
                ReportAck { id: item.id, applied: applied.into(), message }
            };
            let acks: Vec<ReportAck> = request?.items.into_iter().map(ack).collect();
            if acks.iter().any(|ack| ack.message == LOSE) {
                return Err(Status::unavailable("the executor has gone"));
            }
            Ok(ReportResponse { acks })
        });
        Ok(Response::new(Box::pin(take_until(answers, self.lost.clone().cancelled_owned()))))
    }

    async fn decide(&self, _: Request<DecideRequest>) -> Result<Response<DecideResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

type Changes = mpsc::UnboundedReceiver<Result<WatchAgentsResponse, Status>>;

#[derive(Clone)]
struct FakeRegistry {
    changes: Arc<Mutex<Option<Changes>>>,
    instances: watch::Sender<Vec<ReportedInstance>>,
    lost: CancellationToken,
}

fn take_until<T: Send>(answers: impl Stream<Item = T> + Send, end: impl Future<Output = ()> + Send) -> impl Stream<Item = T> + Send {
    futures::StreamExt::take_until(answers, end)
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not here"))
}

#[tonic::async_trait]
impl AgentRegistry for FakeRegistry {
    type WatchAgentsStream = Answers<WatchAgentsResponse>;
    type ReportInstancesStream = Answers<ReportInstancesResponse>;

    async fn watch_agents(&self, _: Request<WatchAgentsRequest>) -> Result<Response<Self::WatchAgentsStream>, Status> {
        let receiver = self.changes.lock().unwrap().take().ok_or_else(|| Status::unavailable("once only"))?;
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(receiver))))
    }

    async fn report_instances(
        &self,
        request: Request<Streaming<ReportInstancesRequest>>,
    ) -> Result<Response<Self::ReportInstancesStream>, Status> {
        let instances = self.instances.clone();
        let answers = request.into_inner().map(move |request| {
            instances.send_replace(request?.instances);
            Ok(ReportInstancesResponse {})
        });
        Ok(Response::new(Box::pin(take_until(answers, self.lost.clone().cancelled_owned()))))
    }

    async fn apply_agent(&self, _: Request<ApplyAgentRequest>) -> Result<Response<ApplyAgentResponse>, Status> {
        not_here()
    }
    async fn get_agent(&self, _: Request<GetAgentRequest>) -> Result<Response<GetAgentResponse>, Status> {
        not_here()
    }
    async fn list_agents(&self, _: Request<ListAgentsRequest>) -> Result<Response<ListAgentsResponse>, Status> {
        not_here()
    }
    async fn delete_agent(&self, _: Request<DeleteAgentRequest>) -> Result<Response<DeleteAgentResponse>, Status> {
        not_here()
    }
    async fn set_agent_state(&self, _: Request<SetAgentStateRequest>) -> Result<Response<SetAgentStateResponse>, Status> {
        not_here()
    }
}

/// A scheduler under test.
pub(crate) struct Scheduler {
    pub(crate) service: Service,
    transport: Transport,
    reports: mpsc::UnboundedReceiver<TaskReport>,
    verdict: Arc<Mutex<Verdict>>,
    changes: mpsc::UnboundedSender<Result<WatchAgentsResponse, Status>>,
    pub(crate) instances: watch::Receiver<Vec<ReportedInstance>>,
    dispatch: mpsc::Sender<DispatchRequest>,
    dispatched: Streaming<DispatchResponse>,
    sent: u64,
    lost: CancellationToken,
    tasks: Tasks,
}

impl Scheduler {
    pub(crate) async fn start() -> Self {
        Self::with(Config::default()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let (seen, reports) = mpsc::unbounded_channel();
        let verdict: Arc<Mutex<Verdict>> = Arc::new(Mutex::new(Arc::new(|_: &TaskReport| (Applied::Yes, String::new()))));
        let (changes, to_watch) = mpsc::unbounded_channel();
        let (instances, reported) = watch::channel(Vec::new());
        let lost = CancellationToken::new();
        let executor = EffectServiceServer::new(FakeExecutor { seen, verdict: Arc::clone(&verdict), lost: lost.clone() });
        let registry = FakeRegistry { changes: Arc::new(Mutex::new(Some(to_watch))), instances, lost: lost.clone() };
        let registry = AgentRegistryServer::new(registry);
        let tasks = Tasks::new();
        let dependencies = Dependencies { executor: Transport::embedded(executor), registry: Transport::embedded(registry) };
        let service = Service::start(config, dependencies, &tasks).await.unwrap();
        let transport = Transport::embedded(service.routes());
        let (dispatch, requests) = mpsc::channel(16);
        let dispatched = SchedulerClient::new(transport.clone()).dispatch(ReceiverStream::new(requests)).await.unwrap().into_inner();
        let mut this =
            Self { service, transport, reports, verdict, changes, instances: reported, dispatch, dispatched, sent: 0, lost, tasks };
        this.synced().await;
        this
    }

    /// The streams with which it reports results and instances are lost, those that it opens after this too.
    pub(crate) fn lose_reports(&self) {
        self.lost.cancel();
    }

    /// The scheduler has taken all agents.
    async fn synced(&mut self) {
        self.changes.send(Ok(WatchAgentsResponse { kind: "synced".into(), agent: None })).unwrap();
        while self.service.health().await.iter().any(|dependency| !dependency.ok) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until it has noticed that Redis is away.
    pub(crate) async fn misses_redis(&self) {
        let missing = async || self.service.health().await.iter().any(|needed| needed.name == "redis" && !needed.ok).then_some(());
        troupe_testkit::until("it notices that Redis is away", missing).await.unwrap();
    }

    /// Waits until the queue says of a task what `state` says.
    pub(crate) async fn knows(&self, task: &Task, state: &str) {
        let known = async || (self.try_explain(task).await.as_deref() == Some(state)).then_some(());
        troupe_testkit::until(&format!("{} is {state}", task.step), known).await.unwrap();
    }

    /// What the executor answers from now on.
    pub(crate) fn answer(&self, verdict: impl Fn(&TaskReport) -> (Applied, &'static str) + Send + Sync + 'static) {
        *self.verdict.lock().unwrap() = Arc::new(move |report: &TaskReport| {
            let (applied, message) = verdict(report);
            (applied, message.to_owned())
        });
    }

    /// The registry says what an agent is; it is in force when the next call is answered.
    pub(crate) async fn define(&self, name: &str, state: AgentState, limits: &str) {
        let agent = Agent {
            namespace: "default".into(),
            name: name.into(),
            state: state.into(),
            state_reason: "a test".into(),
            spec: format!("{{\"agent\":\"{name}\",\"kind\":\"worker\",\"limits\":{limits}}}").into(),
            ..Agent::default()
        };
        self.changes.send(Ok(WatchAgentsResponse { kind: "upsert".into(), agent: Some(agent) })).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    pub(crate) fn client(&self) -> SchedulerClient<Transport> {
        SchedulerClient::new(self.transport.clone())
    }

    async fn request(&mut self, request: DispatchRequest) {
        self.try_request(request).await.unwrap();
    }

    async fn try_request(&mut self, request: DispatchRequest) -> Result<(), Status> {
        self.sent += 1;
        let id = self.sent;
        // A stream that has ended says why when it is read.
        let _ = self.dispatch.send(DispatchRequest { id, ..request }).await;
        let response = self.dispatched.message().await?.ok_or_else(|| Status::unavailable("the stream has ended"))?;
        assert_eq!(response.id, id);
        Ok(())
    }

    pub(crate) async fn try_dispatch(&mut self, tasks: Vec<Task>) -> Result<(), Status> {
        self.try_request(DispatchRequest { tasks, ..DispatchRequest::default() }).await
    }

    /// How the executor's stream ends.
    pub(crate) async fn dispatch_ends(&mut self) -> Status {
        timeout(PATIENCE, self.dispatched.message()).await.expect("the end of the stream").expect_err("an error")
    }

    /// The executor opens its stream again.
    pub(crate) async fn reopen(&mut self) {
        let (dispatch, requests) = mpsc::channel(16);
        self.dispatched = self.client().dispatch(ReceiverStream::new(requests)).await.unwrap().into_inner();
        self.dispatch = dispatch;
    }

    /// Ends it without any drain.
    pub(crate) async fn kill(self) {
        assert!(self.tasks.stop(Duration::from_secs(10)).await);
    }

    pub(crate) async fn dispatch(&mut self, tasks: Vec<Task>) {
        self.request(DispatchRequest { tasks, ..DispatchRequest::default() }).await;
    }

    pub(crate) async fn cancel(&mut self, task: &Task) {
        let cancel = CancelTask { namespace: task.namespace.clone(), task_id: task.task_id.clone(), reason: "changed my mind".into() };
        self.request(DispatchRequest { cancels: vec![cancel], ..DispatchRequest::default() }).await;
    }

    pub(crate) async fn worker(&self, hello: Hello) -> Worker {
        let mut worker = self.stranger(vec![message(WorkerKind::Hello(hello))]).await;
        match worker.next().await {
            ServerKind::Welcome(_) => worker,
            other => panic!("expected Welcome, got {other:?}"),
        }
    }

    /// A stream that begins with any messages.
    pub(crate) async fn stranger(&self, messages: Vec<WorkerMessage>) -> Worker {
        let (sender, requests) = mpsc::channel(16);
        sender.send(WorkRequest { messages }).await.unwrap();
        let stream = WorkerServiceClient::new(self.transport.clone()).work(ReceiverStream::new(requests)).await.unwrap().into_inner();
        Worker { sender, stream, waiting: VecDeque::new() }
    }

    pub(crate) async fn report(&mut self) -> TaskReport {
        timeout(PATIENCE, self.reports.recv()).await.expect("a report").unwrap()
    }

    /// The code of the failure that is reported next.
    pub(crate) async fn failure(&mut self) -> (String, bool) {
        match self.report().await.outcome {
            Some(Outcome::Failed(TaskFailed { failure: Some(failure) })) => (failure.code, failure.retryable),
            other => panic!("expected a failure, got {other:?}"),
        }
    }

    /// The task's state; `None` while nobody can say.
    pub(crate) async fn try_explain(&self, task: &Task) -> Option<String> {
        let request = ExplainTasksRequest { namespace: task.namespace.clone(), task_ids: vec![task.task_id.clone()] };
        Some(self.client().explain_tasks(request).await.ok()?.into_inner().tasks.remove(0).state)
    }

    pub(crate) async fn explain(&self, task: &Task) -> TaskState {
        let request = ExplainTasksRequest { namespace: task.namespace.clone(), task_ids: vec![task.task_id.clone()] };
        self.client().explain_tasks(request).await.unwrap().into_inner().tasks.remove(0)
    }
}

/// A worker's end of its stream.
pub(crate) struct Worker {
    sender: mpsc::Sender<WorkRequest>,
    stream: Streaming<WorkResponse>,
    waiting: VecDeque<ServerMessage>,
}

impl Worker {
    async fn pull(&mut self) -> Result<Option<ServerKind>, Status> {
        while self.waiting.is_empty() {
            match self.stream.message().await? {
                Some(response) => self.waiting.extend(response.messages),
                None => return Ok(None),
            }
        }
        Ok(self.waiting.pop_front().and_then(|message| message.kind))
    }

    pub(crate) async fn next(&mut self) -> ServerKind {
        timeout(PATIENCE, self.pull()).await.expect("a message").expect("a stream").expect("a stream that goes on")
    }

    /// The first message that `pick` takes; others stay for later, because acks, assignments and cancels come in any order.
    async fn first<T>(&mut self, what: &str, pick: impl Fn(&ServerKind) -> Option<T>) -> T {
        let mut passed = VecDeque::new();
        let found = loop {
            match timeout(PATIENCE, self.pull()).await {
                Ok(Ok(Some(kind))) => match pick(&kind) {
                    Some(found) => break found,
                    None => passed.push_back(ServerMessage { kind: Some(kind) }),
                },
                other => panic!("expected {what}, got {other:?} after {passed:?}"),
            }
        };
        passed.append(&mut self.waiting);
        self.waiting = passed;
        found
    }

    pub(crate) async fn assignment(&mut self) -> Assignment {
        let pick = |kind: &ServerKind| if let ServerKind::Assignment(assignment) = kind { Some(assignment.clone()) } else { None };
        self.first("an assignment", pick).await
    }

    /// The step of the next assignment.
    pub(crate) async fn step(&mut self) -> String {
        self.assignment().await.task.unwrap().step
    }

    pub(crate) async fn ack(&mut self) -> Ack {
        self.first("an ack", |kind: &ServerKind| if let ServerKind::Ack(ack) = kind { Some(ack.clone()) } else { None }).await
    }

    pub(crate) async fn cancelled(&mut self) -> Cancel {
        self.first("a cancel", |kind: &ServerKind| if let ServerKind::Cancel(cancel) = kind { Some(cancel.clone()) } else { None }).await
    }

    /// How the stream ends.
    pub(crate) async fn end(&mut self) -> Option<Status> {
        loop {
            match timeout(PATIENCE, self.pull()).await.expect("the end of the stream") {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    }

    /// Nothing comes for so long.
    pub(crate) async fn is_quiet_for(&mut self, span: Duration) {
        if let Ok(message) = timeout(span, self.pull()).await {
            panic!("expected nothing, got {message:?}");
        }
    }

    pub(crate) async fn quiet(&mut self) {
        self.is_quiet_for(Duration::from_millis(50)).await;
    }

    pub(crate) async fn send(&self, kind: WorkerKind) {
        self.sender.send(WorkRequest { messages: vec![message(kind)] }).await.unwrap();
    }

    pub(crate) async fn complete(&self, assignment: &Assignment) {
        self.send(completed(assignment)).await;
    }

    pub(crate) async fn record(&self, assignment: &Assignment, index: u32) {
        let task = assignment.task.as_ref().unwrap();
        let record = RecordResult {
            namespace: task.namespace.clone(),
            task_id: task.task_id.clone(),
            fence: assignment.fence,
            index,
            name: format!("record {index}"),
            value: index.to_string().into(),
            attempt: task.attempt,
        };
        self.send(WorkerKind::Record(record)).await;
    }

    pub(crate) async fn progress(&self, assignment: &Assignment) {
        let task = assignment.task.as_ref().unwrap();
        let progress =
            Progress { namespace: task.namespace.clone(), task_id: task.task_id.clone(), fence: assignment.fence, ..Progress::default() };
        self.send(WorkerKind::Progress(progress)).await;
    }
}

pub(crate) fn completed(assignment: &Assignment) -> WorkerKind {
    let task = assignment.task.as_ref().unwrap();
    WorkerKind::Completed(Completed {
        namespace: task.namespace.clone(),
        task_id: task.task_id.clone(),
        fence: assignment.fence,
        output: "42".into(),
        attempt: task.attempt,
    })
}

pub(crate) fn failed(assignment: &Assignment) -> WorkerKind {
    let task = assignment.task.as_ref().unwrap();
    WorkerKind::Failed(Failed {
        namespace: task.namespace.clone(),
        task_id: task.task_id.clone(),
        fence: assignment.fence,
        failure: None,
        attempt: task.attempt,
    })
}

pub(crate) fn held(assignment: &Assignment) -> HeldTask {
    let task = assignment.task.as_ref().unwrap();
    HeldTask { namespace: task.namespace.clone(), task_id: task.task_id.clone(), fence: assignment.fence, attempt: task.attempt }
}

pub(crate) fn message(kind: WorkerKind) -> WorkerMessage {
    WorkerMessage { kind: Some(kind) }
}

/// A worker that serves agents, written `name` or `name:capability`.
pub(crate) fn hello(worker_id: &str, slots: u32, agents: &[&str]) -> Hello {
    let agents = agents.iter().map(|text| {
        let (name, capability) = text.split_once(':').unwrap_or((text, ""));
        let capabilities = (!capability.is_empty()).then(|| capability.to_owned()).into_iter().collect();
        ServedAgent { name: name.into(), capabilities, ..ServedAgent::default() }
    });
    Hello { worker_id: worker_id.into(), slots, agents: agents.collect(), ..Hello::default() }
}

/// A first attempt for agent `a`.
pub(crate) fn task(step: &str) -> Task {
    task_for(TargetKind::Agent("a".into()), step)
}

pub(crate) fn task_for(kind: TargetKind, step: &str) -> Task {
    Task {
        namespace: "default".into(),
        task_id: format!("run/{step}"),
        run_id: "run".into(),
        step: step.into(),
        target: Some(Target { kind: Some(kind) }),
        attempt: 1,
        first: true,
        ..Task::default()
    }
}

/// So long from now, as the wire has it.
pub(crate) fn from_now(span: Duration) -> Option<prost_types::Timestamp> {
    Some(troupe_wire::timestamp(chrono::Utc::now() + span))
}

pub(crate) fn assert_same<T: Debug + Ord>(mut left: Vec<T>, mut right: Vec<T>) {
    left.sort();
    right.sort();
    assert_eq!(left, right);
}
