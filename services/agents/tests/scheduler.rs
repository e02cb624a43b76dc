//! The service behind a real scheduler, with an executor that notes what it is told.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "service/registry.rs"]
mod registry;

use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, Streaming};
use troupe_agents::{Config, Dependencies, Service};
use troupe_client::Transport;
use troupe_proto::{
    common::v1::{Target, target::Kind as TargetKind},
    executor::v1::{
        Applied, DecideRequest, DecideResponse, ReportAck, ReportRequest, ReportResponse,
        effect_service_server::{EffectService, EffectServiceServer},
        task_report::Outcome,
    },
    scheduler::v1::{DispatchRequest, Task, scheduler_client::SchedulerClient},
};
use troupe_service_kit::Tasks;

const LIMIT: Duration = Duration::from_secs(30);
const RUN: &str = "0190a000-0000-7000-8000-000000000001";

/// What became of each task: its records by index, and its result.
#[derive(Clone, Debug, Default)]
struct Fate {
    records: BTreeMap<u32, String>,
    result: Option<Result<Value, String>>,
}

type Fates = BTreeMap<String, Fate>;

#[derive(Clone)]
struct Executor {
    fates: Arc<Mutex<Fates>>,
    news: watch::Sender<usize>,
}

impl Executor {
    fn note(&self, step: &str, outcome: Outcome) -> Applied {
        let mut fates = self.fates.lock().unwrap();
        let fate = fates.entry(step.to_owned()).or_default();
        if fate.result.is_some() {
            return Applied::Duplicate;
        }
        match outcome {
            Outcome::Recorded(r) => {
                let known = fate.records.insert(r.index, r.name.clone());
                assert!(known.is_none_or(|known| known == r.name), "{step}: another record at {}", r.index);
            }
            Outcome::Completed(c) => fate.result = Some(Ok(serde_json::from_slice(&c.output).unwrap())),
            Outcome::Failed(f) => fate.result = Some(Err(f.failure.unwrap().code)),
        }
        Applied::Yes
    }
}

#[tonic::async_trait]
impl EffectService for Executor {
    type ReportStream = Pin<Box<dyn Stream<Item = Result<ReportResponse, Status>> + Send>>;

