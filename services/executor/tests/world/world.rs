//! An executor among real and pretended neighbours: the journal is real, the scheduler and the approval service are told what to do.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "for tests, of which each uses a part")]

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, service::Routes};
use troupe_executor::{Config, Dependencies, Service};
use troupe_proto::{
    approval::v1::{self as approval, approval_service_server::ApprovalService, approval_service_server::ApprovalServiceServer},
    common::v1::Failure,
    executor::v1::{
        self as wire, effect_service_client::EffectServiceClient, run_service_client::RunServiceClient, task_report::Outcome,
        workflow_service_client::WorkflowServiceClient,
    },
    scheduler::v1::{self as scheduler, scheduler_server::Scheduler, scheduler_server::SchedulerServer},
};
use troupe_service_kit::Tasks;
use troupe_wire::{LateTransport, Transport};

/// What a pretended worker does with a task.
pub enum Deed {
    Complete(serde_json::Value),
    Fail {
        code: &'static str,
        retryable: bool,
    },
    /// Nothing is heard of it.
    Hold,
}

pub type Worker = Arc<dyn Fn(&scheduler::Task) -> Deed + Send + Sync>;

/// A worker that answers every task with its input.
pub fn echo() -> Worker {
    Arc::new(|task| Deed::Complete(serde_json::from_slice(&task.input).unwrap()))
}

pub fn holding() -> Worker {
    Arc::new(|_| Deed::Hold)
}

/// A journal that outlives executors.
pub struct Journal {
    pub tasks: Tasks,
    pub transport: Transport,
    _service: troupe_checkpoint::Service,
}

impl Journal {
    pub async fn in_memory() -> Self {
        let tasks = Tasks::new();
        let service = troupe_checkpoint::Service::start(Default::default(), troupe_checkpoint::Backend::Memory, &tasks).await.unwrap();
        Self { tasks, transport: Transport::embedded(service.routes()), _service: service }
    }

    pub async fn on_disk(path: &std::path::Path) -> Self {
        let tasks = Tasks::new();
        let backend = troupe_checkpoint::Backend::Sqlite(path.to_owned());
        let service = troupe_checkpoint::Service::start(Default::default(), backend, &tasks).await.unwrap();
        Self { tasks, transport: Transport::embedded(service.routes()), _service: service }
    }
}

/// A link to the journal that can be broken.
#[derive(Clone, Default)]
pub struct Link {
    /// No call gets through.
    pub down: Arc<AtomicBool>,
    /// The next answer to an append is lost on its way back.
    pub lose_answer: Arc<AtomicBool>,
}

impl Link {
    /// A journal behind this link.
    pub fn before(&self, journal: &Journal) -> Journal {
        let (link, inner) = (self.clone(), journal.transport.clone());
        let transport = Transport::embedded(tower::service_fn(move |request: tonic::codegen::http::Request<tonic::body::Body>| {
            let (link, inner) = (link.clone(), inner.clone());
            async move {
                if link.down.load(Ordering::SeqCst) {
                    return Ok(Status::unavailable("the link is down").into_http());
                }
                let appends = request.uri().path().ends_with("/Append");
                let response = tower::ServiceExt::oneshot(inner, request).await?;
                if !appends {
                    return Ok::<_, tonic::codegen::StdError>(response);
                }
                let (head, body) = response.into_parts();
                let frames = http_body_util::BodyStream::new(body).map(move |frame| match frame {
                    Ok(frame) if frame.is_data() && link.lose_answer.swap(false, Ordering::SeqCst) => Err(Status::unavailable("lost")),
                    frame => frame,
                });
                let body = tonic::body::Body::new(http_body_util::StreamBody::new(frames));
                Ok(tonic::codegen::http::Response::from_parts(head, body))
            }
        }));
        Journal { tasks: journal.tasks.clone(), transport, _service: journal._service.clone() }
    }
}

/// An executor with its neighbours.
pub struct World {
    pub tasks: Tasks,
    pub service: Service,
    pub scheduler: FakeScheduler,
    pub approvals: FakeApprovals,
    pub runs: RunServiceClient<Transport>,
    pub workflows: WorkflowServiceClient<Transport>,
    pub effects: EffectServiceClient<Transport>,
}

