//! The gateway as a process of its own.

use crate::{Config, Dependencies, Service};
use futures::future::BoxFuture;
use std::sync::Arc;
use troupe_service_kit::{
    Ops,
    process::{self, Context, Launch},
    serve,
};

/// Runs until the process is told to stop. Its ports are `gateway.http` and `gateway.grpc`.
pub async fn run(launch: Launch) -> anyhow::Result<()> {
    process::host(launch, "gateway", start).await
}

async fn start(config: Config, context: Context) -> anyhow::Result<BoxFuture<'static, ()>> {
    let to = |service| context.process.addresses.connect(service);
    let ops = Ops { health: Arc::new(|| Box::pin(async { Vec::new() })), metrics: context.metrics };
    let dependencies =
        Dependencies { executor: to("executor")?, scheduler: to("scheduler")?, registry: to("registry")?, approval: to("approval")?, ops };
    let addresses = (config.http, config.grpc);
    let service = Service::start(config, dependencies, &context.tasks).await?;
    let (http, grpc) = (process::bind(addresses.0).await?, process::bind(addresses.1).await?);
    let (for_http, for_grpc) = (service.clone(), service.clone());
    serve::spawn(&context.tasks, "http", async move { for_http.serve_http(http).await });
    serve::spawn(&context.tasks, "grpc", async move { for_grpc.serve_grpc(grpc).await });
    tracing::info!(target: "troupe", service = "gateway", http = %addresses.0, grpc = %addresses.1, "ready");
    Ok(Box::pin(async move { service.drain().await }))
}
