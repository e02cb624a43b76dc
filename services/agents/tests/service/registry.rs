//! A registry with fixed agents.

use serde_json::Value;
use std::{pin::Pin, sync::Mutex};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use troupe_client::Transport;
use troupe_proto::registry::v1::{
    self as registry, Agent, WatchAgentsRequest, WatchAgentsResponse,
    agent_registry_server::{AgentRegistry, AgentRegistryServer},
};

/// A registry that only knows how to be watched.
pub(crate) struct Registry {
    agents: Vec<WatchAgentsResponse>,
    /// For the first who watches.
    changes: Mutex<Option<mpsc::Receiver<Result<WatchAgentsResponse, Status>>>>,
}

/// A registry with these agents, and the way to change them.
pub(crate) fn registry(agents: &[Value]) -> (Transport, mpsc::Sender<Result<WatchAgentsResponse, Status>>) {
    let (sender, changes) = mpsc::channel(64);
    let mut agents: Vec<_> = agents.iter().map(|agent| change("upsert", agent)).collect();
    agents.push(WatchAgentsResponse { kind: "synced".to_owned(), agent: None });
    let registry = Registry { agents, changes: Mutex::new(Some(changes)) };
    (Transport::embedded(AgentRegistryServer::new(registry)), sender)
}

pub(crate) fn change(kind: &str, spec: &Value) -> WatchAgentsResponse {
    let agent = Agent {
        namespace: "default".to_owned(),
        name: spec["agent"].as_str().unwrap().to_owned(),
        version: "1.0.0".to_owned(),
        kind: spec["kind"].as_str().unwrap().to_owned(),
        spec: spec.to_string().into(),
        ..Agent::default()
    };
    WatchAgentsResponse { kind: kind.to_owned(), agent: Some(agent) }
}

fn unused<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl AgentRegistry for Registry {
    type WatchAgentsStream = Pin<Box<dyn Stream<Item = Result<WatchAgentsResponse, Status>> + Send>>;
    type ReportInstancesStream = Pin<Box<dyn Stream<Item = Result<registry::ReportInstancesResponse, Status>> + Send>>;

    async fn apply_agent(&self, _: Request<registry::ApplyAgentRequest>) -> Result<Response<registry::ApplyAgentResponse>, Status> {
        unused()
    }

    async fn get_agent(&self, _: Request<registry::GetAgentRequest>) -> Result<Response<registry::GetAgentResponse>, Status> {
        unused()
    }

    async fn list_agents(&self, _: Request<registry::ListAgentsRequest>) -> Result<Response<registry::ListAgentsResponse>, Status> {
        unused()
    }

    async fn delete_agent(&self, _: Request<registry::DeleteAgentRequest>) -> Result<Response<registry::DeleteAgentResponse>, Status> {
        unused()
    }

    async fn set_agent_state(
        &self,
        _: Request<registry::SetAgentStateRequest>,
    ) -> Result<Response<registry::SetAgentStateResponse>, Status> {
        unused()
    }

    async fn watch_agents(&self, request: Request<WatchAgentsRequest>) -> Result<Response<Self::WatchAgentsStream>, Status> {
        assert_eq!(request.into_inner().namespace, "*");
        let existing = tokio_stream::iter(self.agents.clone().into_iter().map(Ok));
        let changes: Self::WatchAgentsStream = match self.changes.lock().unwrap().take() {
            Some(changes) => Box::pin(ReceiverStream::new(changes)),
            None => Box::pin(tokio_stream::pending()),
        };
        Ok(Response::new(Box::pin(existing.chain(changes))))
    }

    async fn report_instances(
        &self,
        _: Request<Streaming<registry::ReportInstancesRequest>>,
    ) -> Result<Response<Self::ReportInstancesStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }
}