pub fn small() -> Config {
    Config { partitions: 4, ..Config::default() }
}

impl World {
    pub async fn start(journal: &Journal, config: Config, worker: Worker) -> Self {
        let tasks = Tasks::new();
        let late = LateTransport::default();
        let scheduler = FakeScheduler::new(tasks.clone(), EffectServiceClient::new(late.transport()), worker);
        let approvals = FakeApprovals::default();
        let dependencies = Dependencies {
            checkpoint: journal.transport.clone(),
            scheduler: Transport::embedded(Routes::new(SchedulerServer::new(scheduler.clone()))),
            approval: Transport::embedded(Routes::new(ApprovalServiceServer::new(approvals.clone()))),
        };
        let service = Service::start(config, dependencies, &tasks).await.unwrap();
        let transport = Transport::embedded(service.routes());
        late.bind(transport.clone());
        Self {
            runs: RunServiceClient::new(transport.clone()),
            workflows: WorkflowServiceClient::new(transport.clone()),
            effects: EffectServiceClient::new(transport),
            tasks,
            service,
            scheduler,
            approvals,
        }
    }

    /// Ends as a killed process does: nothing is finished, nothing handed over.
    pub async fn crash(self) {
        assert!(self.tasks.stop(Duration::from_secs(10)).await, "tasks did not end");
    }

    pub async fn apply(&mut self, source: &str) -> wire::Workflow {
        let request = wire::ApplyWorkflowRequest { source: source.to_owned(), ..Default::default() };
        let answer = self.workflows.apply_workflow(request).await;
        answer.unwrap_or_else(|status| panic!("{:?}", troupe_wire::from_status(&status))).into_inner().workflow.unwrap()
    }

    pub async fn begin(&mut self, workflow: &str, input: serde_json::Value) -> wire::Run {
        let request = wire::StartRunRequest { workflow: workflow.to_owned(), input: input.to_string().into(), ..Default::default() };
        self.runs.start_run(request).await.unwrap().into_inner().run.unwrap()
    }

    pub async fn ended(&mut self, run_id: &str) -> wire::Run {
        let timeout = Some(troupe_wire::duration(Duration::from_secs(30)));
        let request = wire::WaitRunRequest { run_id: run_id.to_owned(), timeout, ..Default::default() };
        let answer = self.runs.wait_run(request).await.unwrap().into_inner();
        let run = answer.run.unwrap();
        assert!(answer.ended, "the run did not end: {run:?}");
        run
    }

    pub async fn run(&mut self, run_id: &str) -> wire::Run {
        self.runs.get_run(wire::GetRunRequest { run_id: run_id.to_owned(), ..Default::default() }).await.unwrap().into_inner().run.unwrap()
    }

