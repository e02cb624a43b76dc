//! The registry: which agents there are, what they can do, who serves them, and how they are.
//!
//! Reading order: [`agent`] (what an agent is), `catalogue` (all of them now), `instances` (who serves them), [`store`] (what is
//! kept), `operations` (what can be done), `watch` (the stream of changes), `grpc` (the face).

pub mod agent;
mod catalogue;
pub mod config;
mod grpc;
mod instances;
pub mod metrics;
mod operations;
pub mod process;
pub mod store;
mod watch;

pub use config::Config;

use catalogue::Catalogue;
use operations::Operations;
use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
};
use store::{Store, memory::MemoryStore, sqlite::SqliteStore};
use tokio::sync::Mutex;
use troupe_proto::registry::v1::agent_registry_server::AgentRegistryServer;
use troupe_service_kit::{Dependency, Tasks, config::accept};
use troupe_wire::MAX_MESSAGE;

/// Where definitions and standings are kept.
#[derive(Clone, Debug)]
pub enum Backend {
    /// A file of this service's own.
    Sqlite(PathBuf),
    /// Gone with the process.
    Memory,
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
        let (backend, store): (_, Arc<dyn Store>) = match backend {
            Backend::Memory => ("memory", Arc::new(MemoryStore::default())),
            Backend::Sqlite(path) => ("sqlite", Arc::new(SqliteStore::open(path).await?)),
        };
        metrics::describe();
        let (active, standings) = store.load().await?;
        let operations = Operations {
            catalogue: Arc::new(Catalogue::new(config.watch_buffer, active, standings)),
            config,
            store,
            stopping: tasks.token().child_token(),
            streams: AtomicU64::new(1),
            writing: Mutex::new(()),
        };
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
