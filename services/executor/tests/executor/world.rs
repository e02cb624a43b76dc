//! An executor among real and pretended neighbours: the journal is real, the scheduler and the approval service are told what to do.

mod approvals;
mod cluster;
mod scheduler;

pub(crate) use approvals::FakeApprovals;
pub(crate) use cluster::{Cluster, LEASE};
pub(crate) use scheduler::{Deed, FakeScheduler, Worker, completed, echo, holding, report_of};
use serde_json::Value;
use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Response, Status, service::Routes};
use troupe_domain::Error;
use troupe_executor::{Config, Dependencies, Service};
use troupe_proto::{
    approval::v1::approval_service_server::ApprovalServiceServer,
    executor::v1::{
        self as wire, effect_service_client::EffectServiceClient, run_service_client::RunServiceClient,
        workflow_service_client::WorkflowServiceClient,
    },
    scheduler::v1::scheduler_server::SchedulerServer,
};
use troupe_service_kit::Tasks;
use troupe_wire::{Connector, LateTransport, Transport};

pub(crate) const FIVE: &str = r#"
workflow: five
input:
  type: object
  required: [text]
  properties: { text: { type: string }, times: { type: integer, default: 2 } }
state:
  seen: { merge: append, default: [] }
steps:
  a: { agent: echo, with: { text: "${ input.text }" }, save: { seen: "${ output.text }" } }
  b: { after: a, agent: echo, with: { n: 1 }, save: { seen: "${ output.n }" } }
  c: { after: a, agent: { capability: echoing }, with: { n: 2 } }
  d: { after: [b, c], tool: json.echo, with: { n: 3 }, save: { seen: "${ output.n }" } }
  e: { after: d, set: { done: true } }
output: { seen: "${ state.seen }", times: "${ input.times }" }
"#;

pub(crate) const ONE: &str = "workflow: one\nsteps:\n  only: { agent: echo, with: { n: 1 }, retry: { attempts: 1 } }\n";
pub(crate) fn error(status: &tonic::Status) -> Error {
    troupe_wire::from_status(status)
}

pub(crate) fn json_of(bytes: &bytes::Bytes) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// A journal that outlives executors.
pub(crate) struct Journal {
    pub(crate) tasks: Tasks,
    pub(crate) transport: Transport,
    _service: troupe_checkpoint::Service,
}

impl Journal {
    pub(crate) async fn in_memory() -> Self {
        let tasks = Tasks::new();
        let service = troupe_checkpoint::Service::start(Default::default(), troupe_checkpoint::Backend::Memory, &tasks).await.unwrap();
        Self { tasks, transport: Transport::embedded(service.routes()), _service: service }
    }

    pub(crate) async fn on_disk(path: &std::path::Path) -> Self {
        let tasks = Tasks::new();
        let backend = troupe_checkpoint::Backend::Sqlite(path.to_owned());
        let service = troupe_checkpoint::Service::start(Default::default(), backend, &tasks).await.unwrap();
        Self { tasks, transport: Transport::embedded(service.routes()), _service: service }
    }
}

/// A link to the journal that can be broken.
#[derive(Clone, Default)]
pub(crate) struct Link {
    /// No call gets through.
    pub(crate) down: Arc<AtomicBool>,
    /// The next answer to an append is lost on its way back.
    pub(crate) lose_answer: Arc<AtomicBool>,
    /// Nothing is heard of who owns what.
    pub(crate) deaf: Arc<AtomicBool>,
    /// Calls of these methods wait.
    pub(crate) held: Arc<Mutex<Vec<&'static str>>>,
}

impl Link {
    fn holds(&self, path: &str) -> bool {
        let deaf = self.deaf.load(Ordering::SeqCst) && path.ends_with("Partitions");
        deaf || self.held.lock().unwrap().iter().any(|method| path.ends_with(&format!("/{method}")))
    }

