//! The service in this process, and a scheduler that reports what the test says.

use futures::StreamExt;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use troupe_domain::Error;
use troupe_proto::registry::v1::{self as wire, agent_registry_client::AgentRegistryClient};
use troupe_registry::{Backend, Config, Service};
use troupe_service_kit::Tasks;
use troupe_wire::{Transport, from_status};

pub(crate) struct Host {
    pub(crate) client: AgentRegistryClient<Transport>,
    pub(crate) service: Service,
    pub(crate) tasks: Tasks,
}

pub(crate) async fn host_on(config: Config, backend: Backend) -> Host {
    let tasks = Tasks::new();
    let service = Service::start(config, backend, &tasks).await.unwrap();
    let client = AgentRegistryClient::new(Transport::embedded(service.routes()));
    Host { client, service, tasks }
}

pub(crate) async fn host() -> Host {
    host_on(Config::default(), Backend::Memory).await
}

/// An agent file of a worker's agent.
pub(crate) fn file(name: &str, version: &str, description: &str) -> String {
    let version = if version.is_empty() { String::new() } else { format!("version: \"{version}\"\n") };
    format!("agent: {name}\n{version}kind: worker\ncapabilities: [analysis, {name}-skill]\ndescription: {description}\n")
}

impl Host {
    pub(crate) async fn apply(&mut self, source: String) -> Result<wire::ApplyAgentResponse, Error> {
        let request = wire::ApplyAgentRequest { namespace: "team".into(), source, dry_run: false };
        self.client.apply_agent(request).await.map(tonic::Response::into_inner).map_err(|s| from_status(&s))
    }

    pub(crate) async fn get(&mut self, name: &str, version: &str) -> Result<wire::Agent, Error> {
        let request = wire::GetAgentRequest { namespace: "team".into(), name: name.into(), version: version.into() };
        let answer = self.client.get_agent(request).await.map_err(|s| from_status(&s))?;
        Ok(answer.into_inner().agent.unwrap())
    }

    pub(crate) async fn delete(&mut self, name: &str) -> Result<(), Error> {
        let request = wire::DeleteAgentRequest { namespace: "team".into(), name: name.into() };
        self.client.delete_agent(request).await.map(drop).map_err(|s| from_status(&s))
    }

    pub(crate) async fn set_state(&mut self, name: &str, state: wire::AgentState) -> Result<wire::Agent, Error> {
        let state = state.into();
        let request = wire::SetAgentStateRequest { namespace: "team".into(), name: name.into(), state, reason: "because".into() };
        let answer = self.client.set_agent_state(request).await.map_err(|s| from_status(&s))?;
        Ok(answer.into_inner().agent.unwrap())
    }

    pub(crate) async fn watch(&mut self, namespace: &str) -> Watch {
        let request = wire::WatchAgentsRequest { namespace: namespace.into() };
        Watch(self.client.watch_agents(request).await.unwrap().into_inner())
    }

    pub(crate) async fn scheduler(&mut self, id: &str) -> FakeScheduler {
        let (reports, stream) = mpsc::channel(16);
        let answers = self.client.report_instances(ReceiverStream::new(stream)).await.unwrap().into_inner();
        FakeScheduler { id: id.into(), reports, answers }
    }
}

pub(crate) struct Watch(pub(crate) Streaming<wire::WatchAgentsResponse>);

impl Watch {
    pub(crate) async fn next(&mut self) -> Result<wire::WatchAgentsResponse, Status> {
        let next = tokio::time::timeout(Duration::from_secs(20), self.0.next());
        next.await.expect("a message of the watch").expect("the watch goes on")
    }

    /// Kind and name of the next message.
    pub(crate) async fn told(&mut self) -> (String, String) {
        let message = self.next().await.unwrap();
        (message.kind, message.agent.map(|a| a.name).unwrap_or_default())
    }

    /// The agent of the next change of `name` that fits.
    pub(crate) async fn until(&mut self, name: &str, fits: impl Fn(&wire::Agent) -> bool) -> wire::Agent {
        loop {
            if let Some(agent) = self.next().await.unwrap().agent
                && agent.name == name
                && fits(&agent)
            {
                return agent;
            }
        }
    }
}

pub(crate) struct FakeScheduler {
    id: String,
    reports: mpsc::Sender<wire::ReportInstancesRequest>,
    pub(crate) answers: Streaming<wire::ReportInstancesResponse>,
}

impl FakeScheduler {
    /// Reports (agent, worker, active tasks).
    pub(crate) async fn report(&self, instances: &[(&str, &str, u32)]) {
        self.send(self.said(instances)).await;
    }

    /// The same over a stream that the registry may have ended already.
    pub(crate) async fn report_in_vain(&self, instances: &[(&str, &str, u32)]) {
        let _ = self.reports.send(self.said(instances)).await;
    }

    fn said(&self, instances: &[(&str, &str, u32)]) -> wire::ReportInstancesRequest {
        let instances = instances.iter().map(|(agent, worker, active)| wire::ReportedInstance {
            namespace: "team".into(),
            agent: (*agent).into(),
            version: "1".into(),
            capabilities: vec![format!("{worker}-skill")],
            instance: Some(wire::Instance { worker_id: (*worker).into(), slots: 4, active: *active, ..Default::default() }),
        });
        wire::ReportInstancesRequest { scheduler_id: self.id.clone(), instances: instances.collect() }
    }

    pub(crate) async fn send(&self, report: wire::ReportInstancesRequest) {
        self.reports.send(report).await.unwrap();
    }
}
