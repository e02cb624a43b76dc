//! One service as a process of its own: settings, telemetry, gRPC, `/health` and `/metrics`, and a designed shutdown.

use crate::{
    Dependency, Health, Ops, Tasks, Telemetry,
    config::{self, Layers},
    folder::{self, Lock},
    main_loop, serve, telemetry,
};
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::net::TcpListener;
use tonic::service::Routes;
use troupe_domain::Error;
use troupe_wire::Transport;

/// `/health`, `/ready`, `/live` and `/metrics` are on the gRPC port plus this.
const OPS_OFFSET: u16 = 1000;

/// `[process]`: what a service's own process needs besides the service's section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The IP address to listen on. Services have no authentication of their own: keep them on loopback or a private network.
    pub host: String,
    /// The folder of the service's database.
    pub data: PathBuf,
    /// How long a stopping process may take to finish what runs, in seconds, whatever the service allows itself (`scheduler.drain`,
    /// `agents.drain_timeout`). Default 30.
    pub drain_seconds: u64,
    /// Where the other services are.
    pub addresses: Addresses,
}

impl Default for Config {
    fn default() -> Self {
        Self { host: "127.0.0.1".to_owned(), data: PathBuf::from(".troupe"), drain_seconds: 30, addresses: Addresses::default() }
    }
}

/// `[process.addresses]`: gRPC URLs; of a service with several replicas all of them, with commas between: `"http://a:50061,http://b:50061"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Addresses {
    pub registry: String,
    pub scheduler: String,
    pub executor: String,
    pub checkpoint: String,
    pub approval: String,
}

impl Default for Addresses {
    fn default() -> Self {
        let local = |port: u16| format!("http://127.0.0.1:{port}");
        Self { registry: local(50061), scheduler: local(50062), executor: local(50063), checkpoint: local(50064), approval: local(50065) }
    }
}

impl Addresses {
    /// A client's transport to one of them, or to all its replicas; the setting is named when it is no URL.
    pub fn connect(&self, service: &str) -> anyhow::Result<Transport> {
        let url = match service {
            "registry" => &self.registry,
            "scheduler" => &self.scheduler,
            "executor" => &self.executor,
            "checkpoint" => &self.checkpoint,
            _ => &self.approval,
        };
        Transport::connect(url).map_err(|e| Error::invalid_field(format!("process.addresses.{service}"), e.message).into())
    }
}

/// A service with gRPC servers, started.
pub struct Running {
    pub routes: Routes,
    pub health: Health,
    pub drain: BoxFuture<'static, ()>,
}

impl Running {
    /// What a service object offers: its routes, the state of its dependencies, and how it ends.
    pub fn new<S, H, D>(service: S, routes: Routes, health: impl Fn(S) -> H + Send + Sync + 'static, drain: impl FnOnce(S) -> D) -> Self
    where
        S: Clone + Send + Sync + 'static,
        H: Future<Output = Vec<Dependency>> + Send + 'static,
        D: Future<Output = ()> + Send + 'static,
    {
        let drain = Box::pin(drain(service.clone()));
        Self { routes, health: Arc::new(move || Box::pin(health(service.clone()))), drain }
    }
}

/// Where a process finds its settings, and the one of its own.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// The settings file; `None`: `troupe.toml`, if it is there.
    pub file: Option<PathBuf>,
    /// The overlay beside the file.
    pub environment: Option<String>,
    /// The gRPC port; `None`: the service's default.
    pub port: Option<u16>,
}

impl Launch {
    /// `TROUPE_CONFIG`, `TROUPE_ENVIRONMENT` and `TROUPE_PORT`.
    pub fn from_env() -> Result<Self, Error> {
        let variable = |name| std::env::var(name).ok();
        let port =
            variable("TROUPE_PORT").map(|text| text.parse().map_err(|_| Error::invalid(format!("TROUPE_PORT: '{text}' is no port"))));
        Ok(Self {
            file: variable("TROUPE_CONFIG").map(PathBuf::from),
            environment: variable("TROUPE_ENVIRONMENT"),
            port: port.transpose()?,
        })
    }

