//! All services in one process: each one's clients are built directly on the others' server objects.

use crate::settings::Settings;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::net::TcpListener;
use troupe_domain::Error;
use troupe_service_kit::{Ops, Tasks, folder, serve};
use troupe_wire::{Connector, LateTransport, Transport};

/// A free port on loopback.
pub(crate) const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Renders the process's metrics.
pub(crate) type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// For processes that nobody scrapes.
pub(crate) fn no_metrics() -> Metrics {
    Arc::new(String::new)
}

/// The running services.
pub(crate) struct Host {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    data: String,
    services: Services,
    gateway: troupe_gateway::Service,
    /// Held for the life of the process: two processes must not open one data folder.
    _lock: Option<folder::Lock>,
}

#[derive(Clone)]
struct Services {
    checkpoint: troupe_checkpoint::Service,
    registry: troupe_registry::Service,
    scheduler: troupe_scheduler::Service,
    approval: troupe_approval::Service,
    executor: troupe_executor::Service,
    agents: troupe_agents::Service,
}

impl Host {
    /// Starts everything; answers when the ports are open.
    pub(crate) async fn start(settings: Settings, metrics: Metrics, tasks: &Tasks) -> anyhow::Result<Self> {
        let lock = if settings.memory { None } else { Some(folder::lock(&settings.data)?) };
        let data = if settings.memory { "in memory".to_owned() } else { place_of_data(&settings) };
        let (http, grpc) = (bind(settings.gateway.http, "http").await?, bind(settings.gateway.grpc, "grpc").await?);
        let (http_address, grpc_address) = (http.local_addr()?, grpc.local_addr()?);
        let gateway_config = settings.gateway.clone();
        let services = Services::start(settings, tasks).await?;
        let ops = Ops { health: services.health(), metrics };
        let gateway = troupe_gateway::Service::start(gateway_config, services.for_gateway(ops), tasks).await?;
        let (http_gateway, grpc_gateway) = (gateway.clone(), gateway.clone());
        serve::spawn(tasks, "http", async move { http_gateway.serve_http(http).await });
        serve::spawn(tasks, "grpc", async move { grpc_gateway.serve_grpc(grpc).await });
        Ok(Self { http: http_address, grpc: grpc_address, data, services, gateway, _lock: lock })
    }

    /// The public gRPC services, without a socket.
    pub(crate) fn transport(&self) -> Transport {
        Transport::embedded(self.gateway.routes())
    }

    /// Where the state is, for people.
    pub(crate) fn data(&self) -> &str {
        &self.data
    }

    /// Takes nothing new, lets what runs finish, hands over the rest.
    pub(crate) async fn drain(&self) {
        self.gateway.drain().await;
        self.services.agents.drain().await;
        self.services.scheduler.drain().await;
        self.services.executor.drain().await;
        self.services.approval.drain().await;
        self.services.registry.drain().await;
        self.services.checkpoint.drain().await;
    }
}

impl Services {
    async fn start(settings: Settings, tasks: &Tasks) -> anyhow::Result<Self> {
        let file = |name: &str| Ok(settings.data.join(name));
        let (checkpoint_backend, registry_backend, approval_backend) = if settings.memory {
            (troupe_checkpoint::Backend::Memory, troupe_registry::Backend::Memory, troupe_approval::Backend::Memory)
        } else {
            (
                troupe_checkpoint::Backend::database_or(&settings.checkpoint, || file("journal.db"))?,
                troupe_registry::Backend::database_or(&settings.registry, || file("registry.db"))?,
                troupe_approval::Backend::database_or(&settings.approval, || file("approval.db"))?,
            )
        };

        let late_executor = LateTransport::default();
        // A database may have others at work on it; a file and memory are this process's alone.
        let alone = !matches!(checkpoint_backend, troupe_checkpoint::Backend::Postgres(_));
        let checkpoint = troupe_checkpoint::Service::start(settings.checkpoint, checkpoint_backend, tasks).await?;
        let registry = troupe_registry::Service::start(settings.registry, registry_backend, tasks).await?;
        let to_registry = Transport::embedded(registry.routes());
        let scheduler_needs = troupe_scheduler::Dependencies { executor: late_executor.transport(), registry: to_registry.clone() };
        let scheduler = troupe_scheduler::Service::start(settings.scheduler, scheduler_needs, tasks).await?;
        let approval_needs = troupe_approval::Dependencies { executor: late_executor.transport() };
        let approval = troupe_approval::Service::start(settings.approval, approval_backend, approval_needs, tasks).await?;
        let executor_needs = troupe_executor::Dependencies {
            checkpoint: Transport::embedded(checkpoint.routes()),
            scheduler: Transport::embedded(scheduler.routes()),
            approval: Transport::embedded(approval.routes()),
            peers: Connector::sockets(),
            alone,
        };
        // Its gateway is no way for other executors: it has the whole journal to itself.
        let executor_config = troupe_executor::Config { address: String::new(), ..settings.executor };
        let executor = troupe_executor::Service::start(executor_config, executor_needs, tasks).await?;
        late_executor.bind(Transport::embedded(executor.routes()));
        let agents_needs = troupe_agents::Dependencies { scheduler: Transport::embedded(scheduler.routes()), registry: to_registry };
        let agents = troupe_agents::Service::start(settings.agents, agents_needs, tasks).await?;
        Ok(Self { checkpoint, registry, scheduler, approval, executor, agents })
    }

    fn for_gateway(&self, ops: Ops) -> troupe_gateway::Dependencies {
        troupe_gateway::Dependencies {
            executor: Transport::embedded(self.executor.routes()),
            scheduler: Transport::embedded(self.scheduler.routes()),
            registry: Transport::embedded(self.registry.routes()),
            approval: Transport::embedded(self.approval.routes()),
            ops,
        }
    }

    fn health(&self) -> troupe_service_kit::Health {
        let all = self.clone();
        Arc::new(move || {
            let all = all.clone();
            Box::pin(async move {
                let mut out = all.checkpoint.health().await;
                out.extend(all.registry.health().await);
                out.extend(all.scheduler.health().await);
                out.extend(all.approval.health().await);
                out.extend(all.executor.health().await);
                out.extend(all.agents.health().await);
                out
            })
        })
    }
}

/// The folder, and what is in a database instead.
fn place_of_data(settings: &Settings) -> String {
    let databases =
        [("journal", &settings.checkpoint.postgres), ("agents", &settings.registry.postgres), ("approvals", &settings.approval.postgres)];
    let moved: Vec<&str> = databases.iter().filter(|(_, database)| !database.url.is_empty()).map(|(what, _)| *what).collect();
    let folder = settings.data.display();
    if moved.is_empty() { folder.to_string() } else { format!("{folder}, {} in PostgreSQL", moved.join(", ")) }
}

async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| {
        let help = format!("free the address, or choose another with --{setting} or gateway.{setting}");
        Error::unavailable(format!("cannot listen on {address}: {e}")).with_help(help).into()
    })
}
