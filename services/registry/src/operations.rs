//! What the service does with agents; the gRPC server only translates.

use crate::{
    agent::{Active, Definition, Key, Standing, State},
    catalogue::{Catalogue, defined},
    config::Config,
    follow::Follower,
    store::{Put, Store},
};
use chrono::Utc;
use std::sync::{Arc, atomic::AtomicU64};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use troupe_domain::{Code, Error};
use troupe_engine::Limits;
use troupe_proto::registry::v1 as wire;

const MAX_REASON: usize = 1024;

/// The parts that the gRPC server and the streams share.
pub(crate) struct Operations {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) catalogue: Arc<Catalogue>,
    /// For a store that other replicas write too.
    pub(crate) follower: Option<Arc<Follower>>,
    pub(crate) stopping: CancellationToken,
    /// Numbers the schedulers' streams.
    pub(crate) streams: AtomicU64,
    /// Held from the store's answer to the catalogue's change: both see writes in one order.
    pub(crate) writing: Mutex<()>,
}

impl Operations {
    /// Ends when the catalogue shows what every replica has answered before the call.
    pub(crate) async fn catch_up(&self) -> Result<(), Error> {
        match &self.follower {
            Some(follower) => follower.catch_up().await,
            None => Ok(()),
        }
    }

    /// Brings what was just written into the catalogue. With other replicas it comes with what they did, in the store's order.
    async fn show(&self, show: impl FnOnce(&Catalogue)) -> Result<(), Error> {
        if self.follower.is_none() {
            show(&self.catalogue);
        }
        self.catch_up().await
    }

    /// Answers the agent as it is afterwards, and whether the version is new. A dry run says what would be.
    pub(crate) async fn apply(&self, namespace: String, source: String, dry_run: bool) -> Result<(wire::Agent, bool), Error> {
        self.check_open()?;
        let max = self.config.max_source_bytes;
        if source.len() > max {
            let message = format!("the agent file has {} bytes, at most {max} are allowed", source.len());
            return Err(Error::new(Code::PayloadTooLarge, message).with_help("make it smaller, or raise registry.max_source_bytes"));
        }
        let limits = Limits { max_source_bytes: max, ..Limits::default() };
        // Parsing a large file takes a while: not on a thread that others share.
        let read = tokio::task::spawn_blocking(move || Definition::read(&namespace, &source, &limits)).await;
        let definition = read.map_err(|_| Error::internal())??;
        let key = definition.key.clone();

        let _one_at_a_time = self.writing.lock().await;
        self.catch_up().await?;
        self.check_room(&key)?;
        if dry_run {
            return self.preview(definition).await;
        }
        let source = definition.source.clone();
        let version = definition.version.clone();
        let Put::Stored { created, active } = self.store.put(definition, Utc::now(), self.config.max_versions_per_agent).await? else {
            return Err(conflict(&key, &version));
        };
        tracing::info!(agent.namespace = %key.namespace, agent.name = %key.name, agent.version = %version, created, "agent applied");
        self.show(|catalogue| catalogue.define((*active).clone())).await?;
        // Another replica may have changed it again, or deleted it: what is answered is what was applied.
        let agent = self.catalogue.get(&key).unwrap_or_else(|| defined(&active));
        Ok((with_definition(agent, Definition { source, ..active.definition }), created))
    }

    async fn preview(&self, definition: Definition) -> Result<(wire::Agent, bool), Error> {
        let known = self.store.version(definition.key.clone(), definition.version.clone()).await?;
        if known.as_ref().is_some_and(|known| known.hash != definition.hash) {
            return Err(conflict(&definition.key, &definition.version));
        }
        let now = Utc::now();
        let created_at = self.catalogue.active(&definition.key).map_or(now, |active| active.created_at);
        let active = Active { definition, created_at, updated_at: now };
        let agent = wire::Agent { state: wire::AgentState::Active.into(), ..defined(&active) };
        Ok((agent, known.is_none()))
    }

