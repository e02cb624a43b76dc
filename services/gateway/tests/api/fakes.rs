//! Services that remember what they were asked and answer what the test needs.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio_stream::{Stream, StreamExt, iter, pending};
use tonic::{Request, Response, Status, Streaming, service::Routes};
use troupe_domain::{Code, Error, Fault};
use troupe_proto::{
    approval::v1::{self as approval, approval_service_server::ApprovalServiceServer},
    executor::v1::{self as executor, run_service_server::RunServiceServer, workflow_service_server::WorkflowServiceServer},
    registry::v1::{self as registry, agent_registry_server::AgentRegistryServer},
    scheduler::v1::{self as scheduler, scheduler_server::SchedulerServer},
};
use troupe_wire::to_status;

type Answer<T> = Result<Response<T>, Status>;
type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What one watch of a run sends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    pub(crate) events: Vec<executor::WatchRunResponse>,
    /// What comes after them: the end, a failure, or silence.
    pub(crate) then: Then,
}

#[derive(Clone, Debug, Default)]
pub(crate) enum Then {
    #[default]
    End,
    Fail(Error),
    Silence,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) starts: Vec<executor::StartRunRequest>,
    pub(crate) tasks: Vec<executor::SubmitTaskRequest>,
    pub(crate) lists: Vec<executor::ListRunsRequest>,
    pub(crate) waits: Vec<executor::WaitRunRequest>,
    pub(crate) watches: Vec<executor::WatchRunRequest>,
    pub(crate) controls: Vec<executor::ControlRunRequest>,
    pub(crate) signals: Vec<executor::SignalRunRequest>,
    pub(crate) forks: Vec<executor::ForkRunRequest>,
    pub(crate) applied: Vec<executor::ApplyWorkflowRequest>,
    pub(crate) decisions: Vec<approval::DecideRequest>,
    pub(crate) states: Vec<registry::SetAgentStateRequest>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Fakes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    seen: Mutex<Seen>,
    /// The status of the run; `running` where none is set.
    status: Mutex<String>,
    watches: Mutex<Vec<Script>>,
    workflows: Mutex<HashMap<String, executor::Workflow>>,
}

/// A run whose id ends in one of these fails in its own way.
pub(crate) const MISSING: &str = "00000000-0000-0000-0000-000000000404";
pub(crate) const PANICS: &str = "00000000-0000-0000-0000-00000000dead";
pub(crate) const HANGS: &str = "00000000-0000-0000-0000-00000000beef";

impl Fakes {
    pub(crate) fn routes(&self) -> Routes {
        Routes::new(WorkflowServiceServer::new(self.clone()))
            .add_service(RunServiceServer::new(self.clone()))
            .add_service(SchedulerServer::new(self.clone()))
            .add_service(AgentRegistryServer::new(self.clone()))
            .add_service(ApprovalServiceServer::new(self.clone()))
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap()
    }

    pub(crate) fn set_status(&self, status: &str) {
        *self.0.status.lock().unwrap() = status.to_owned();
    }

    /// The scripts of the next watches, in order; without one a watch ends at once.
    pub(crate) fn script(&self, scripts: impl IntoIterator<Item = Script>) {
        self.0.watches.lock().unwrap().extend(scripts);
    }

    pub(crate) fn store(&self, workflow: executor::Workflow) {
        self.0.workflows.lock().unwrap().insert(workflow.name.clone(), workflow);
    }

    fn run(&self, namespace: String, run_id: &str) -> executor::Run {
        let status = self.0.status.lock().unwrap().clone();
        let at = Some(prost_types::Timestamp { seconds: 1_767_225_600, nanos: 0 });
        executor::Run {
            namespace,
            run_id: run_id.to_owned(),
            workflow: "triage".into(),
            version: "1".into(),
            ended_at: at.filter(|_| matches!(status.as_str(), "succeeded" | "failed" | "cancelled")),
            status: if status.is_empty() { "running".into() } else { status },
            seq: 7,
            created_at: at,
            state: "{\"a\":1}".into(),
            ..Default::default()
        }
    }

    async fn find(&self, namespace: String, run_id: &str) -> Result<executor::Run, Status> {
        match run_id {
            MISSING => Err(to_status(&Error::not_found(format!("run {run_id}")))),
            PANICS => panic!("this run panics"),
            HANGS => std::future::pending().await,
            _ => Ok(self.run(namespace, run_id)),
        }
    }
}