    async fn report(&self, request: Request<Streaming<ReportRequest>>) -> Result<Response<Self::ReportStream>, Status> {
        let this = self.clone();
        let answers = request.into_inner().map(move |request| {
            let mut acks = Vec::new();
            for item in request?.items {
                let report = item.report.unwrap();
                let applied = this.note(&report.step, report.outcome.unwrap());
                acks.push(ReportAck { id: item.id, applied: applied.into(), message: String::new() });
            }
            this.news.send_modify(|news| *news += 1);
            Ok(ReportResponse { acks })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn decide(&self, _: Request<DecideRequest>) -> Result<Response<DecideResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

struct World {
    executor: Executor,
    registry: Transport,
    scheduler: Transport,
    url: String,
    dispatch: mpsc::Sender<DispatchRequest>,
    answers: Streaming<troupe_proto::scheduler::v1::DispatchResponse>,
    _tasks: Tasks,
}

impl World {
    async fn start(agents: &[Value]) -> Self {
        let tasks = Tasks::new();
        let executor = Executor { fates: Arc::default(), news: watch::Sender::new(0) };
        let (registry, _) = registry::registry(agents);
        let dependencies = troupe_scheduler::Dependencies {
            executor: Transport::embedded(EffectServiceServer::new(executor.clone())),
            registry: registry.clone(),
        };
        let service = troupe_scheduler::Service::start(troupe_scheduler::Config::default(), dependencies, &tasks).await.unwrap();
        // Over a socket: a worker that is killed must look like one.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let scheduler = Transport::connect(&url).unwrap();
        let server = tonic::transport::Server::builder().add_routes(service.routes());
        tasks.spawn("server", server.serve_with_incoming(TcpListenerStream::new(listener)));
        let (dispatch, requests) = mpsc::channel(8);
        let answers = SchedulerClient::new(scheduler.clone()).dispatch(ReceiverStream::new(requests)).await.unwrap().into_inner();
        Self { executor, registry, scheduler, url, dispatch, answers, _tasks: tasks }
    }

    /// A built-in worker; ends without a word when its tasks are dropped.
    fn worker(&self) -> (Service, Tasks) {
        let tasks = Tasks::new();
        let dependencies = Dependencies { scheduler: self.scheduler.clone(), registry: self.registry.clone() };
        (Service::start_with(Config::default(), dependencies, Arc::new(|_: &str| None), &tasks).unwrap(), tasks)
    }

    async fn dispatch(&mut self, tasks: Vec<Task>) {
        self.dispatch.send(DispatchRequest { id: 1, tasks, cancels: Vec::new() }).await.unwrap();
        tokio::time::timeout(LIMIT, self.answers.next()).await.unwrap().unwrap().unwrap();
    }

    async fn wait(&self, what: &str, until: impl Fn(&Fates) -> bool) -> Fates {
        let mut news = self.executor.news.subscribe();
        let fates = Arc::clone(&self.executor.fates);
        let wait = news.wait_for(|_| until(&fates.lock().unwrap()));
        if tokio::time::timeout(LIMIT, wait).await.is_err() {
            panic!("{what} did not happen: {:?}", self.executor.fates.lock().unwrap());
        }
        self.executor.fates.lock().unwrap().clone()
    }
}

fn task(step: String, target: TargetKind, input: &Value) -> Task {
    Task {
        namespace: "default".to_owned(),
        task_id: format!("{RUN}/{step}"),
        run_id: RUN.to_owned(),
        step,
        target: Some(Target { kind: Some(target) }),
        input: input.to_string().into(),
        attempt: 1,
        priority: 5,
        ..Task::default()
    }
}

fn agents() -> Vec<Value> {
    let mut script: Vec<Value> = (0..9).map(|n| json!({ "tool": "calculator", "arguments": { "expression": format!("{n}+1") } })).collect();
    script.push(json!({ "text": "{{ results | length }} results" }));
    vec![
        json!({ "agent": "doubler", "kind": "code", "capabilities": ["double"], "code": "export default (input) => ({ twice: input.n * 2 })" }),
        json!({ "agent": "talker", "kind": "llm", "tools": ["calculator"], "model": { "provider": "scripted", "script": script } }),
    ]
}

fn ended(fates: &Fates) -> usize {
    fates.values().filter(|fate| fate.result.is_some()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_capabilities_and_tools_are_served() {
    let mut world = World::start(&agents()).await;
    let (service, _tasks) = world.worker();
    let mut tasks = Vec::new();
    for n in 0..50 {
        tasks.push(task(format!("agent[{n}]"), TargetKind::Agent("doubler".to_owned()), &json!({ "n": n })));
        tasks.push(task(format!("capability[{n}]"), TargetKind::Capability("double".to_owned()), &json!({ "n": n })));
        tasks.push(task(format!("tool[{n}]"), TargetKind::Tool("calculator".to_owned()), &json!({ "expression": format!("{n}*2") })));
    }
    tasks.push(task("bad".to_owned(), TargetKind::Tool("calculator".to_owned()), &json!({ "expression": "1/0" })));
    world.dispatch(tasks).await;
    let fates = world.wait("the end of all tasks", |fates| ended(fates) == 151).await;
    for n in 0..50 {
        assert_eq!(fates[&format!("agent[{n}]")].result, Some(Ok(json!({ "twice": n * 2 }))));
        assert_eq!(fates[&format!("capability[{n}]")].result, Some(Ok(json!({ "twice": n * 2 }))));
        assert_eq!(fates[&format!("tool[{n}]")].result, Some(Ok(json!({ "result": n * 2 }))));
    }
    assert_eq!(fates["bad"].result, Some(Err("TOOL_FAILED".to_owned())));
    assert!(service.health().await.iter().all(|dependency| dependency.ok));
    tokio::time::timeout(LIMIT, service.drain()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_worker_recorded_is_not_done_again() {
    let mut world = World::start(&agents()).await;
    let tasks = (0..20).map(|n| task(format!("talk[{n}]"), TargetKind::Agent("talker".to_owned()), &json!({}))).collect();
    // The first worker has a runtime of its own, which ends in the middle of everything, as a killed process does.
    let (url, registry) = (world.url.clone(), world.registry.clone());
    let doomed = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = {
        let _inside = doomed.enter();
        let tasks = Tasks::new();
        let dependencies = Dependencies { scheduler: Transport::connect(&url).unwrap(), registry };
        (Service::start_with(Config::default(), dependencies, Arc::new(|_: &str| None), &tasks).unwrap(), tasks)
    };
    world.dispatch(tasks).await;
    let before = world.wait("some records", |fates| fates.values().map(|fate| fate.records.len()).sum::<usize>() > 40).await;
    doomed.shutdown_background();
    drop(first);
    assert!(before.len() > 1 && ended(&before) < 20, "the worker is killed in the middle");
    let (_service, _tasks) = world.worker();
    let fates = world.wait("the end of all tasks", |fates| ended(fates) == 20).await;
    for (step, fate) in fates {
        assert_eq!(fate.result, Some(Ok(json!({ "text": "9 results" }))), "{step}");
        assert_eq!(fate.records.len(), 19, "{step}: ten calls of the model and nine of the tool, each recorded once");
    }
}