    fn layers(&self) -> Result<Layers, Error> {
        let file = self.file.as_deref().unwrap_or(Path::new("troupe.toml"));
        Ok(Layers::new().file(file, self.environment.as_deref(), self.file.is_some())?.env(std::env::vars()))
    }
}

/// What a service's start function gets.
pub struct Context {
    pub process: Config,
    /// Where others reach this process's gRPC servers (`http://host:port`), as far as it can tell; empty for one that opens its ports itself.
    pub address: String,
    pub tasks: Tasks,
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Held for the life of the process.
    locks: Arc<Mutex<Vec<Lock>>>,
}

impl Context {
    /// The path of a database of the service in the data folder, which is this process's until it ends.
    ///
    /// # Errors
    /// Another process has it, or the folder cannot be made.
    pub fn database(&self, name: &str) -> Result<PathBuf, Error> {
        let lock = folder::lock_file(&self.process.data, name)?;
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
        Ok(self.process.data.join(name))
    }
}

/// Runs a service with gRPC servers until it is told to stop. `name` is its section; `port` the port where nothing else is said. Health and
/// metrics are served over HTTP on that port plus 1000.
pub async fn run<C, F, Fut>(launch: Launch, name: &'static str, port: u16, start: F) -> anyhow::Result<()>
where
    C: DeserializeOwned + JsonSchema + Default,
    F: FnOnce(C, Context) -> Fut,
    Fut: Future<Output = anyhow::Result<Running>>,
{
    let port = launch.port.unwrap_or(port);
    host(launch, name, async |service, mut context: Context| {
        let (tasks, metrics) = (context.tasks.clone(), Arc::clone(&context.metrics));
        let address: SocketAddr =
            format!("{}:{port}", context.process.host).parse().map_err(|_| config::invalid_host(&context.process.host))?;
        let grpc = bind(address).await?;
        context.address = format!("http://{address}");
        let http = bind(SocketAddr::new(address.ip(), port.saturating_add(OPS_OFFSET))).await?;
        let running = start(service, context).await?;
        let ops = Ops { health: running.health, metrics };
        serve::spawn(&tasks, "grpc", serve::grpc(grpc, running.routes, tasks.clone()));
        serve::spawn(&tasks, "http", serve::http(http, ops.router(), tasks.clone()));
        tracing::info!(target: "troupe", service = name, address = %address, "ready");
        Ok(running.drain)
    })
    .await
}

/// Runs a service that opens its ports itself. `start` answers with what drains it.
pub async fn host<C, F>(launch: Launch, name: &'static str, start: F) -> anyhow::Result<()>
where
    C: DeserializeOwned + JsonSchema + Default,
    F: AsyncFnOnce(C, Context) -> anyhow::Result<BoxFuture<'static, ()>>,
{
    let mut layers = launch.layers()?;
    let (service, process, logs): (C, Config, telemetry::Config) =
        (layers.section(name)?, layers.section("process")?, layers.section("telemetry")?);
    let telemetry = Telemetry::init(name, &logs)?;
    let (tasks, metrics) = (Tasks::new(), telemetry.metrics());
    let limit = Duration::from_secs(process.drain_seconds);
    let locks = Arc::<Mutex<Vec<Lock>>>::default();
    let context = Context { process, address: String::new(), tasks: tasks.clone(), metrics, locks: Arc::clone(&locks) };
    let drain = start(service, context).await?;
    let outcome = main_loop::until_stopped(&tasks, limit, drain).await;
    telemetry.shutdown().await;
    drop(locks);
    outcome
}

/// Opens a port; the error names it.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|e| Error::unavailable(format!("cannot listen on {address}: {e}")))
}