fn unused<T>() -> Answer<T> {
    Err(Status::unimplemented("not in these tests"))
}

#[tonic::async_trait]
impl executor::workflow_service_server::WorkflowService for Fakes {
    async fn apply_workflow(&self, request: Request<executor::ApplyWorkflowRequest>) -> Answer<executor::ApplyWorkflowResponse> {
        let request = request.into_inner();
        self.seen().applied.push(request.clone());
        if request.source.contains("broken") {
            let fault = Fault { line: 3, column: 5, ..Fault::at("steps.a.after", "there is no step b").help("name a step of this group") };
            return Err(to_status(&Error::invalid("the workflow has 1 fault").with_faults(vec![fault])));
        }
        let (namespace, name, version) = (request.namespace, "triage".to_owned(), "1".to_owned());
        let workflow = executor::Workflow { namespace, name, version, hash: "abc".into(), ..Default::default() };
        Ok(Response::new(executor::ApplyWorkflowResponse { workflow: Some(workflow), created: true }))
    }

    async fn get_workflow(&self, request: Request<executor::GetWorkflowRequest>) -> Answer<executor::GetWorkflowResponse> {
        let name = request.into_inner().name;
        let workflow = self.0.workflows.lock().unwrap().get(&name).cloned();
        let workflow = workflow.ok_or_else(|| to_status(&Error::not_found(format!("workflow {name}"))))?;
        Ok(Response::new(executor::GetWorkflowResponse { workflow: Some(workflow) }))
    }

    async fn list_workflows(&self, request: Request<executor::ListWorkflowsRequest>) -> Answer<executor::ListWorkflowsResponse> {
        let name = request.into_inner().name;
        let all = self.0.workflows.lock().unwrap();
        let workflows = all.values().filter(|workflow| name.is_empty() || workflow.name == name).cloned().collect();
        Ok(Response::new(executor::ListWorkflowsResponse { workflows, next_cursor: String::new() }))
    }
}

#[tonic::async_trait]
impl executor::run_service_server::RunService for Fakes {
    type WatchRunStream = Events<executor::WatchRunResponse>;

    async fn start_run(&self, request: Request<executor::StartRunRequest>) -> Answer<executor::StartRunResponse> {
        let request = request.into_inner();
        self.seen().starts.push(request.clone());
        if request.workflow == "full" {
            let mut error = Error::new(Code::ResourceExhausted, "too many runs");
            error.retry_after_ms = Some(2_500);
            return Err(to_status(&error));
        }
        let created = request.idempotency_key != "again";
        let run = self.run(request.namespace, crate::harness::RUN);
        Ok(Response::new(executor::StartRunResponse { run: Some(run), created }))
    }

    async fn submit_task(&self, request: Request<executor::SubmitTaskRequest>) -> Answer<executor::SubmitTaskResponse> {
        let request = request.into_inner();
        self.seen().tasks.push(request.clone());
        let run = self.run(request.namespace, crate::harness::RUN);
        Ok(Response::new(executor::SubmitTaskResponse { run: Some(run), created: true }))
    }

    async fn get_run(&self, request: Request<executor::GetRunRequest>) -> Answer<executor::GetRunResponse> {
        let request = request.into_inner();
        Ok(Response::new(executor::GetRunResponse { run: Some(self.find(request.namespace, &request.run_id).await?) }))
    }

    async fn list_runs(&self, request: Request<executor::ListRunsRequest>) -> Answer<executor::ListRunsResponse> {
        let request = request.into_inner();
        self.seen().lists.push(request.clone());
        let first = request.page.is_none_or(|page| page.cursor.is_empty());
        let mut run = self.run(request.namespace, crate::harness::RUN);
        if !first {
            run.workflow = "task.agent.writer".into();
        }
        let next_cursor = if first { "2".into() } else { String::new() };
        Ok(Response::new(executor::ListRunsResponse { runs: vec![run], next_cursor }))
    }

    async fn wait_run(&self, request: Request<executor::WaitRunRequest>) -> Answer<executor::WaitRunResponse> {
        let request = request.into_inner();
        self.seen().waits.push(request.clone());
        let run = self.find(request.namespace, &request.run_id).await?;
        Ok(Response::new(executor::WaitRunResponse { ended: run.ended_at.is_some(), run: Some(run) }))
    }

