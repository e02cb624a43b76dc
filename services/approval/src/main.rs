//! The approval service as a process of its own.

use troupe_approval::{Backend, Config, Dependencies, Service};
use troupe_service_kit::process::{self, Context, Running};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    process::run("approval", 50065, start).await
}

async fn start(config: Config, context: Context) -> anyhow::Result<Running> {
    let backend = Backend::Sqlite(context.process.data.join("approval.db"));
    let dependencies = Dependencies { executor: context.process.addresses.connect("executor")? };
    let service = Service::start(config, backend, dependencies, &context.tasks).await?;
    let routes = service.routes();
    Ok(Running::new(service, routes, |s| async move { s.health().await }, |s| async move { s.drain().await }))
}
