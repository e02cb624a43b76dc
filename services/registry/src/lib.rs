//! The registry: which agents there are, what they can do, who serves them, and how they are.
//!
//! Reading order: [`agent`] (what an agent is), `catalogue` (all of them now), `instances` (who serves them), [`store`] (what is
//! kept), `operations` (what can be done), `watch` (the stream of changes), `follow` (what other replicas do), `grpc` (the face).

pub mod agent;
mod catalogue;
pub mod config;
mod follow;
mod grpc;
mod instances;
pub mod metrics;
mod operations;
pub mod process;
pub mod store;
mod watch;

pub use config::Config;

use catalogue::Catalogue;
use follow::Follower;
use operations::Operations;
use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
};
use store::{Store, memory::MemoryStore, postgres::PostgresStore, sqlite::SqliteStore};
use tokio::sync::Mutex;
use troupe_domain::Error;
use troupe_proto::registry::v1::agent_registry_server::AgentRegistryServer;
use troupe_service_kit::{Dependency, Tasks, config::accept};
use troupe_wire::MAX_MESSAGE;

/// Where definitions and standings are kept.
#[derive(Clone, Debug)]
pub enum Backend {
    /// A file of this service's own.
    Sqlite(PathBuf),
    /// The database of these settings, together with other replicas of the service.
    Postgres(troupe_postgres::Config),
    /// Gone with the process.
    Memory,
}

impl Backend {
    /// The database of the settings if they name one, else this file, which is only asked for then.
    pub fn database_or(config: &Config, file: impl FnOnce() -> Result<PathBuf, Error>) -> Result<Self, Error> {
        if config.postgres.url.is_empty() { file().map(Self::Sqlite) } else { Ok(Self::Postgres(config.postgres.clone())) }
    }
}

/// The running service. Clones share it.
#[derive(Clone)]
pub struct Service {
    api: grpc::Api,
    backend: &'static str,
}

impl Service {
    /// Opens the store and loads the agents. Fails on bad settings or a store that cannot be opened.
    pub async fn start(config: Config, backend: Backend, tasks: &Tasks) -> anyhow::Result<Self> {
        accept("registry", config.validate())?;
        metrics::describe();
        let mut follower = None;
        let (backend, store): (_, Arc<dyn Store>) = match backend {
            Backend::Memory => ("memory", Arc::new(MemoryStore::default())),
            Backend::Sqlite(path) => ("sqlite", Arc::new(SqliteStore::open(path).await?)),
            Backend::Postgres(database) => {
                let store = PostgresStore::open(&database).await?;
                follower = Some(Arc::new(Follower::start(store.clone(), &config).await?));
                ("postgres", Arc::new(store))
            }
        };
        let stopping = tasks.token().child_token();
        let catalogue = match &follower {
            Some(follower) => {
                tasks.spawn("registry-follower", Arc::clone(follower).run(config.clone(), stopping.clone()));
                follower.catalogue()
            }
            None => {
                let (active, standings) = store.load().await?;
                Arc::new(Catalogue::new(config.watch_buffer, active, standings))
            }
        };
        let operations = Operations { catalogue, follower, config, store, stopping, streams: AtomicU64::new(1), writing: Mutex::new(()) };
        Ok(Self { api: grpc::Api { operations: Arc::new(operations), tasks: tasks.clone() }, backend })
    }

    /// All gRPC servers of this service.
    pub fn routes(&self) -> tonic::service::Routes {
        let server = AgentRegistryServer::new(self.api.clone());
        tonic::service::Routes::new(server.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
    }

    /// Whether the store works.
    pub async fn health(&self) -> Vec<Dependency> {
        vec![match self.api.operations.store.check().await {
            Ok(()) => Dependency::ok(self.backend),
            Err(error) => Dependency::failing(self.backend, error.message),
        }]
    }

    /// Refuses new writes and streams, and ends the streams that are open.
    pub async fn drain(&self) {
        self.api.operations.stopping.cancel();
        // A write that has begun finishes first.
        drop(self.api.operations.writing.lock().await);
    }
}
