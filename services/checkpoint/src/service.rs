//! How the service starts, what it serves, and how it ends.

use crate::{Clock, Config, Journal, Memory, Postgres, Sqlite, config::PostgresConfig, error::Result, grpc::Api, metrics, retention};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use troupe_domain::Error;
use troupe_proto::checkpoint::v1::checkpoint_store_server::CheckpointStoreServer;
use troupe_service_kit::{Dependency, Tasks, config::accept};
use troupe_wire::MAX_MESSAGE;

/// How long [`Service::drain`] waits for accepted appends.
const DRAIN: Duration = Duration::from_secs(10);

/// Where the journal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// In a file, which is created with its folder when it does not exist.
    Sqlite(PathBuf),
    /// In the database of these settings, together with other replicas of the service.
    Postgres(PostgresConfig),
    /// In memory: gone with the process.
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
    journal: Arc<dyn Journal>,
    api: Api,
    backend: &'static str,
    closing: CancellationToken,
}

impl Service {
    /// Opens the journal and starts retention on `tasks`.
    pub async fn start(config: Config, backend: Backend, tasks: &Tasks) -> anyhow::Result<Self> {
        Self::start_at(config, backend, Clock::system(), tasks).await
    }

    /// The same with another clock.
    pub async fn start_at(config: Config, backend: Backend, clock: Clock, tasks: &Tasks) -> anyhow::Result<Self> {
        accept("checkpoint", config.validate())?;
        metrics::describe();
        let (journal, name): (Arc<dyn Journal>, _) = match backend {
            Backend::Memory => (Arc::new(Memory::new(config.snapshots_kept, clock.clone())), "memory"),
            Backend::Sqlite(path) => {
                let (config, clock) = (config.clone(), clock.clone());
                let opened = tokio::task::spawn_blocking(move || Sqlite::open(&path, &config, clock)).await?;
                (Arc::new(opened?), "sqlite")
            }
            Backend::Postgres(database) => {
                (Arc::new(Postgres::open(&database, config.snapshots_kept, clock.clone(), tasks).await?), "postgres")
            }
        };
        if config.prune_interval_seconds > 0 {
            tasks.spawn("retention", retention::run(Arc::clone(&journal), config.clone(), clock.clone(), tasks.clone()));
        }
        let closing = CancellationToken::new();
        let api = Api::new(Arc::clone(&journal), config, clock, closing.clone());
        Ok(Self { journal, api, backend: name, closing })
    }

    /// Its gRPC server.
    pub fn routes(&self) -> Routes {
        let server = CheckpointStoreServer::new(self.api.clone());
        Routes::new(server.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
    }

    /// The journal itself, for tests and tools of this process.
    pub fn journal(&self) -> Arc<dyn Journal> {
        Arc::clone(&self.journal)
    }

    /// Whether the journal can be read and written.
    pub async fn health(&self) -> Vec<Dependency> {
        let dependency = match self.journal.probe().await {
            Ok(()) => Dependency::ok(self.backend),
            Err(error) => Dependency::failing(self.backend, error.to_string()),
        };
        vec![dependency]
    }

    /// Refuses new appends, ends the append streams, and waits until everything accepted is durable, at most ten seconds. Drain the
    /// executors first: they write until they are done.
    pub async fn drain(&self) {
        self.closing.cancel();
        match tokio::time::timeout(DRAIN, self.journal.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "journal not flushed at the end"),
            Err(_) => tracing::warn!("journal still busy at the end of the drain"),
        }
    }
}

/// What the API answers while the service drains.
pub(crate) fn refuse_when_closing(closing: &CancellationToken) -> Result<()> {
    if !closing.is_cancelled() {
        return Ok(());
    }
    let mut error = Error::unavailable("the checkpoint service is stopping").with_help("try again: another instance takes over");
    error.retry_after_ms = Some(500);
    Err(error.into())
}
