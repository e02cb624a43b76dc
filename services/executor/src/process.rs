//! The executor service as a process of its own.

use crate::{Config, Dependencies, Service};
use troupe_service_kit::process::{self, Context, Launch, Running};
use troupe_wire::Connector;

/// The gRPC port where nothing else is said.
const PORT: u16 = 50063;

/// Runs until the process is told to stop.
pub async fn run(launch: Launch) -> anyhow::Result<()> {
    process::run(launch, "executor", PORT, start).await
}

async fn start(mut config: Config, context: Context) -> anyhow::Result<Running> {
    let to = |service| context.process.addresses.connect(service);
    let dependencies = Dependencies {
        checkpoint: to("checkpoint")?,
        scheduler: to("scheduler")?,
        approval: to("approval")?,
        peers: Connector::sockets(),
        alone: false,
    };
    // Where it listens; on all interfaces that is no address for others, and the settings are refused.
    if config.address.is_empty() {
        config.address.clone_from(&context.address);
    }
    let service = Service::start(config, dependencies, &context.tasks).await?;
    let routes = service.routes();
    Ok(Running::new(service, routes, |s| async move { s.health().await }, |s| async move { s.drain().await }))
}
