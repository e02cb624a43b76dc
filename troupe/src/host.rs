//! All services in one process: each one's clients are built directly on the others' server objects.

use crate::settings::Settings;
use anyhow::Context;
use std::{
    fs::{self, File, TryLockError},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};
use tokio::net::TcpListener;
use troupe_domain::Error;
use troupe_service_kit::{Ops, Tasks, serve};
use troupe_wire::{LateTransport, Transport};

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
    _lock: Option<File>,
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
        let lock = if settings.memory { None } else { Some(lock_data(&settings.data)?) };
        let data = match (settings.memory, settings.checkpoint.postgres.url.is_empty()) {
            (true, _) => "in memory".to_owned(),
            (false, true) => settings.data.display().to_string(),
            (false, false) => format!("{}, the journal in PostgreSQL", settings.data.display()),
        };
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
        let file = |name: &str| (!settings.memory).then(|| settings.data.join(name));
        let (journal, catalogue, inbox) = (file("journal.db"), file("registry.db"), file("approval.db"));
        let in_database = |path| troupe_checkpoint::Backend::database_or(&settings.checkpoint, || path);
        let checkpoint_backend = journal.map_or(troupe_checkpoint::Backend::Memory, in_database);
        let registry_backend = catalogue.map_or(troupe_registry::Backend::Memory, troupe_registry::Backend::Sqlite);
        let approval_backend = inbox.map_or(troupe_approval::Backend::Memory, troupe_approval::Backend::Sqlite);

        let late_executor = LateTransport::default();
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
        };
        let executor = troupe_executor::Service::start(settings.executor, executor_needs, tasks).await?;
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

async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| {
        let help = format!("free the address, or choose another with --{setting} or gateway.{setting}");
        Error::unavailable(format!("cannot listen on {address}: {e}")).with_help(help).into()
    })
}

fn lock_data(folder: &Path) -> anyhow::Result<File> {
    let shown = folder.display();
    let unusable = |what: &str, e: std::io::Error| {
        Error::precondition(format!("cannot {what} the data folder {shown}: {e}"))
            .with_help("choose another with --data or the setting `data`, or mend its permissions")
    };
    fs::create_dir_all(folder).map_err(|e| unusable("make", e))?;
    let file = File::create(folder.join("lock")).map_err(|e| unusable("write to", e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let help = "stop that process, talk to it with --server, or use another folder with --data";
            Err(Error::precondition(format!("another process uses the data folder {shown}")).with_help(help).into())
        }
        Err(TryLockError::Error(e)) => Err(e).with_context(|| format!("cannot lock the data folder {shown}")),
    }
}