    pub async fn status_becomes(&mut self, run_id: &str, status: &str) -> wire::Run {
        for _ in 0..2_000 {
            let run = self.run(run_id).await;
            if run.status == status {
                return run;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the run is {:?}, not {status}", self.run(run_id).await);
    }

    pub async fn journal(&mut self, run_id: &str) -> Vec<wire::Checkpoint> {
        let page = Some(troupe_proto::common::v1::Page { limit: 500, cursor: String::new() });
        let request = wire::ListCheckpointsRequest { run_id: run_id.to_owned(), page, ..Default::default() };
        self.runs.list_checkpoints(request).await.unwrap().into_inner().checkpoints
    }

    /// Events of a run until its stream ends.
    pub async fn watch(&mut self, run_id: &str, cursor: &str) -> Vec<wire::WatchRunResponse> {
        let request = wire::WatchRunRequest { run_id: run_id.to_owned(), cursor: cursor.to_owned(), ..Default::default() };
        let stream = self.runs.watch_run(request).await.unwrap().into_inner();
        let all = stream.map(|event| event.unwrap()).collect::<Vec<_>>();
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("the stream ends with the run")
    }

    pub async fn control(&mut self, run_id: &str, action: wire::ControlAction) -> Result<wire::ControlRunResponse, troupe_domain::Error> {
        let request = wire::ControlRunRequest { run_id: run_id.to_owned(), action: action.into(), ..Default::default() };
        self.runs.control_run(request).await.map(Response::into_inner).map_err(|status| troupe_wire::from_status(&status))
    }

    /// Reports one item and waits for its answer.
    pub async fn report(&mut self, report: wire::TaskReport) -> wire::ReportAck {
        let (items, outbound) = mpsc::channel(1);
        items.send(wire::ReportRequest { items: vec![wire::ReportItem { id: 1, report: Some(report) }] }).await.unwrap();
        let mut answers = self.effects.report(ReceiverStream::new(outbound)).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap().acks.remove(0)
    }
}

/// Waits until a condition holds; fails after 30 seconds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), waiting).await.is_ok(), "{what}");
}

#[derive(Clone)]
pub struct FakeScheduler(Arc<SchedulerInner>);

struct SchedulerInner {
    tasks: Tasks,
    worker: Mutex<Worker>,
    dispatched: Mutex<Vec<scheduler::Task>>,
    cancelled: Mutex<Vec<scheduler::CancelTask>>,
    known: Mutex<HashSet<(String, u32)>>,
    reports: mpsc::UnboundedSender<wire::TaskReport>,
    fence: AtomicU64,
    chunks: broadcast::Sender<scheduler::Event>,
    retained: Mutex<Vec<scheduler::Event>>,
    /// Raised when everything is to be lost.
    losses: watch::Sender<u64>,
    away: AtomicBool,
}

impl FakeScheduler {
    fn new(tasks: Tasks, effects: EffectServiceClient<Transport>, worker: Worker) -> Self {
        let (reports, work) = mpsc::unbounded_channel();
        let token = tasks.token().clone();
        tasks.spawn("fake reports", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = deliver(effects, work) => {}
            }
        });
        Self(Arc::new(SchedulerInner {
            tasks,
            worker: Mutex::new(worker),
            dispatched: Mutex::default(),
            cancelled: Mutex::default(),
            known: Mutex::default(),
            reports,
            fence: AtomicU64::new(1),
            chunks: broadcast::channel(1024).0,
            retained: Mutex::default(),
            losses: watch::Sender::new(0),
            away: AtomicBool::new(false),
        }))
    }

    pub fn dispatched(&self) -> Vec<scheduler::Task> {
        self.0.dispatched.lock().unwrap().clone()
    }

    pub fn cancelled(&self) -> Vec<scheduler::CancelTask> {
        self.0.cancelled.lock().unwrap().clone()
    }

    pub fn work_with(&self, worker: Worker) {
        *self.0.worker.lock().unwrap() = worker;
    }

    /// As if it were killed and started again: streams break, and all tasks are forgotten.
    pub fn lose_everything(&self) {
        self.0.known.lock().unwrap().clear();
        self.0.losses.send_modify(|n| *n += 1);
    }

    pub fn set_away(&self, away: bool) {
        self.0.away.store(away, Ordering::SeqCst);
    }

    pub fn chunk(&self, run: &wire::Run, step: &str, text: &str) {
        let event = scheduler::Event {
            topic: format!("run/default/{}", run.run_id),
            kind: "chunk".to_owned(),
            step: step.to_owned(),
            data: serde_json::json!(text).to_string().into(),
            retain: true,
            ..Default::default()
        };
        self.0.retained.lock().unwrap().push(event.clone());
        let _ = self.0.chunks.send(event);
    }

    fn take(&self, task: scheduler::Task) {
        if !self.0.known.lock().unwrap().insert((task.task_id.clone(), task.attempt)) {
            return;
        }
        self.0.dispatched.lock().unwrap().push(task.clone());
        let inner = Arc::clone(&self.0);
        self.0.tasks.spawn("fake worker", async move {
            if let Some(at) = troupe_wire::time(task.not_before.as_ref()) {
                tokio::time::sleep((at - chrono::Utc::now()).to_std().unwrap_or_default()).await;
            }
            let worker = Arc::clone(&*inner.worker.lock().unwrap());
            let outcome = match worker(&task) {
                Deed::Complete(output) => Outcome::Completed(wire::TaskCompleted { output: output.to_string().into() }),
                Deed::Fail { code, retryable } => {
                    let failure = Failure { code: code.to_owned(), message: "told to".to_owned(), retryable, retry_after_ms: 0 };
                    Outcome::Failed(wire::TaskFailed { failure: Some(failure) })
                }
                Deed::Hold => return,
            };
            let fence = inner.fence.fetch_add(1, Ordering::SeqCst);
            let _ = inner.reports.send(report_of(&task, fence, outcome));
        });
    }
}