    async fn watch_run(&self, request: Request<executor::WatchRunRequest>) -> Answer<Self::WatchRunStream> {
        let request = request.into_inner();
        self.seen().watches.push(request.clone());
        self.find(request.namespace, &request.run_id).await?;
        let mut scripts = self.0.watches.lock().unwrap();
        let script = if scripts.is_empty() { Script::default() } else { scripts.remove(0) };
        let events = iter(script.events.into_iter().map(Ok));
        Ok(Response::new(match script.then {
            Then::End => Box::pin(events),
            Then::Fail(error) => Box::pin(events.chain(iter([Err(to_status(&error))]))),
            Then::Silence => Box::pin(events.chain(pending())),
        }))
    }

    async fn control_run(&self, request: Request<executor::ControlRunRequest>) -> Answer<executor::ControlRunResponse> {
        let request = request.into_inner();
        self.seen().controls.push(request.clone());
        let run = self.find(request.namespace, &request.run_id).await?;
        let outcome = executor::ControlOutcome::Already.into();
        Ok(Response::new(executor::ControlRunResponse { run: Some(run), outcome }))
    }

    async fn signal_run(&self, request: Request<executor::SignalRunRequest>) -> Answer<executor::SignalRunResponse> {
        let request = request.into_inner();
        self.seen().signals.push(request.clone());
        let run = self.find(request.namespace, &request.run_id).await?;
        Ok(Response::new(executor::SignalRunResponse { run: Some(run), applied: true }))
    }

    async fn fork_run(&self, request: Request<executor::ForkRunRequest>) -> Answer<executor::ForkRunResponse> {
        let request = request.into_inner();
        self.seen().forks.push(request.clone());
        Ok(Response::new(executor::ForkRunResponse { run: Some(self.find(request.namespace, &request.run_id).await?) }))
    }

    async fn list_checkpoints(&self, _: Request<executor::ListCheckpointsRequest>) -> Answer<executor::ListCheckpointsResponse> {
        let checkpoint = executor::Checkpoint { seq: 1, kind: "started".into(), changes: "[]".into(), ..Default::default() };
        Ok(Response::new(executor::ListCheckpointsResponse { checkpoints: vec![checkpoint], next_cursor: String::new() }))
    }

    async fn get_checkpoint(&self, request: Request<executor::GetCheckpointRequest>) -> Answer<executor::GetCheckpointResponse> {
        let request = request.into_inner();
        let checkpoint = executor::Checkpoint { seq: request.seq, kind: "started".into(), ..Default::default() };
        let run = self.find(request.namespace, &request.run_id).await?;
        Ok(Response::new(executor::GetCheckpointResponse { checkpoint: Some(checkpoint), run: Some(run) }))
    }

    async fn diff_checkpoints(&self, _: Request<executor::DiffCheckpointsRequest>) -> Answer<executor::DiffCheckpointsResponse> {
        Ok(Response::new(executor::DiffCheckpointsResponse { patch: "[{\"op\":\"remove\",\"path\":\"/a\"}]".into() }))
    }

    async fn explain_run(&self, _: Request<executor::ExplainRunRequest>) -> Answer<executor::ExplainRunResponse> {
        let wait = executor::Wait { step: "sign-off".into(), kind: "approval".into(), ..Default::default() };
        Ok(Response::new(executor::ExplainRunResponse { status: "waiting".into(), waits: vec![wait] }))
    }
}

#[tonic::async_trait]
impl scheduler::scheduler_server::Scheduler for Fakes {
    type DispatchStream = Events<scheduler::DispatchResponse>;
    type SubscribeStream = Events<scheduler::SubscribeResponse>;

    async fn dispatch(&self, _: Request<Streaming<scheduler::DispatchRequest>>) -> Answer<Self::DispatchStream> {
        unused()
    }

    async fn list_queues(&self, _: Request<scheduler::ListQueuesRequest>) -> Answer<scheduler::ListQueuesResponse> {
        let queue = scheduler::Queue { name: "agent/writer".into(), ready: 3, workers: 1, ..Default::default() };
        Ok(Response::new(scheduler::ListQueuesResponse { queues: vec![queue] }))
    }

    async fn explain_tasks(&self, _: Request<scheduler::ExplainTasksRequest>) -> Answer<scheduler::ExplainTasksResponse> {
        unused()
    }

