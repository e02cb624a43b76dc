//! A scheduler with one worker that does what it is told.

use std::{
    collections::{HashMap, HashSet},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use troupe_proto::{
    common::v1::Failure,
    executor::v1::{self as wire, effect_service_client::EffectServiceClient, task_report::Outcome},
    scheduler::v1::{self as scheduler, scheduler_server::Scheduler},
};
use troupe_service_kit::Tasks;
use troupe_wire::Transport;

/// What a pretended worker does with a task.
pub(crate) enum Deed {
    Complete(serde_json::Value),
    Fail {
        code: &'static str,
        retryable: bool,
    },
    /// Nothing is heard of it.
    Hold,
}

pub(crate) type Worker = Arc<dyn Fn(&scheduler::Task) -> Deed + Send + Sync>;

/// A worker that answers every task with its input.
pub(crate) fn echo() -> Worker {
    Arc::new(|task| Deed::Complete(serde_json::from_slice(&task.input).unwrap()))
}

pub(crate) fn holding() -> Worker {
    Arc::new(|_| Deed::Hold)
}

#[derive(Clone)]
pub(crate) struct FakeScheduler(Arc<SchedulerInner>);

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
    pub(crate) fn new(tasks: Tasks, effects: EffectServiceClient<Transport>, worker: Worker) -> Self {
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

    pub(crate) fn dispatched(&self) -> Vec<scheduler::Task> {
        self.0.dispatched.lock().unwrap().clone()
    }

    pub(crate) fn cancelled(&self) -> Vec<scheduler::CancelTask> {
        self.0.cancelled.lock().unwrap().clone()
    }

    pub(crate) fn work_with(&self, worker: Worker) {
        *self.0.worker.lock().unwrap() = worker;
    }

    /// As if it were killed and started again: streams break, and all tasks are forgotten.
    pub(crate) fn lose_everything(&self) {
        self.0.known.lock().unwrap().clear();
        self.0.losses.send_modify(|n| *n += 1);
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.0.away.store(away, Ordering::SeqCst);
    }

    pub(crate) fn chunk(&self, run: &wire::Run, step: &str, text: &str) {
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

pub(crate) fn report_of(task: &scheduler::Task, fence: u64, outcome: Outcome) -> wire::TaskReport {
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

pub(crate) fn completed(output: serde_json::Value) -> Outcome {
    Outcome::Completed(wire::TaskCompleted { output: output.to_string().into() })
}

/// Delivers reports until each is answered for good.
async fn deliver(mut effects: EffectServiceClient<Transport>, mut work: mpsc::UnboundedReceiver<wire::TaskReport>) {
    let mut under_way: HashMap<u64, wire::TaskReport> = HashMap::new();
    let mut next_id = 0;
    loop {
        if under_way.is_empty() {
            let Some(first) = work.recv().await else { return };
            next_id += 1;
            under_way.insert(next_id, first);
        }
        let (items, outbound) = mpsc::channel(64);
        let all = under_way.iter().map(|(id, report)| wire::ReportItem { id: *id, report: Some(report.clone()) });
        let _ = items.try_send(wire::ReportRequest { items: all.collect() });
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