    /// A journal behind this link.
    pub(crate) fn before(&self, journal: &Journal) -> Journal {
        let (link, inner) = (self.clone(), journal.transport.clone());
        let transport = Transport::embedded(tower::service_fn(move |request: tonic::codegen::http::Request<tonic::body::Body>| {
            let (link, inner) = (link.clone(), inner.clone());
            async move {
                if link.down.load(Ordering::SeqCst) {
                    return Ok(Status::unavailable("the link is down").into_http());
                }
                while link.holds(request.uri().path()) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
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
pub(crate) struct World {
    pub(crate) tasks: Tasks,
    pub(crate) service: Service,
    pub(crate) scheduler: FakeScheduler,
    pub(crate) approvals: FakeApprovals,
    pub(crate) runs: RunServiceClient<Transport>,
    pub(crate) workflows: WorkflowServiceClient<Transport>,
    pub(crate) effects: EffectServiceClient<Transport>,
}

pub(crate) fn small() -> Config {
    Config { partitions: 4, ..Config::default() }
}

impl World {
    /// One that has the journal alone.
    pub(crate) async fn start(journal: &Journal, config: Config, worker: Worker) -> Self {
        let tasks = Tasks::new();
        let late = LateTransport::default();
        let scheduler = FakeScheduler::new(tasks.clone(), EffectServiceClient::new(late.transport()), worker);
        let approvals = FakeApprovals::default();
        let world = Self::join(journal, config, tasks, scheduler, approvals, None).await;
        late.bind(Transport::embedded(world.service.routes()));
        world
    }

    /// One among others, where there is a way to them.
    pub(crate) async fn join(
        journal: &Journal,
        config: Config,
        tasks: Tasks,
        scheduler: FakeScheduler,
        approvals: FakeApprovals,
        peers: Option<Connector>,
    ) -> Self {
        Self::try_join(journal, config, tasks, scheduler, approvals, peers).await.unwrap()
    }

    /// The same, where it may be refused.
    pub(crate) async fn try_join(
        journal: &Journal,
        config: Config,
        tasks: Tasks,
        scheduler: FakeScheduler,
        approvals: FakeApprovals,
        peers: Option<Connector>,
    ) -> anyhow::Result<Self> {
        let dependencies = Dependencies {
            checkpoint: journal.transport.clone(),
            scheduler: Transport::embedded(Routes::new(SchedulerServer::new(scheduler.clone()))),
            approval: Transport::embedded(Routes::new(ApprovalServiceServer::new(approvals.clone()))),
            alone: peers.is_none(),
            peers: peers.unwrap_or_else(Connector::sockets),
        };
        let service = Service::start(config, dependencies, &tasks).await?;
        let transport = Transport::embedded(service.routes());
        Ok(Self {
            runs: RunServiceClient::new(transport.clone()).max_decoding_message_size(64 << 20).max_encoding_message_size(64 << 20),
            workflows: WorkflowServiceClient::new(transport.clone()),
            effects: EffectServiceClient::new(transport),
            tasks,
            service,
            scheduler,
            approvals,
        })
    }

    /// Ends as a killed process does: nothing is finished, nothing handed over.
    pub(crate) async fn crash(self) {
        assert!(self.tasks.stop(Duration::from_secs(10)).await, "tasks did not end");
    }

    pub(crate) async fn apply(&mut self, source: &str) -> wire::Workflow {
        let request = wire::ApplyWorkflowRequest { source: source.to_owned(), ..Default::default() };
        let answer = self.workflows.apply_workflow(request).await;
        answer.unwrap_or_else(|status| panic!("{:?}", troupe_wire::from_status(&status))).into_inner().workflow.unwrap()
    }

    pub(crate) async fn begin(&mut self, workflow: &str, input: serde_json::Value) -> wire::Run {
        let request = wire::StartRunRequest { workflow: workflow.to_owned(), input: input.to_string().into(), ..Default::default() };
        self.runs.start_run(request).await.unwrap().into_inner().run.unwrap()
    }

    pub(crate) async fn ended(&mut self, run_id: &str) -> wire::Run {
        let timeout = Some(troupe_wire::duration(Duration::from_secs(30)));
        let request = wire::WaitRunRequest { run_id: run_id.to_owned(), timeout, ..Default::default() };
        let answer = self.runs.wait_run(request).await.unwrap().into_inner();
        let run = answer.run.unwrap();
        assert!(answer.ended, "the run did not end: {run:?}");
        run
    }

    pub(crate) async fn run(&mut self, run_id: &str) -> wire::Run {
        self.runs.get_run(wire::GetRunRequest { run_id: run_id.to_owned(), ..Default::default() }).await.unwrap().into_inner().run.unwrap()
    }

    pub(crate) async fn journal(&mut self, run_id: &str) -> Vec<wire::Checkpoint> {
        let page = Some(troupe_proto::common::v1::Page { limit: 500, cursor: String::new() });
        let request = wire::ListCheckpointsRequest { run_id: run_id.to_owned(), page, ..Default::default() };
        self.runs.list_checkpoints(request).await.unwrap().into_inner().checkpoints
    }

    /// Events of a run until its stream ends.
    pub(crate) async fn watch(&mut self, run_id: &str, cursor: &str) -> Vec<wire::WatchRunResponse> {
        let request = wire::WatchRunRequest { run_id: run_id.to_owned(), cursor: cursor.to_owned(), ..Default::default() };
        let stream = self.runs.watch_run(request).await.unwrap().into_inner();
        let all = stream.map(|event| event.unwrap()).collect::<Vec<_>>();
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("the stream ends with the run")
    }

    pub(crate) async fn control(
        &mut self,
        run_id: &str,
        action: wire::ControlAction,
    ) -> Result<wire::ControlRunResponse, troupe_domain::Error> {
        let request = wire::ControlRunRequest { run_id: run_id.to_owned(), action: action.into(), ..Default::default() };
        self.runs.control_run(request).await.map(Response::into_inner).map_err(|status| troupe_wire::from_status(&status))
    }

    /// Reports one item and waits for its answer.
    pub(crate) async fn report(&mut self, report: wire::TaskReport) -> wire::ReportAck {
        let (items, outbound) = mpsc::channel(1);
        items.send(wire::ReportRequest { items: vec![wire::ReportItem { id: 1, report: Some(report) }] }).await.unwrap();
        let mut answers = self.effects.report(ReceiverStream::new(outbound)).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap().acks.remove(0)
    }
}

/// Waits until a condition holds; fails after 30 seconds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), waiting).await.is_ok(), "{what}");
}

/// Runs a future under a deadline, so that a test fails instead of hanging.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it ends in time")
}
