//! The scheduler service as a process of its own.

use troupe_scheduler::{Config, Dependencies, Service};
use troupe_service_kit::process::{self, Context, Running};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    process::run("scheduler", 50062, start).await
}

async fn start(config: Config, context: Context) -> anyhow::Result<Running> {
    let to = |service| context.process.addresses.connect(service);
    let dependencies = Dependencies { executor: to("executor")?, registry: to("registry")? };
    let service = Service::start(config, dependencies, &context.tasks).await?;
    let routes = service.routes();
    Ok(Running::new(service, routes, |s| async move { s.health().await }, |s| async move { s.drain().await }))
}
