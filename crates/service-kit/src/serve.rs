//! Serving gRPC and HTTP until the process is told to stop.

use crate::Tasks;
use anyhow::Context;
use axum::Router;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::service::Routes;
use troupe_wire::spanned::Spanned;
use troupe_wire::transport::{CONNECTION_WINDOW, STREAM_WINDOW};

/// The most bytes of one gRPC message, both ways.
pub const MAX_MESSAGE: usize = 64 << 20;

/// Serves a service's gRPC routes with health, reflection (v1 and v1alpha) and trace context.
pub async fn grpc(listener: TcpListener, routes: Routes, tasks: Tasks) -> anyhow::Result<()> {
    let reflect = || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(troupe_proto::DESCRIPTORS);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let routes = routes.add_service(health_service).add_service(reflect().build_v1()?).add_service(reflect().build_v1alpha()?);
    let stopping = tasks.token().clone();
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(15)))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .layer(tower::layer::layer_fn(Spanned::new))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, async move { stopping.cancelled().await })
        .await
        .context("the gRPC server failed")
}

/// Serves HTTP.
pub async fn http(listener: TcpListener, router: Router, tasks: Tasks) -> anyhow::Result<()> {
    let stopping = tasks.token().clone();
    axum::serve(listener, router).with_graceful_shutdown(async move { stopping.cancelled().await }).await.context("the HTTP server failed")
}

/// Runs a server in the background. One that ends by itself stops the process.
pub fn spawn(tasks: &Tasks, name: &'static str, server: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
    let token = tasks.token().clone();
    tasks.spawn(name, async move {
        if let Err(error) = server.await {
            tracing::error!(target: "troupe", server = name, error = format!("{error:#}"), "a server failed");
        }
        token.cancel();
    });
}
