//! The public services, typed: start runs, watch them, decide, look.

use crate::{MAX_MESSAGE_BYTES, Transport};
use bytes::Bytes;
use futures::{Stream, stream};
use serde::Serialize;
use std::{collections::HashMap, time::Duration};
use tonic::{Response, Status, Streaming};
use troupe_domain::Error;
use troupe_proto::{
    approval::v1::{self as approval, approval_service_client::ApprovalServiceClient},
    common::v1::{Page, Target},
    executor::v1::{self as executor, run_service_client::RunServiceClient, workflow_service_client::WorkflowServiceClient},
    registry::v1::{self as registry, agent_registry_client::AgentRegistryClient},
    scheduler::v1::{self as scheduler, scheduler_client::SchedulerClient},
};
use troupe_wire::Backoff;

pub use troupe_proto::executor::v1::ControlAction;

type Result<T, E = Error> = std::result::Result<T, E>;

/// How long a wait for a run asks the server at once.
const WAIT_SLICE: Duration = Duration::from_secs(30);

/// Streams of a watch that may be lost in a row, and the pauses between them: about half a minute in all.
const MAX_LOSSES: u32 = 10;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// A client of one namespace. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    namespace: String,
    workflows: WorkflowServiceClient<Transport>,
    runs: RunServiceClient<Transport>,
    approvals: ApprovalServiceClient<Transport>,
    agents: AgentRegistryClient<Transport>,
    scheduler: SchedulerClient<Transport>,
}

/// What may be said when a run starts.
#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    /// Empty: the newest.
    pub version: String,
    /// 0 (first) to 9; 5 where nothing is said.
    pub priority: Option<u32>,
    pub labels: HashMap<String, String>,
    /// The whole run's time.
    pub deadline: Option<Duration>,
    /// The same key starts one run, however often it is sent.
    pub idempotency_key: String,
    /// The answer comes when the run has ended, or after this time. Where it is lost meanwhile, only the key tells which run it was.
    pub wait: Option<Duration>,
}

/// A person's answer to an approval.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// `approve`, `reject` or `answer`.
    pub decision: String,
    pub by: String,
    pub comment: String,
    /// JSON: edited values, or the answer.
    pub payload: Bytes,
    /// The digest of what was seen; empty: not bound to it.
    pub digest: String,
}

