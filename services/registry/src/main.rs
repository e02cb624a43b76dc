//! The registry service as a process of its own.

use troupe_registry::{Backend, Config, Service};
use troupe_service_kit::process::{self, Context, Running};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    process::run("registry", 50061, start).await
}

async fn start(config: Config, context: Context) -> anyhow::Result<Running> {
    let backend = Backend::Sqlite(context.process.data.join("registry.db"));
    let service = Service::start(config, backend, &context.tasks).await?;
    let routes = service.routes();
    Ok(Running::new(service, routes, |s| async move { s.health().await }, |s| async move { s.drain().await }))
}
