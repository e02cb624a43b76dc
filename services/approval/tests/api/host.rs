//! The service in this process, with a clock of the test's and an executor that does as it is told.

use chrono::{TimeZone, Utc};
use futures::StreamExt;
use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status, Streaming};
use troupe_approval::{
    Backend, Config, Dependencies, Service,
    clock::{Clock, ManualClock},
};
use troupe_domain::{Error, RunId};
use troupe_proto::{
    approval::v1::{self as wire, approval_service_client::ApprovalServiceClient},
    executor::v1::{
        DecideRequest, DecideResponse, ReportRequest, ReportResponse,
        effect_service_server::{EffectService, EffectServiceServer},
    },
};
use troupe_service_kit::Tasks;
use troupe_wire::{Transport, from_status, timestamp};

/// Remembers what it was told; answers with the prepared failures first, then with success.
#[derive(Clone, Default)]
pub(crate) struct FakeExecutor {
    pub(crate) failures: Arc<Mutex<VecDeque<Code>>>,
    heard: Arc<watch::Sender<Vec<DecideRequest>>>,
}

#[tonic::async_trait]
impl EffectService for FakeExecutor {
    type ReportStream = futures::stream::BoxStream<'static, Result<ReportResponse, Status>>;

    async fn report(&self, _: Request<Streaming<ReportRequest>>) -> Result<Response<Self::ReportStream>, Status> {
        Ok(Response::new(futures::stream::empty().boxed()))
    }

    async fn decide(&self, request: Request<DecideRequest>) -> Result<Response<DecideResponse>, Status> {
        let failure = self.failures.lock().unwrap().pop_front();
        self.heard.send_modify(|heard| heard.push(request.into_inner()));
        match failure {
            Some(code) => Err(Status::new(code, "not now")),
            None => Ok(Response::new(DecideResponse { applied: true })),
        }
    }
}

impl FakeExecutor {
    /// All calls, once there are at least `n`.
    pub(crate) async fn heard(&self, n: usize) -> Vec<DecideRequest> {
        let mut heard = self.heard.subscribe();
        let waiting = heard.wait_for(|heard| heard.len() >= n);
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the executor was called").unwrap().clone()
    }

    pub(crate) fn calls(&self) -> usize {
        self.heard.borrow().len()
    }
}

pub(crate) struct Host {
    pub(crate) client: ApprovalServiceClient<Transport>,
    pub(crate) executor: FakeExecutor,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) service: Service,
    pub(crate) tasks: Tasks,
}

pub(crate) async fn host_on(backend: Backend, executor: FakeExecutor, clock: Arc<ManualClock>) -> Host {
    let tasks = Tasks::new();
    let dependencies = Dependencies { executor: Transport::embedded(EffectServiceServer::new(executor.clone())) };
    let service = Service::start_at(Config::default(), backend, dependencies, Arc::clone(&clock) as Arc<dyn Clock>, &tasks).await.unwrap();
    let client = ApprovalServiceClient::new(Transport::embedded(service.routes()));
    Host { client, executor, clock, service, tasks }
}

pub(crate) fn new_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Utc.timestamp_opt(1_800_000_000, 0).unwrap()))
}

pub(crate) async fn host() -> Host {
    host_on(Backend::Memory, FakeExecutor::default(), new_clock()).await
}

pub(crate) fn sqlite(dir: &Path) -> Backend {
    Backend::Sqlite(dir.join("approvals.db"))
}

impl Host {
    /// Stops it as a process is stopped, and starts another one on the same file.
    pub(crate) async fn restart(self, backend: Backend) -> Self {
        self.stop().await;
        host_on(backend, self.executor, self.clock).await
    }

    pub(crate) async fn stop(&self) {
        assert!(self.tasks.stop(Duration::from_secs(20)).await, "the loops end");
    }

    pub(crate) fn request(&self, id: &str) -> wire::Approval {
        wire::Approval {
            namespace: "team".into(),
            approval_id: id.into(),
            run_id: RunId::generate().to_string(),
            step: "publish".into(),
            title: "Publish?".into(),
            show: r#"{"report":"all is well"}"#.into(),
            values: r#"{"report":"all is well"}"#.into(),
            edit: vec!["report".into()],
            requested_at: Some(timestamp(self.clock.now())),
            ..Default::default()
        }
    }

    pub(crate) fn expiring(&self, id: &str, seconds: i64, on_expire: &str) -> wire::Approval {
        let at = self.clock.now() + chrono::Duration::seconds(seconds);
        wire::Approval { expires_at: Some(timestamp(at)), on_expire: on_expire.into(), ..self.request(id) }
    }

    pub(crate) async fn store(&mut self, approvals: Vec<wire::Approval>) {
        self.client.request_approvals(wire::RequestApprovalsRequest { approvals }).await.unwrap();
    }

    pub(crate) async fn decide(&mut self, id: &str, by: &str, decision: &str) -> Result<wire::Approval, Error> {
        self.send(wire::DecideRequest { approval_id: id.into(), by: by.into(), decision: decision.into(), ..Default::default() }).await
    }

    pub(crate) async fn send(&mut self, request: wire::DecideRequest) -> Result<wire::Approval, Error> {
        let request = wire::DecideRequest { namespace: "team".into(), ..request };
        let answer = self.client.decide(request).await.map_err(|status| from_status(&status))?;
        Ok(answer.into_inner().approval.expect("an approval"))
    }

    pub(crate) async fn get(&mut self, id: &str) -> wire::Approval {
        let request = wire::GetApprovalRequest { namespace: "team".into(), approval_id: id.into() };
        self.client.get_approval(request).await.unwrap().into_inner().approval.unwrap()
    }

    pub(crate) async fn list(&mut self, request: wire::ListApprovalsRequest) -> Vec<String> {
        let request = wire::ListApprovalsRequest { namespace: "team".into(), ..request };
        let listed = self.client.list_approvals(request).await.unwrap().into_inner();
        listed.approvals.into_iter().map(|a| a.approval_id).collect()
    }
}
