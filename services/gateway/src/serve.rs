//! Listening. A host may as well serve [`Service::router`] and [`Service::routes`] itself.

use crate::{Service, public::PUBLIC};
use anyhow::Context;
use axum::serve::ListenerExt;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::transport::{Server, server::TcpIncoming};
use tonic_health::{ServingStatus, server::HealthService};
use tonic_reflection::server::Builder as Reflection;
use troupe_wire::transport::{CONNECTION_WINDOW, STREAM_WINDOW};

/// How long open connections may take to end once the process stops.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

impl Service {
    /// Serves the HTTP API until the process stops.
    pub async fn serve_http(&self, listener: TcpListener) -> anyhow::Result<()> {
        let stopping = self.app().tasks.token().clone();
        let listener = listener.tap_io(|stream| {
            // Events are small and must not wait for company.
            if let Err(cause) = stream.set_nodelay(true) {
                tracing::debug!(%cause, "cannot set TCP_NODELAY");
            }
        });
        let server = axum::serve(listener, self.router()).with_graceful_shutdown(stopping.clone().cancelled_owned());
        let over = async {
            stopping.cancelled().await;
            tokio::time::sleep(CLOSE_LIMIT).await;
        };
        tokio::select! {
            served = async { server.await } => served.context("the HTTP server failed"),
            () = over => {
                tracing::warn!("some connections were cut off");
                Ok(())
            }
        }
    }

    /// Serves the public gRPC methods, with health for each public service and reflection (v1 and v1alpha), until the process stops.
    pub async fn serve_grpc(&self, listener: TcpListener) -> anyhow::Result<()> {
        let app = self.app();
        app.health.set_service_status("", ServingStatus::Serving).await;
        let health = tonic_health::pb::health_server::HealthServer::new(HealthService::from_health_reporter(app.health.clone()));
        let routes = self.routes().add_service(health).add_service(reflection().build_v1()?).add_service(reflection().build_v1alpha()?);
        let stopping = app.tasks.token().clone();
        let server = Server::builder()
            .max_concurrent_streams(app.config.max_concurrent_grpc_streams)
            .http2_keepalive_interval(Some(Duration::from_secs(15)))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .add_routes(routes)
            .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stopping.clone().cancelled_owned());
        let over = async {
            stopping.cancelled().await;
            tokio::time::sleep(CLOSE_LIMIT).await;
        };
        tokio::select! {
            served = server => served.context("the gRPC server failed"),
            () = over => Ok(()),
        }
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
