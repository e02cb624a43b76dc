//! Calls that are repeated until they are answered.

use crate::world::World;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Response, Status};
use troupe_domain::{Code, Error};
use troupe_proto::{
    approval::v1::{self as approval, approval_service_client::ApprovalServiceClient},
    executor::v1::{self as wire, run_service_client::RunServiceClient, workflow_service_client::WorkflowServiceClient},
};
use troupe_wire::{Transport, from_status};

/// A call that has no answer by then is made again.
const PATIENCE: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(150);

/// The client of a seed.
#[derive(Clone)]
pub(crate) struct Caller {
    runs: RunServiceClient<Transport>,
    workflows: WorkflowServiceClient<Transport>,
    approvals: ApprovalServiceClient<Transport>,
    /// When it gives up.
    until: Instant,
}

impl Caller {
    pub(crate) fn new(world: &World, until: Instant) -> Self {
        Self {
            runs: RunServiceClient::new(world.to_executors()),
            workflows: WorkflowServiceClient::new(world.to_executors()),
            approvals: ApprovalServiceClient::new(world.to_approval()),
            until,
        }
    }

    /// Repeats a call while its failure may pass. The flag says whether it had to be repeated.
    async fn ask<T>(
        &self,
        what: &str,
        limit: Duration,
        mut call: impl AsyncFnMut() -> Result<Response<T>, Status>,
    ) -> Result<(T, bool), Error> {
        let mut again = false;
        let mut last = String::new();
        while Instant::now() < self.until {
            match tokio::time::timeout(limit, call()).await {
                Ok(Ok(answer)) => return Ok((answer.into_inner(), again)),
                Ok(Err(status)) => {
                    let error = from_status(&status);
                    if !error.code.is_transient() {
                        return Err(error);
                    }
                    last = error.to_string();
                }
                Err(_) => last = "no answer".to_owned(),
            }
            again = true;
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error::new(Code::DeadlineExceeded, format!("{what} was never answered: {last}")))
    }

    pub(crate) async fn apply(&self, source: &str) -> Result<(), Error> {
        let request = wire::ApplyWorkflowRequest { source: source.to_owned(), ..Default::default() };
        self.ask("apply", PATIENCE, async || self.workflows.clone().apply_workflow(request.clone()).await).await.map(drop)
    }

    /// Starts a run under a key; answers its id.
    pub(crate) async fn start(&self, workflow: &str, key: &str, input: &Value) -> Result<String, Error> {
        let request = wire::StartRunRequest {
            workflow: workflow.to_owned(),
            idempotency_key: key.to_owned(),
            input: input.to_string().into(),
            ..Default::default()
        };
        let (answer, _) = self.ask("start", PATIENCE, async || self.runs.clone().start_run(request.clone()).await).await?;
        Ok(answer.run.unwrap_or_default().run_id)
    }

    pub(crate) async fn signal(&self, run: &str, name: &str, payload: &Value) -> Result<(), Error> {
        let request = wire::SignalRunRequest {
            run_id: run.to_owned(),
            name: name.to_owned(),
            payload: payload.to_string().into(),
            idempotency_key: format!("{run}-{name}"),
            ..Default::default()
        };
        self.ask("signal", PATIENCE, async || self.runs.clone().signal_run(request.clone()).await).await.map(drop)
    }

    /// Cancels a run.
    pub(crate) async fn cancel(&self, run: &str) -> Result<(), Error> {
        let action = wire::ControlAction::Cancel.into();
        let request = wire::ControlRunRequest { run_id: run.to_owned(), action, ..Default::default() };
        match self.ask("cancel", PATIENCE, async || self.runs.clone().control_run(request.clone()).await).await {
            // It had ended in another way before.
            Err(error) if error.code == Code::FailedPrecondition => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// The run's pending approval, once there is one.
    pub(crate) async fn approval(&self, run: &str) -> Result<String, Error> {
        let request = approval::ListApprovalsRequest { run_id: run.to_owned(), ..Default::default() };
        while Instant::now() < self.until {
            let (answer, _) =
                self.ask("list approvals", PATIENCE, async || self.approvals.clone().list_approvals(request.clone()).await).await?;
            if let Some(found) = answer.approvals.into_iter().next() {
                return Ok(found.approval_id);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error::new(Code::DeadlineExceeded, "no approval was asked for"))
    }

    pub(crate) async fn decide(&self, id: &str, approve: bool) -> Result<(), Error> {
        let request = approval::DecideRequest {
            approval_id: id.to_owned(),
            decision: if approve { "approve" } else { "reject" }.to_owned(),
            by: "user:ada".to_owned(),
            ..Default::default()
        };
        match self.ask("decide", PATIENCE, async || self.approvals.clone().decide(request.clone()).await).await {
            // Our own decision, whose answer was lost.
            Err(error) if error.code == Code::Conflict => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// The run when it has ended.
    pub(crate) async fn ended(&self, run: &str) -> Result<wire::Run, Error> {
        let slice = Duration::from_secs(8);
        let request = wire::WaitRunRequest { run_id: run.to_owned(), timeout: Some(troupe_wire::duration(slice)), ..Default::default() };
        let mut seen = wire::Run::default();
        while Instant::now() < self.until {
            let (answer, _) = self.ask("wait", slice + PATIENCE, async || self.runs.clone().wait_run(request.clone()).await).await?;
            seen = answer.run.unwrap_or_default();
            if answer.ended {
                return Ok(seen);
            }
        }
        let waits: Vec<String> = seen.waiting_for.iter().map(|wait| format!("{} {} {}", wait.step, wait.kind, wait.detail)).collect();
        Err(Error::new(Code::DeadlineExceeded, format!("it is stuck: {} {waits:?}", seen.status)))
    }
}
