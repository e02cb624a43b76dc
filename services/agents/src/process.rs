//! The built-in worker as a process of its own.

use crate::{Config, Dependencies, Service};
use troupe_service_kit::process::{self, Context, Launch, Running};

/// The port of its gRPC health where nothing else is said.
const PORT: u16 = 50066;

/// Runs until the process is told to stop.
pub async fn run(launch: Launch) -> anyhow::Result<()> {
    process::run(launch, "agents", PORT, start).await
}

async fn start(config: Config, context: Context) -> anyhow::Result<Running> {
    let to = |service| context.process.addresses.connect(service);
    let dependencies = Dependencies { scheduler: to("scheduler")?, registry: to("registry")? };
    let service = Service::start(config, dependencies, &context.tasks).await?;
    let routes = service.routes();
    Ok(Running::new(service, routes, |s| async move { s.health().await }, |s| async move { s.drain().await }))
}
