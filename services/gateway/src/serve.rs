//! Listening. A host may as well serve [`Service::router`] and [`Service::routes`] itself.

use crate::{Service, public::PUBLIC};
use anyhow::Context;
use tokio::net::TcpListener;
use tonic_health::{ServingStatus, server::HealthService};
use tonic_reflection::server::Builder as Reflection;
use troupe_service_kit::serve;

impl Service {
    /// Serves the HTTP API until the process stops.
    pub async fn serve_http(&self, listener: TcpListener) -> anyhow::Result<()> {
        serve::http(listener, self.router(), self.app().tasks.clone()).await
    }

    /// Serves the public gRPC methods, with health for each public service and reflection (v1 and v1alpha), until the process stops.
    pub async fn serve_grpc(&self, listener: TcpListener) -> anyhow::Result<()> {
        let app = self.app();
        app.health.set_service_status("", ServingStatus::Serving).await;
        let health = tonic_health::pb::health_server::HealthServer::new(HealthService::from_health_reporter(app.health.clone()));
        let routes = self.routes().add_service(health).add_service(reflection().build_v1()?).add_service(reflection().build_v1alpha()?);
        let router = serve::server().max_concurrent_streams(app.config.max_concurrent_grpc_streams).add_routes(routes);
        let serving = router.serve_with_incoming_shutdown(serve::incoming(listener), app.tasks.token().clone().cancelled_owned());
        serve::until_closed(app.tasks.token(), async { serving.await.context("the gRPC server failed") }).await
    }
}

/// Reflection that lists the public services.
fn reflection() -> Reflection<'static> {
    let public = PUBLIC.iter().map(|(_, service, _)| *service).chain(["grpc.health.v1.Health"]);
    let builder = Reflection::configure()
        .register_encoded_file_descriptor_set(troupe_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    public.fold(builder, |builder, service| builder.with_service_name(service))
}