pub fn report_of(task: &scheduler::Task, fence: u64, outcome: Outcome) -> wire::TaskReport {
    wire::TaskReport {
        namespace: task.namespace.clone(),
        run_id: task.run_id.clone(),
        step: task.step.clone(),
        attempt: task.attempt,
        fence,
        agent: "echo".to_owned(),
        worker: "w1".to_owned(),
        choice: "the only one".to_owned(),
        outcome: Some(outcome),
    }
}

pub fn completed(output: serde_json::Value) -> Outcome {
    Outcome::Completed(wire::TaskCompleted { output: output.to_string().into() })
}

/// Delivers reports until each is answered for good.
async fn deliver(mut effects: EffectServiceClient<Transport>, mut work: mpsc::UnboundedReceiver<wire::TaskReport>) {
    let mut under_way: HashMap<u64, wire::TaskReport> = HashMap::new();
    let mut next_id = 0;
    while let Some(first) = work.recv().await {
        next_id += 1;
        under_way.insert(next_id, first);
        let (items, outbound) = mpsc::channel(64);
        for (id, report) in &under_way {
            let item = wire::ReportItem { id: *id, report: Some(report.clone()) };
            let _ = items.try_send(wire::ReportRequest { items: vec![item] });
        }
        let Ok(answers) = effects.report(ReceiverStream::new(outbound)).await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let mut answers = answers.into_inner();
        loop {
            tokio::select! {
                answer = answers.message() => {
                    let Ok(Some(answer)) = answer else { break };
                    for ack in answer.acks {
                        if ack.applied == i32::from(wire::Applied::Retry) {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                            let item = wire::ReportItem { id: ack.id, report: under_way.get(&ack.id).cloned() };
                            let _ = items.send(wire::ReportRequest { items: vec![item] }).await;
                        } else {
                            under_way.remove(&ack.id);
                        }
                    }
                }
                report = work.recv() => {
                    let Some(report) = report else { return };
                    next_id += 1;
                    under_way.insert(next_id, report.clone());
                    let item = wire::ReportItem { id: next_id, report: Some(report) };
                    if items.send(wire::ReportRequest { items: vec![item] }).await.is_err() {
                        break;
                    }
                }
            }
        }
    }
}

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Scheduler for FakeScheduler {
    type DispatchStream = BoxStream<scheduler::DispatchResponse>;
    type PublishStream = BoxStream<scheduler::PublishResponse>;
    type SubscribeStream = BoxStream<scheduler::SubscribeResponse>;

    async fn dispatch(&self, request: Request<Streaming<scheduler::DispatchRequest>>) -> Result<Response<Self::DispatchStream>, Status> {
        if self.0.away.load(Ordering::SeqCst) {
            return Err(Status::unavailable("away"));
        }
        let (answers, outbound) = mpsc::channel(16);
        let (this, mut requests, mut losses) = (self.clone(), request.into_inner(), self.0.losses.subscribe());
        self.0.tasks.spawn("fake dispatch", async move {
            loop {
                let request = tokio::select! {
                    _ = losses.changed() => return,
                    () = this.0.tasks.cancelled() => return,
                    request = requests.message() => request,
                };
                let Ok(Some(request)) = request else { return };
                this.0.cancelled.lock().unwrap().extend(request.cancels);
                for task in request.tasks {
                    this.take(task);
                }
                if answers.send(Ok(scheduler::DispatchResponse { id: request.id })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outbound))))
    }

    async fn list_queues(&self, _: Request<scheduler::ListQueuesRequest>) -> Result<Response<scheduler::ListQueuesResponse>, Status> {
        Ok(Response::new(scheduler::ListQueuesResponse::default()))
    }

    async fn explain_tasks(
        &self,
        request: Request<scheduler::ExplainTasksRequest>,
    ) -> Result<Response<scheduler::ExplainTasksResponse>, Status> {
        let tasks = request.into_inner().task_ids.into_iter().map(|task_id| scheduler::TaskState {
            task_id,
            state: "ready".to_owned(),
            detail: "no worker serves this queue".to_owned(),
            ..Default::default()
        });
        Ok(Response::new(scheduler::ExplainTasksResponse { tasks: tasks.collect() }))
    }

    async fn publish(&self, request: Request<Streaming<scheduler::PublishRequest>>) -> Result<Response<Self::PublishStream>, Status> {
        let requests = request.into_inner();
        Ok(Response::new(Box::pin(requests.map(|request| request.map(|_| scheduler::PublishResponse {})))))
    }

    async fn subscribe(&self, request: Request<scheduler::SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        let request = request.into_inner();
        let (events, outbound) = mpsc::channel(1024);
        let mut chunks = self.0.chunks.subscribe();
        let retained: Vec<scheduler::Event> = self.0.retained.lock().unwrap().clone();
        let after: usize = request.cursor.parse().unwrap_or(0);
        self.0.tasks.spawn("fake subscription", async move {
            let mut n = 0;
            for event in retained.into_iter().filter(|event| event.topic == request.topic) {
                n += 1;
                if n > after && events.send(Ok(scheduler::SubscribeResponse { cursor: n.to_string(), event: Some(event) })).await.is_err() {
                    return;
                }
            }
            loop {
                let event = tokio::select! {
                    () = events.closed() => return,
                    event = chunks.recv() => event,
                };
                let Ok(event) = event else { return };
                if event.topic == request.topic {
                    n += 1;
                    let _ = events.send(Ok(scheduler::SubscribeResponse { cursor: n.to_string(), event: Some(event) })).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outbound))))
    }
}