macro_rules! limited {
    ($client:ident, $transport:expr) => {
        $client::new($transport.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
    };
}

impl Client {
    /// A client of the namespace `default`, over one transport that reaches all public services.
    pub fn new(transport: Transport) -> Self {
        Self {
            namespace: String::new(),
            workflows: limited!(WorkflowServiceClient, transport),
            runs: limited!(RunServiceClient, transport),
            approvals: limited!(ApprovalServiceClient, transport),
            agents: limited!(AgentRegistryClient, transport),
            scheduler: limited!(SchedulerClient, transport),
        }
    }

    /// A client that connects to `http://host:port` when it is first used.
    pub fn connect(url: &str) -> Result<Self> {
        let transport = Transport::connect(url).map_err(|e| Error::invalid_field("url", format!("'{url}' is no address: {e}")))?;
        Ok(Self::new(transport))
    }

    /// The same client for another namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    fn ns(&self) -> String {
        self.namespace.clone()
    }

    /// Validates and stores a workflow; its faults are in the error.
    pub async fn apply_workflow(&self, source: &str, dry_run: bool) -> Result<executor::Workflow> {
        let request = executor::ApplyWorkflowRequest { namespace: self.ns(), source: source.to_owned(), dry_run };
        required(body(self.workflows.clone().apply_workflow(request).await)?.workflow)
    }

    /// Validates and stores an agent; its faults are in the error.
    pub async fn apply_agent(&self, source: &str, dry_run: bool) -> Result<registry::Agent> {
        let request = registry::ApplyAgentRequest { namespace: self.ns(), source: source.to_owned(), dry_run };
        required(body(self.agents.clone().apply_agent(request).await)?.agent)
    }

    pub async fn list_agents(&self, page: Page) -> Result<registry::ListAgentsResponse> {
        let request = registry::ListAgentsRequest { namespace: self.ns(), page: Some(page), capability: String::new() };
        body(self.agents.clone().list_agents(request).await)
    }

    /// Starts a run; the flag is false when its idempotency key had started it before.
    pub async fn start_run(&self, workflow: &str, input: &impl Serialize, options: StartOptions) -> Result<(executor::Run, bool)> {
        let request = executor::StartRunRequest {
            namespace: self.ns(),
            workflow: workflow.to_owned(),
            version: options.version,
            input: json(input)?,
            priority: options.priority,
            labels: options.labels,
            deadline: options.deadline.map(troupe_wire::duration),
            idempotency_key: options.idempotency_key,
            wait: options.wait.map(troupe_wire::duration),
        };
        let response = body(self.runs.clone().start_run(request).await)?;
        Ok((required(response.run)?, response.created))
    }

    /// Starts a run and waits for its end, at most `limit`, in one call where it ends within half a minute; the flag says whether it ended.
    pub async fn run(
        &self,
        workflow: &str,
        input: &impl Serialize,
        options: StartOptions,
        limit: Duration,
    ) -> Result<(executor::Run, bool)> {
        let started = tokio::time::Instant::now();
        let options = StartOptions { wait: Some(limit.min(WAIT_SLICE)), ..options };
        let (run, _) = self.start_run(workflow, input, options).await?;
        match run.ended_at {
            Some(_) => Ok((run, true)),
            None => self.wait_run(&run.run_id, limit.saturating_sub(started.elapsed())).await,
        }
    }

    /// One task for an agent, a capability or a tool: a run of one step.
    pub async fn submit_task(&self, target: Target, input: &impl Serialize, idempotency_key: &str) -> Result<(executor::Run, bool)> {
        let request = executor::SubmitTaskRequest {
            namespace: self.ns(),
            target: Some(target),
            input: json(input)?,
            idempotency_key: idempotency_key.to_owned(),
            ..executor::SubmitTaskRequest::default()
        };
        let response = body(self.runs.clone().submit_task(request).await)?;
        Ok((required(response.run)?, response.created))
    }

    pub async fn get_run(&self, run_id: &str) -> Result<executor::Run> {
        let request = executor::GetRunRequest { namespace: self.ns(), run_id: run_id.to_owned() };
        required(body(self.runs.clone().get_run(request).await)?.run)
    }

    /// The filters' namespace is this client's.
    pub async fn list_runs(&self, mut filters: executor::ListRunsRequest) -> Result<executor::ListRunsResponse> {
        filters.namespace = self.ns();
        body(self.runs.clone().list_runs(filters).await)
    }

    /// Waits for the run's end, at most `limit`; the flag says whether it ended.
    pub async fn wait_run(&self, run_id: &str, limit: Duration) -> Result<(executor::Run, bool)> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let request = executor::WaitRunRequest {
                namespace: self.ns(),
                run_id: run_id.to_owned(),
                timeout: Some(troupe_wire::duration(left.min(WAIT_SLICE))),
            };
            let response = body(self.runs.clone().wait_run(request).await)?;
            if response.ended || left <= WAIT_SLICE {
                return Ok((required(response.run)?, response.ended));
            }
        }
    }

    /// The run's events after `cursor` (empty: from the start) until its end. A stream that is lost is opened again where it was.
    pub fn watch(&self, run_id: &str, cursor: &str) -> impl Stream<Item = Result<executor::WatchRunResponse>> + Send + use<> {
        let request =
            executor::WatchRunRequest { namespace: self.ns(), run_id: run_id.to_owned(), cursor: cursor.to_owned(), lifecycle_only: false };
        let watch = Watch { runs: self.runs.clone(), request, stream: None, backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT) };
        stream::try_unfold(watch, Watch::next)
    }

    pub async fn control_run(&self, run_id: &str, action: ControlAction, reason: &str) -> Result<executor::ControlRunResponse> {
        let request = executor::ControlRunRequest {
            namespace: self.ns(),
            run_id: run_id.to_owned(),
            action: action.into(),
            reason: reason.to_owned(),
        };
        body(self.runs.clone().control_run(request).await)
    }

    /// False: this key had been delivered before.
    pub async fn signal_run(&self, run_id: &str, name: &str, payload: &impl Serialize, idempotency_key: &str) -> Result<bool> {
        let request = executor::SignalRunRequest {
            namespace: self.ns(),
            run_id: run_id.to_owned(),
            name: name.to_owned(),
            payload: json(payload)?,
            idempotency_key: idempotency_key.to_owned(),
        };
        Ok(body(self.runs.clone().signal_run(request).await)?.applied)
    }

    /// A new run from the checkpoint `seq` of another.
    pub async fn fork_run(&self, run_id: &str, seq: u64, idempotency_key: &str) -> Result<executor::Run> {
        let request = executor::ForkRunRequest {
            namespace: self.ns(),
            run_id: run_id.to_owned(),
            checkpoint: seq,
            state: Bytes::new(),
            idempotency_key: idempotency_key.to_owned(),
        };
        required(body(self.runs.clone().fork_run(request).await)?.run)
    }

    pub async fn list_checkpoints(&self, run_id: &str, page: Page) -> Result<executor::ListCheckpointsResponse> {
        let request = executor::ListCheckpointsRequest { namespace: self.ns(), run_id: run_id.to_owned(), page: Some(page) };
        body(self.runs.clone().list_checkpoints(request).await)
    }

    /// What each pending step waits on.
    pub async fn explain_run(&self, run_id: &str) -> Result<executor::ExplainRunResponse> {
        let request = executor::ExplainRunRequest { namespace: self.ns(), run_id: run_id.to_owned() };
        body(self.runs.clone().explain_run(request).await)
    }

    /// Approvals in these states (none: pending), of one run or of all (empty).
    pub async fn list_approvals(&self, run_id: &str, statuses: Vec<String>, page: Page) -> Result<approval::ListApprovalsResponse> {
        let request = approval::ListApprovalsRequest { namespace: self.ns(), page: Some(page), statuses, run_id: run_id.to_owned() };
        body(self.approvals.clone().list_approvals(request).await)
    }

    /// Decides an approval. `CONFLICT` when somebody has.
    pub async fn decide(&self, approval_id: &str, answer: Answer) -> Result<approval::Approval> {
        let request = approval::DecideRequest {
            namespace: self.ns(),
            approval_id: approval_id.to_owned(),
            decision: answer.decision,
            by: answer.by,
            comment: answer.comment,
            payload: answer.payload,
            digest: answer.digest,
        };
        required(body(self.approvals.clone().decide(request).await)?.approval)
    }

    pub async fn list_queues(&self) -> Result<Vec<scheduler::Queue>> {
        let request = scheduler::ListQueuesRequest { namespace: self.ns() };
        Ok(body(self.scheduler.clone().list_queues(request).await)?.queues)
    }
}

