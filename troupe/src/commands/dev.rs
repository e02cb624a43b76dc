//! `troupe dev`: all services in this process.

use crate::{
    cli::{Dev, Globals},
    host::Host,
    http::Api,
    output, settings, sources,
};
use std::time::Duration;
use troupe_service_kit::{Tasks, Telemetry, main_loop};

pub(crate) async fn execute(globals: &Globals, args: Dev) -> anyhow::Result<()> {
    let sources = sources::collect(&args.apply)?;
    let flags = settings::Flags {
        data: args.data,
        http: args.http,
        grpc: args.grpc,
        memory: args.memory,
        postgres: args.postgres,
        redis: args.redis,
        danger: args.danger_listen_on_all_interfaces_without_authentication,
    };
    let settings = settings::load(globals, flags)?.value;
    let drain = Duration::from_secs(settings.drain_seconds);
    let telemetry = Telemetry::init("troupe", &settings.telemetry)?;
    let tasks = Tasks::new();
    let host = Host::start(settings, telemetry.metrics(), &tasks).await?;
    let url = format!("http://{}", host.http);
    if !sources.is_empty() {
        super::apply::all(&Api::new(&url, &globals.namespace)?, &sources, false).await?;
    }
    output::line(&format!(
        "Troupe is ready.\n  HTTP   {url}   (contract: {url}/docs)\n  gRPC   {}\n  data   {}\nStop it with Ctrl-C.",
        host.grpc,
        host.data()
    ))?;
    let outcome = main_loop::until_stopped(&tasks, drain, host.drain()).await;
    telemetry.shutdown().await;
    outcome
}
