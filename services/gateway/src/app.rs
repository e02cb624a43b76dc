//! The service object and what its handlers share.

use crate::{Config, backends::Backends, idempotency::Replays, metrics, openapi, public, routes};
use axum::Router;
use std::{
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;
use troupe_service_kit::{Dependency, Ops, Tasks, config::accept};
use troupe_wire::Transport;

/// How long a drain waits for event streams to end.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// The services behind the gateway, and what its host knows.
#[derive(Clone)]
pub struct Dependencies {
    pub executor: Transport,
    pub scheduler: Transport,
    pub registry: Transport,
    pub approval: Transport,
    /// Health of what else runs in the process, and the text of its metrics.
    pub ops: Ops,
}

/// The gateway. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    app: App,
    router: Router,
    routes: Routes,
}

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Shared>);

/// The inside of [`App`].
pub struct Shared {
    pub config: Config,
    pub backends: Backends,
    pub ops: Ops,
    pub replays: Replays,
    /// Event streams that may still be opened.
    pub streams: Arc<Semaphore>,
    /// Cancelled when event streams must end.
    pub stopping: CancellationToken,
    pub tasks: Tasks,
    pub(crate) health: HealthReporter,
    openapi: OnceLock<String>,
}

impl Deref for App {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("config", &self.config).finish_non_exhaustive()
    }
}

impl App {
    pub fn is_draining(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// The OpenAPI document.
    pub fn openapi(&self) -> &str {
        self.openapi.get_or_init(|| openapi::document().to_string())
    }

    /// The services behind, and what the host adds.
    pub async fn health(&self) -> Vec<Dependency> {
        let (mut all, host) = tokio::join!(self.backends.health(), (self.ops.health)());
        all.extend(host);
        // The host may name what the gateway asked already: the failing answer counts.
        all.sort_by(|a, b| (&a.name, a.ok).cmp(&(&b.name, b.ok)));
        all.dedup_by(|a, b| a.name == b.name);
        all
    }
}

impl Service {
    /// Checks the settings and builds the routes. Nothing listens yet: see [`Service::serve_http`] and [`Service::serve_grpc`].
    pub async fn start(config: Config, dependencies: Dependencies, tasks: &Tasks) -> anyhow::Result<Self> {
        accept("gateway", config.validate())?;
        metrics::describe();
        let Dependencies { executor, scheduler, registry, approval, ops } = dependencies;
        let app = App(Arc::new(Shared {
            backends: Backends::new(&executor, &scheduler, &registry, &approval),
            ops,
            replays: Replays::new(config.idempotency_entries),
            streams: Arc::new(Semaphore::new(config.max_streams)),
            stopping: tasks.token().child_token(),
            tasks: tasks.clone(),
            health: HealthReporter::new(),
            openapi: OnceLock::new(),
            config,
        }));
        let routes = public::routes(&executor, &scheduler, &registry, &approval);
        let router = routes::router(app.clone());
        tasks.spawn("gateway health", public::report_health(app.clone()));
        Ok(Self { app, router, routes })
    }

    /// The HTTP API.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// The public gRPC methods, forwarded to their services; without reflection and health, which [`Service::serve_grpc`] adds.
    pub fn routes(&self) -> Routes {
        self.routes.clone()
    }

    /// State of each service behind.
    pub async fn health(&self) -> Vec<Dependency> {
        self.app.backends.health().await
    }

    /// Refuses new requests, ends event streams (their clients resume elsewhere) and waits for them, at most five seconds.
    pub async fn drain(&self) {
        self.app.stopping.cancel();
        let all = u32::try_from(self.app.config.max_streams).unwrap_or(u32::MAX);
        if tokio::time::timeout(DRAIN_LIMIT, self.app.streams.acquire_many(all)).await.is_err() {
            tracing::warn!("some event streams did not end in time");
        }
    }

    pub(crate) fn app(&self) -> &App {
        &self.app
    }
}