    async fn subscribe(&self, _: Request<scheduler::SubscribeRequest>) -> Answer<Self::SubscribeStream> {
        unused()
    }
}

fn an_agent(name: String, state: i32) -> registry::Agent {
    registry::Agent { namespace: "default".into(), name, version: "1".into(), kind: "llm".into(), state, ..Default::default() }
}

#[tonic::async_trait]
impl registry::agent_registry_server::AgentRegistry for Fakes {
    type WatchAgentsStream = Events<registry::WatchAgentsResponse>;
    type ReportInstancesStream = Events<registry::ReportInstancesResponse>;

    async fn apply_agent(&self, _: Request<registry::ApplyAgentRequest>) -> Answer<registry::ApplyAgentResponse> {
        Ok(Response::new(registry::ApplyAgentResponse { agent: Some(an_agent("writer".into(), 1)), created: true }))
    }

    async fn get_agent(&self, request: Request<registry::GetAgentRequest>) -> Answer<registry::GetAgentResponse> {
        Ok(Response::new(registry::GetAgentResponse { agent: Some(an_agent(request.into_inner().name, 2)) }))
    }

    async fn list_agents(&self, _: Request<registry::ListAgentsRequest>) -> Answer<registry::ListAgentsResponse> {
        Ok(Response::new(registry::ListAgentsResponse { agents: vec![an_agent("writer".into(), 1)], next_cursor: String::new() }))
    }

    async fn delete_agent(&self, _: Request<registry::DeleteAgentRequest>) -> Answer<registry::DeleteAgentResponse> {
        Ok(Response::new(registry::DeleteAgentResponse {}))
    }

    async fn set_agent_state(&self, request: Request<registry::SetAgentStateRequest>) -> Answer<registry::SetAgentStateResponse> {
        let request = request.into_inner();
        self.seen().states.push(request.clone());
        Ok(Response::new(registry::SetAgentStateResponse { agent: Some(an_agent(request.name, request.state)) }))
    }

    async fn watch_agents(&self, _: Request<registry::WatchAgentsRequest>) -> Answer<Self::WatchAgentsStream> {
        unused()
    }

    async fn report_instances(&self, _: Request<Streaming<registry::ReportInstancesRequest>>) -> Answer<Self::ReportInstancesStream> {
        unused()
    }
}

fn an_approval(namespace: String, approval_id: String) -> approval::Approval {
    let (title, status, show) = ("Publish?".into(), "pending".into(), "\"report\"".into());
    approval::Approval { namespace, approval_id, title, status, show, digest: "d".into(), required: 1, ..Default::default() }
}

#[tonic::async_trait]
impl approval::approval_service_server::ApprovalService for Fakes {
    async fn request_approvals(&self, _: Request<approval::RequestApprovalsRequest>) -> Answer<approval::RequestApprovalsResponse> {
        Ok(Response::new(approval::RequestApprovalsResponse {}))
    }

    async fn withdraw_approvals(&self, _: Request<approval::WithdrawApprovalsRequest>) -> Answer<approval::WithdrawApprovalsResponse> {
        unused()
    }

    async fn get_approval(&self, request: Request<approval::GetApprovalRequest>) -> Answer<approval::GetApprovalResponse> {
        let request = request.into_inner();
        Ok(Response::new(approval::GetApprovalResponse { approval: Some(an_approval(request.namespace, request.approval_id)) }))
    }

    async fn list_approvals(&self, request: Request<approval::ListApprovalsRequest>) -> Answer<approval::ListApprovalsResponse> {
        let approvals = vec![an_approval(request.into_inner().namespace, crate::harness::RUN.into())];
        Ok(Response::new(approval::ListApprovalsResponse { approvals, next_cursor: String::new() }))
    }

    async fn decide(&self, request: Request<approval::DecideRequest>) -> Answer<approval::DecideResponse> {
        let request = request.into_inner();
        let decided = self.seen().decisions.iter().any(|seen| seen.approval_id == request.approval_id);
        self.seen().decisions.push(request.clone());
        if decided {
            return Err(to_status(&Error::conflict("anna approved it at 12:00")));
        }
        Ok(Response::new(approval::DecideResponse { approval: Some(an_approval(request.namespace, request.approval_id)) }))
    }
}