    fn check_room(&self, key: &Key) -> Result<(), Error> {
        let max = self.config.max_agents_per_namespace;
        if self.catalogue.active(key).is_some() || self.catalogue.count_defined(&key.namespace) < max {
            return Ok(());
        }
        let message = format!("namespace {} has {max} agents, and no more are allowed", key.namespace);
        Err(Error::new(Code::ResourceExhausted, message).with_help("delete some, or raise registry.max_agents_per_namespace"))
    }

    /// The agent with its source; `version` empty: the active one.
    pub(crate) async fn get(&self, key: Key, version: String) -> Result<wire::Agent, Error> {
        self.catch_up().await?;
        let agent = self.catalogue.get(&key).ok_or_else(|| not_found(&key))?;
        let wanted = if version.is_empty() { agent.version.clone() } else { version };
        if agent.dynamic {
            return if wanted == agent.version { Ok(agent) } else { Err(version_not_found(&key, &wanted)) };
        }
        let found = self.store.version(key.clone(), wanted.clone()).await?;
        Ok(with_definition(agent, found.ok_or_else(|| version_not_found(&key, &wanted))?))
    }

    /// Drops all versions and the standing.
    pub(crate) async fn delete(&self, key: Key) -> Result<(), Error> {
        self.check_open()?;
        let _one_at_a_time = self.writing.lock().await;
        if self.store.delete(key.clone()).await? {
            tracing::info!(agent.namespace = %key.namespace, agent.name = %key.name, "agent deleted");
            return self.show(|catalogue| catalogue.undefine(&key)).await;
        }
        self.catch_up().await?;
        match self.catalogue.get(&key) {
            None => Err(not_found(&key)),
            Some(_) => Err(Error::precondition(format!("agent {} has no definition: it is there because workers serve it", key.name))
                .with_reason("DYNAMIC_AGENT")
                .with_help("stop its workers, or quarantine it")),
        }
    }

    pub(crate) async fn set_state(&self, key: Key, state: State, reason: String) -> Result<wire::Agent, Error> {
        self.check_open()?;
        if reason.len() > MAX_REASON {
            return Err(Error::invalid_field("reason", format!("has {} bytes, at most {MAX_REASON} are allowed", reason.len())));
        }
        let _one_at_a_time = self.writing.lock().await;
        self.catch_up().await?;
        // A dynamic agent whose workers are away keeps its standing, and can get another.
        if self.catalogue.get(&key).is_none() && self.catalogue.standing(&key).is_none() {
            return Err(not_found(&key));
        }
        let standing = Standing { state, reason, updated_at: Utc::now() };
        self.store.set_standing(key.clone(), standing.clone()).await?;
        tracing::info!(agent.namespace = %key.namespace, agent.name = %key.name, state = state.name(), "agent state set");
        self.show(|catalogue| catalogue.set_standing(&key, standing.clone())).await?;
        Ok(self.catalogue.get(&key).unwrap_or_else(|| wire::Agent {
            namespace: key.namespace,
            name: key.name,
            state: crate::catalogue::state_to_wire(state).into(),
            state_reason: standing.reason,
            ..Default::default()
        }))
    }

    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match self.stopping.is_cancelled() {
            true => Err(Error::unavailable("the registry is stopping; try again")),
            false => Ok(()),
        }
    }
}

/// The agent as it is, with this version of its definition.
fn with_definition(agent: wire::Agent, definition: Definition) -> wire::Agent {
    wire::Agent {
        version: definition.version,
        hash: definition.hash,
        kind: definition.kind,
        capabilities: definition.capabilities,
        spec: definition.spec.to_bytes(),
        source: definition.source,
        ..agent
    }
}

fn not_found(key: &Key) -> Error {
    Error::not_found(format!("agent {}", key.name)).with_help("list the agents for the names that exist")
}

fn version_not_found(key: &Key, version: &str) -> Error {
    let version: String = version.chars().take(80).collect();
    Error::not_found(format!("version {version} of agent {}", key.name))
}

fn conflict(key: &Key, version: &str) -> Error {
    Error::conflict(format!("version {version} of agent {} exists with other content", key.name))
        .with_reason("VERSION_EXISTS")
        .with_help("a version never changes: raise `version` in the agent file, or leave it out to have one made from the content")
}