/// A watched run.
struct Watch {
    runs: RunServiceClient<Transport>,
    request: executor::WatchRunRequest,
    stream: Option<Streaming<executor::WatchRunResponse>>,
    /// Counts the streams lost since the last event.
    backoff: Backoff,
}

impl Watch {
    async fn next(mut self) -> Result<Option<(executor::WatchRunResponse, Self)>> {
        loop {
            match self.step().await {
                Ok(Some(event)) => {
                    self.backoff.reset();
                    self.request.cursor.clone_from(&event.cursor);
                    return Ok(Some((event, self)));
                }
                Ok(None) => return Ok(None),
                Err(status) => {
                    let error = troupe_wire::from_status(&status);
                    if error.code != troupe_domain::Code::Unavailable || self.backoff.failures() >= MAX_LOSSES {
                        return Err(error);
                    }
                    self.stream = None;
                    self.backoff.wait().await;
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Option<executor::WatchRunResponse>, Status> {
        if self.stream.is_none() {
            self.stream = Some(self.runs.watch_run(self.request.clone()).await?.into_inner());
        }
        match &mut self.stream {
            Some(stream) => stream.message().await,
            None => Ok(None),
        }
    }
}

fn body<T>(response: std::result::Result<Response<T>, Status>) -> Result<T> {
    response.map(Response::into_inner).map_err(|status| troupe_wire::from_status(&status))
}

/// What the contract says is always there.
fn required<T>(field: Option<T>) -> Result<T> {
    field.ok_or_else(|| Error::new(troupe_domain::Code::Internal, "the server's answer is not complete"))
}

fn json(value: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|e| Error::invalid(format!("not JSON: {e}")))
}
