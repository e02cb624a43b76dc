//! The checkpoint service as a process of its own.

use crate::{Backend, Config, Service};
use troupe_service_kit::process::{self, Context, Launch, Running};

/// The gRPC port where nothing else is said.
const PORT: u16 = 50064;

/// Runs until the process is told to stop.
pub async fn run(launch: Launch) -> anyhow::Result<()> {
    process::run(launch, "checkpoint", PORT, start).await
}

async fn start(config: Config, context: Context) -> anyhow::Result<Running> {
    let backend = Backend::database_or(&config, || context.database("journal.db"))?;
    let service = Service::start(config, backend, &context.tasks).await?;
    let routes = service.routes();
    Ok(Running::new(service, routes, |s| async move { s.health().await }, |s| async move { s.drain().await }))
}
