//! The approval service: durable requests for a person's decision, and the delivery of what was decided.
//!
//! Reading order: [`approval`] (what a request is), [`request`] (taking one in, the digest), [`decide`] (a person's decision),
//! [`expire`] (time's), [`store`] (where they are kept), `desk` (the operations), `deliver` (the outbox), `check` (what runs no
//! longer wait for), `grpc` (the face).

pub mod approval;
mod check;
pub mod clock;
pub mod config;
pub mod decide;
mod deliver;
mod desk;
pub mod expire;
mod grpc;
pub mod metrics;
pub mod process;
pub mod request;
pub mod store;

pub use config::Config;

use clock::{Clock, SystemClock};
use desk::Desk;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use store::{Store, memory::MemoryStore, postgres::PostgresStore, sqlite::SqliteStore};
use tokio::{sync::Notify, task::JoinHandle};
use troupe_domain::Error;
use troupe_proto::{
    approval::v1::approval_service_server::ApprovalServiceServer,
    executor::v1::{effect_service_client::EffectServiceClient, run_service_client::RunServiceClient},
};
use troupe_service_kit::{Dependency, Tasks, config::accept};
use troupe_wire::{MAX_MESSAGE, Transport};

/// How long [`Service::drain`] waits at most.
const DRAIN: Duration = Duration::from_secs(15);

/// Where approvals are kept.
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

/// The services that this one calls.
#[derive(Clone)]
pub struct Dependencies {
    /// Serves `troupe.executor.v1.EffectService` and `RunService`.
    pub executor: Transport,
}

/// The running service. Clones share it.
#[derive(Clone)]
pub struct Service {
    desk: Arc<Desk>,
    loops: Arc<Mutex<Vec<JoinHandle<()>>>>,
    backend: &'static str,
}

impl Service {
    /// Opens the store and starts the loops that expire requests and deliver outcomes. Fails on bad settings or a store that
    /// cannot be opened.
    pub async fn start(config: Config, backend: Backend, dependencies: Dependencies, tasks: &Tasks) -> anyhow::Result<Self> {
        Self::start_at(config, backend, dependencies, Arc::new(SystemClock), tasks).await
    }

    /// [`Service::start`] with a clock of the caller's.
    pub async fn start_at(
        config: Config,
        backend: Backend,
        dependencies: Dependencies,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        accept("approval", config.validate())?;
        let (backend, store): (_, Arc<dyn Store>) = match backend {
            Backend::Memory => ("memory", Arc::new(MemoryStore::default())),
            Backend::Sqlite(path) => ("sqlite", Arc::new(SqliteStore::open(path).await?)),
            Backend::Postgres(database) => ("postgres", Arc::new(PostgresStore::open(&database, tasks).await?)),
        };
        metrics::describe();
        #[expect(clippy::cast_precision_loss, reason = "a count of rows is far below 2^52")]
        ::metrics::gauge!(metrics::PENDING).set(store.count_pending().await? as f64);
        store.release_deliveries(clock.now()).await?;
        let desk = Arc::new(Desk {
            config,
            store,
            clock,
            runs: RunServiceClient::new(dependencies.executor.clone())
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            executor: EffectServiceClient::new(dependencies.executor)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            stopping: tasks.token().child_token(),
            expiry_changed: Notify::new(),
            outbox_changed: Notify::new(),
        });
        let loops = vec![
            tasks.spawn("approval-expiry", expire::run(Arc::clone(&desk))),
            tasks.spawn("approval-delivery", deliver::run(Arc::clone(&desk))),
            tasks.spawn("approval-check", check::run(Arc::clone(&desk))),
        ];
        Ok(Self { desk, loops: Arc::new(Mutex::new(loops)), backend })
    }

    /// All gRPC servers of this service.
    pub fn routes(&self) -> tonic::service::Routes {
        let server = ApprovalServiceServer::new(grpc::Api(Arc::clone(&self.desk)));
        tonic::service::Routes::new(server.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
    }

    /// Whether the store works. An executor that is away holds up deliveries, not this service.
    pub async fn health(&self) -> Vec<Dependency> {
        vec![match self.desk.store.check().await {
            Ok(()) => Dependency::ok(self.backend),
            Err(error) => Dependency::failing(self.backend, error.message),
        }]
    }

    /// Refuses new writes, lets deliveries on their way finish (at most 15 seconds), and ends the loops.
    pub async fn drain(&self) {
        self.desk.stopping.cancel();
        let loops = std::mem::take(&mut *self.loops.lock().unwrap_or_else(PoisonError::into_inner));
        if tokio::time::timeout(DRAIN, futures::future::join_all(loops)).await.is_err() {
            tracing::warn!("deliveries did not end in time; they are delivered again after the next start");
        }
    }
}
