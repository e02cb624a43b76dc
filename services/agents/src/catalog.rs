//! The agents that this worker serves, as the registry has them now.

use crate::schema::Schema;
use futures::StreamExt;
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::watch;
use tonic::Status;
use troupe_client::{
    MAX_MESSAGE_BYTES, TaskError, Transport,
    worker::{Offer, Offered},
};
use troupe_engine::agent::AgentSpec;
use troupe_proto::registry::v1::{Agent as WireAgent, WatchAgentsRequest, WatchAgentsResponse, agent_registry_client::AgentRegistryClient};
use troupe_wire::Backoff;

/// Kinds that this worker runs. `worker` agents are served by processes of the users' own.
const KINDS: [&str; 2] = ["llm", "code"];
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// An agent, ready to work.
pub(crate) struct Agent {
    pub spec: AgentSpec,
    pub input: Option<Schema>,
    pub output: Option<Schema>,
    version: String,
    /// What is wrong with its definition.
    fault: Option<String>,
}

impl Agent {
    fn of(wire: &WireAgent) -> Result<Self, String> {
        let spec: AgentSpec = serde_json::from_slice(&wire.spec).map_err(|e| format!("its definition is not understood: {e}"))?;
        Ok(Self::new(spec, wire.version.clone()))
    }

    pub(crate) fn new(spec: AgentSpec, version: String) -> Self {
        let mut fault = None;
        let mut compile = |name: &str, schema: &Option<serde_json::Value>| match schema.as_ref().map(Schema::compile)? {
            Ok(schema) => Some(schema),
            Err(error) => {
                fault = Some(format!("{name}: {error}"));
                None
            }
        };
        let (input, output) = (compile("input", &spec.input), compile("output", &spec.output));
        Self { spec, input, output, version, fault }
    }

    /// Fails when its definition is not usable.
    pub(crate) fn check(&self) -> Result<(), TaskError> {
        match &self.fault {
            Some(fault) => Err(TaskError::new("AGENT_INVALID", format!("the definition of {} is not usable: {fault}", self.spec.agent))),
            None => Ok(()),
        }
    }
}

type Key = (String, String);
type Agents = HashMap<Key, Arc<Agent>>;

pub(crate) struct Catalog {
    agents: RwLock<Agents>,
    tools: Vec<String>,
    offer: watch::Sender<Offer>,
    synced: watch::Sender<bool>,
}

impl Catalog {
    pub(crate) fn new(tools: Vec<String>) -> Self {
        let offer = Offer { agents: Vec::new(), tools: tools.clone() };
        Self { agents: RwLock::default(), tools, offer: watch::Sender::new(offer), synced: watch::Sender::new(false) }
    }

    /// What is offered to the scheduler; changes with the catalogue.
    pub(crate) fn offers(&self) -> watch::Receiver<Offer> {
        self.offer.subscribe()
    }

    /// Whether the catalogue follows the registry.
    pub(crate) fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Agent>> {
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
        agents.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Follows the registry for ever.
    pub(crate) async fn follow(&self, registry: Transport) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            match self.watch(registry.clone()).await {
                Ok(()) => tracing::info!("the registry ended the watch; watching again"),
                Err(status) => {
                    tracing::warn!(code = ?status.code(), message = status.message(), "the registry is not to be had; trying again")
                }
            }
            if self.synced.send_replace(false) {
                backoff.reset();
            }
            backoff.wait().await;
        }
    }

    async fn watch(&self, registry: Transport) -> Result<(), Status> {
        let mut client = AgentRegistryClient::new(registry).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut stream = client.watch_agents(WatchAgentsRequest { namespace: "*".to_owned() }).await?.into_inner();
        // What was served before stays until the registry has told everything.
        let mut agents = Agents::new();
        let mut synced = false;
        while let Some(change) = stream.next().await {
            let change = change?;
            synced |= change.kind == "synced";
            apply(&mut agents, change);
            if synced {
                self.publish(&agents);
            }
        }
        Ok(())
    }

    fn publish(&self, agents: &Agents) {
        let mut offered: Vec<Offered> = agents
            .iter()
            .map(|((namespace, name), agent)| Offered {
                name: name.clone(),
                version: agent.version.clone(),
                capabilities: agent.spec.capabilities.clone(),
                slots: 0,
                namespace: namespace.clone(),
            })
            .collect();
        offered.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        self.agents.write().unwrap_or_else(PoisonError::into_inner).clone_from(agents);
        let offer = Offer { agents: offered, tools: self.tools.clone() };
        self.offer.send_if_modified(|known| {
            let changed = *known != offer;
            *known = offer;
            changed
        });
        self.synced.send_replace(true);
    }
}

fn apply(agents: &mut Agents, change: WatchAgentsResponse) {
    let Some(wire) = change.agent else { return };
    let key = (wire.namespace.clone(), wire.name.clone());
    if change.kind == "delete" || wire.dynamic || !KINDS.contains(&wire.kind.as_str()) {
        agents.remove(&key);
        return;
    }
    match Agent::of(&wire) {
        Ok(agent) => {
            agents.insert(key, Arc::new(agent));
        }
        Err(fault) => {
            tracing::error!(namespace = wire.namespace, agent = wire.name, fault, "agent left out");
            agents.remove(&key);
        }
    }
}
