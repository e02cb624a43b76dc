//! The gRPC face: decode, call, encode.

use crate::{
    agent::{Key, State},
    instances::Reporter,
    metrics::count,
    operations::Operations,
    watch::watch,
};
use futures::{StreamExt, stream::BoxStream};
use std::sync::{Arc, atomic::Ordering};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use troupe_domain::{Code, Error, Namespace};
use troupe_proto::registry::v1::{self as wire, agent_registry_server::AgentRegistry};
use troupe_service_kit::Tasks;
use troupe_wire::to_status;

const PAGE: u32 = 50;
const MAX_PAGE: u32 = 500;
/// Answers that wait for a scheduler to read them; it need not read them at all.
const ANSWERS: usize = 16;

#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) operations: Arc<Operations>,
    pub(crate) tasks: Tasks,
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(operation: &'static str, result: Result<T, Error>) -> Answer<T> {
    count(operation, &result);
    result.map(Response::new).map_err(|error| to_status(&error))
}

#[tonic::async_trait]
impl AgentRegistry for Api {
    async fn apply_agent(&self, request: Request<wire::ApplyAgentRequest>) -> Answer<wire::ApplyAgentResponse> {
        let r = request.into_inner();
        let applied = self.operations.apply(r.namespace, r.source, r.dry_run).await;
        answer("apply", applied.map(|(agent, created)| wire::ApplyAgentResponse { agent: Some(agent), created }))
    }

    async fn get_agent(&self, request: Request<wire::GetAgentRequest>) -> Answer<wire::GetAgentResponse> {
        answer("get", self.get(request.into_inner()).await)
    }

    async fn list_agents(&self, request: Request<wire::ListAgentsRequest>) -> Answer<wire::ListAgentsResponse> {
        answer("list", self.list(request.into_inner()).await)
    }

    async fn delete_agent(&self, request: Request<wire::DeleteAgentRequest>) -> Answer<wire::DeleteAgentResponse> {
        answer("delete", self.delete(request.into_inner()).await)
    }

    async fn set_agent_state(&self, request: Request<wire::SetAgentStateRequest>) -> Answer<wire::SetAgentStateResponse> {
        answer("set_state", self.set_state(request.into_inner()).await)
    }

    type WatchAgentsStream = BoxStream<'static, Result<wire::WatchAgentsResponse, Status>>;

    async fn watch_agents(&self, request: Request<wire::WatchAgentsRequest>) -> Answer<Self::WatchAgentsStream> {
        answer("watch", self.watch(&request.into_inner().namespace).await)
    }

    type ReportInstancesStream = BoxStream<'static, Result<wire::ReportInstancesResponse, Status>>;

    async fn report_instances(&self, request: Request<Streaming<wire::ReportInstancesRequest>>) -> Answer<Self::ReportInstancesStream> {
        let opened = self.operations.check_open();
        let (answers, stream) = mpsc::channel(ANSWERS);
        if opened.is_ok() {
            // Read by a task of its own: reports count whether or not the scheduler reads the answers.
            self.tasks.spawn("registry-reports", self.clone().read_reports(request.into_inner(), answers));
        }
        answer("report", opened.map(|()| ReceiverStream::new(stream).boxed()))
    }
}

impl Api {
    async fn get(&self, r: wire::GetAgentRequest) -> Result<wire::GetAgentResponse, Error> {
        let agent = self.operations.get(Key::parse(&r.namespace, &r.name)?, r.version).await?;
        Ok(wire::GetAgentResponse { agent: Some(agent) })
    }

    async fn list(&self, r: wire::ListAgentsRequest) -> Result<wire::ListAgentsResponse, Error> {
        let namespace = Namespace::parse(&r.namespace)?;
        self.operations.catch_up().await?;
        let page = r.page.unwrap_or_default();
        let limit = if page.limit == 0 { PAGE } else { page.limit.min(MAX_PAGE) };
        let (agents, more) = self.operations.catalogue.page(namespace.as_str(), &page.cursor, limit as usize, &r.capability);
        let next_cursor = agents.last().filter(|_| more).map(|agent| agent.name.clone()).unwrap_or_default();
        Ok(wire::ListAgentsResponse { agents, next_cursor })
    }

