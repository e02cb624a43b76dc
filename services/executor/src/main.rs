//! The executor service as a process of its own.

use troupe_executor::{Config, Dependencies, Service};
use troupe_service_kit::process::{self, Context, Running};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    process::run("executor", 50063, start).await
}

async fn start(config: Config, context: Context) -> anyhow::Result<Running> {
    let to = |service| context.process.addresses.connect(service);
    let dependencies = Dependencies { checkpoint: to("checkpoint")?, scheduler: to("scheduler")?, approval: to("approval")? };
    let service = Service::start(config, dependencies, &context.tasks).await?;
    let routes = service.routes();
    Ok(Running::new(service, routes, |s| async move { s.health().await }, |s| async move { s.drain().await }))
}