#[derive(Clone, Default)]
pub struct FakeApprovals {
    requested: Arc<Mutex<Vec<approval::Approval>>>,
    withdrawn: Arc<Mutex<Vec<String>>>,
}

impl FakeApprovals {
    pub fn requested(&self) -> Vec<approval::Approval> {
        self.requested.lock().unwrap().clone()
    }

    pub fn withdrawn(&self) -> Vec<String> {
        self.withdrawn.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl ApprovalService for FakeApprovals {
    async fn request_approvals(
        &self,
        request: Request<approval::RequestApprovalsRequest>,
    ) -> Result<Response<approval::RequestApprovalsResponse>, Status> {
        self.requested.lock().unwrap().extend(request.into_inner().approvals);
        Ok(Response::new(approval::RequestApprovalsResponse {}))
    }

    async fn withdraw_approvals(
        &self,
        request: Request<approval::WithdrawApprovalsRequest>,
    ) -> Result<Response<approval::WithdrawApprovalsResponse>, Status> {
        self.withdrawn.lock().unwrap().extend(request.into_inner().approval_ids);
        Ok(Response::new(approval::WithdrawApprovalsResponse {}))
    }

    async fn get_approval(&self, _: Request<approval::GetApprovalRequest>) -> Result<Response<approval::GetApprovalResponse>, Status> {
        Err(Status::not_found("not here"))
    }

    async fn list_approvals(
        &self,
        _: Request<approval::ListApprovalsRequest>,
    ) -> Result<Response<approval::ListApprovalsResponse>, Status> {
        Ok(Response::new(approval::ListApprovalsResponse::default()))
    }

    async fn decide(&self, _: Request<approval::DecideRequest>) -> Result<Response<approval::DecideResponse>, Status> {
        Err(Status::not_found("not here"))
    }
}

/// Runs a future under a deadline, so that a test fails instead of hanging.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it ends in time")
}