    async fn delete(&self, r: wire::DeleteAgentRequest) -> Result<wire::DeleteAgentResponse, Error> {
        self.operations.delete(Key::parse(&r.namespace, &r.name)?).await?;
        Ok(wire::DeleteAgentResponse {})
    }

    async fn set_state(&self, r: wire::SetAgentStateRequest) -> Result<wire::SetAgentStateResponse, Error> {
        let state = match r.state() {
            wire::AgentState::Active => State::Active,
            wire::AgentState::Draining => State::Draining,
            wire::AgentState::Quarantined => State::Quarantined,
            wire::AgentState::Unspecified => return Err(Error::invalid_field("state", "is not active, draining or quarantined")),
        };
        let agent = self.operations.set_state(Key::parse(&r.namespace, &r.name)?, state, r.reason).await?;
        Ok(wire::SetAgentStateResponse { agent: Some(agent) })
    }

    async fn watch(&self, namespace: &str) -> Result<<Self as AgentRegistry>::WatchAgentsStream, Error> {
        self.operations.check_open()?;
        let namespace = if namespace == "*" { "*".to_owned() } else { Namespace::parse(namespace)?.to_string() };
        let max = self.operations.config.max_watchers;
        if self.operations.catalogue.watchers() >= max {
            let error = Error::new(Code::ResourceExhausted, format!("{max} watchers, and no more are allowed"));
            return Err(error.with_help("try again later, or raise registry.max_watchers"));
        }
        if let Err(error) = self.operations.catch_up().await {
            // Better what was known a moment ago, and the changes as soon as the store is back, than nothing.
            tracing::warn!(error = %error, "a watch begins without a look at the store");
        }
        let (agents, changes) = self.operations.catalogue.watch(&namespace);
        Ok(watch(namespace, agents, changes, self.operations.stopping.clone()).boxed())
    }

    /// Until the scheduler's stream ends, breaks or says something wrong: then its workers are gone from here.
    async fn read_reports(
        self,
        mut reports: Streaming<wire::ReportInstancesRequest>,
        answers: mpsc::Sender<Result<wire::ReportInstancesResponse, Status>>,
    ) {
        let operations = &self.operations;
        let mut reporter = match &operations.follower {
            Some(follower) => Reporter::shared(Arc::clone(follower), operations.config.instance_life()),
            None => Reporter::here(Arc::clone(&operations.catalogue), operations.streams.fetch_add(1, Ordering::Relaxed)),
        };
        let outcome = tokio::select! {
            // Replicas that go on keep the report for a while: the scheduler takes it to one of them.
            () = operations.stopping.cancelled() => return,
            outcome = self.follow_reports(&mut reporter, &mut reports, &answers) => outcome,
        };
        reporter.end().await;
        if let Err(error) = outcome {
            tracing::warn!(error = %error, "a scheduler's report was refused");
            // Nobody listens when the stream is gone already.
            let _ = answers.send(Err(to_status(&error))).await;
        }
    }

    async fn follow_reports(
        &self,
        reporter: &mut Reporter,
        reports: &mut Streaming<wire::ReportInstancesRequest>,
        answers: &mpsc::Sender<Result<wire::ReportInstancesResponse, Status>>,
    ) -> Result<(), Error> {
        let config = &self.operations.config;
        let mut renewals = tokio::time::interval(config.renewal());
        loop {
            let message = tokio::select! {
                message = reports.message() => message,
                _ = renewals.tick() => {
                    reporter.renew().await?;
                    continue;
                }
            };
            let Ok(Some(report)) = message else { return Ok(()) };
            reporter.report(report, config).await?;
            // An answer that finds no room is left out: each only says "so far so good".
            let _ = answers.try_send(Ok(wire::ReportInstancesResponse {}));
        }
    }
}
