//! One service as a process of its own: settings, telemetry, gRPC, `/health` and `/metrics`, and a designed shutdown.

use crate::{
    Dependency, Health, Ops, Tasks, Telemetry,
    config::{self, Layers},
    main_loop, serve, telemetry,
};
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpListener;
use tonic::service::Routes;
use troupe_domain::Error;
use troupe_wire::Transport;

/// `/health`, `/ready`, `/live` and `/metrics` are on the gRPC port plus this.
const OPS_OFFSET: u16 = 1000;

/// `[process]`: what a service's own process needs besides the service's section.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The IP address to listen on. Services have no authentication of their own: keep them on loopback or a private network.
    pub host: String,
    /// The folder of the service's database.
    pub data: PathBuf,
    /// How long a stopping process may take to finish what runs, in seconds.
    pub drain_seconds: u64,
    /// Where the other services are.
    pub addresses: Addresses,
}

impl Default for Config {
    fn default() -> Self {
        Self { host: "127.0.0.1".to_owned(), data: PathBuf::from(".troupe"), drain_seconds: 10, addresses: Addresses::default() }
    }
}

/// `[process.addresses]`: gRPC URLs.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
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
    /// A client's transport to one of them; the setting is named when it is no URL.
    pub fn connect(&self, service: &str) -> anyhow::Result<Transport> {
        let url = match service {
            "registry" => &self.registry,
            "scheduler" => &self.scheduler,
            "executor" => &self.executor,
            "checkpoint" => &self.checkpoint,
            _ => &self.approval,
        };
        Transport::connect(url)
            .map_err(|e| Error::invalid_field(format!("process.addresses.{service}"), format!("'{url}' is no URL: {e}")).into())
    }
}

/// A service that has been started.
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

/// What a service's start function gets.
pub struct Context {
    pub process: Config,
    pub tasks: Tasks,
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Runs a service until it is told to stop. `name` is its section; `port` the default port, which `TROUPE_PORT` overrides.
pub async fn run<C, F, Fut>(name: &'static str, port: u16, start: F) -> anyhow::Result<()>
where
    C: DeserializeOwned + JsonSchema + Default,
    F: FnOnce(C, Context) -> Fut,
    Fut: Future<Output = anyhow::Result<Running>>,
{
    let file = std::env::var("TROUPE_CONFIG").unwrap_or_else(|_| "troupe.toml".to_owned());
    let environment = std::env::var("TROUPE_ENVIRONMENT").ok();
    let mut layers = Layers::new().file(Path::new(&file), environment.as_deref(), false)?.env(std::env::vars());
    let (service, process, logs): (C, Config, telemetry::Config) =
        (layers.section(name)?, layers.section("process")?, layers.section("telemetry")?);
    let port =
        std::env::var("TROUPE_PORT").map_or(Ok(port), |text| text.parse()).map_err(|_| Error::invalid("TROUPE_PORT is not a port"))?;
    let telemetry = Telemetry::init(name, &logs)?;
    let (tasks, metrics) = (Tasks::new(), telemetry.metrics());
    let metrics: Arc<dyn Fn() -> String + Send + Sync> = Arc::new(move || metrics.render());
    let drain = Duration::from_secs(process.drain_seconds);

    let address: SocketAddr = format!("{}:{port}", process.host).parse().map_err(|_| config::invalid_host(&process.host))?;
    let grpc = TcpListener::bind(address).await?;
    let http = TcpListener::bind(SocketAddr::new(address.ip(), port.saturating_add(OPS_OFFSET))).await?;
    let running = start(service, Context { process, tasks: tasks.clone(), metrics: Arc::clone(&metrics) }).await?;
    let ops = Ops { health: running.health, metrics };
    serve::spawn(&tasks, "grpc", serve::grpc(grpc, running.routes, tasks.clone()));
    serve::spawn(&tasks, "http", serve::http(http, ops.router(), tasks.clone()));
    tracing::info!(target: "troupe", service = name, address = %address, "ready");
    let outcome = main_loop::until_stopped(&tasks, drain, running.drain).await;
    telemetry.shutdown().await;
    outcome
}
