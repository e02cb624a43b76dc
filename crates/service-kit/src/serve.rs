//! Serving gRPC and HTTP until the process is told to stop.

use crate::Tasks;
use anyhow::Context;
use axum::{Router, serve::ListenerExt};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use troupe_wire::spanned::Spanned;
use troupe_wire::transport::{CONNECTION_WINDOW, KEEP_ALIVE, KEEP_ALIVE_TIMEOUT, STREAM_WINDOW};

/// How long open connections may take to end once the process stops.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// The connection settings of all gRPC servers.
pub fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

/// Serves a service's gRPC routes with health, reflection (v1 and v1alpha) and trace context.
pub async fn grpc(listener: TcpListener, routes: Routes, tasks: Tasks) -> anyhow::Result<()> {
    let reflect = || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(troupe_proto::DESCRIPTORS);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let routes = routes.add_service(health_service).add_service(reflect().build_v1()?).add_service(reflect().build_v1alpha()?);
    let router = server().layer(tower::layer::layer_fn(Spanned::new)).add_routes(routes);
    let serving = router.serve_with_incoming_shutdown(incoming(listener), tasks.token().clone().cancelled_owned());
    until_closed(tasks.token(), async { serving.await.context("the gRPC server failed") }).await
}

/// Connections of a gRPC server. Messages are small and must not wait for company.
pub fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// Serves HTTP.
pub async fn http(listener: TcpListener, router: Router, tasks: Tasks) -> anyhow::Result<()> {
    let listener = listener.tap_io(|stream| {
        // Events are small too.
        if let Err(cause) = stream.set_nodelay(true) {
            tracing::debug!(target: "troupe", %cause, "cannot set TCP_NODELAY");
        }
    });
    let serving = axum::serve(listener, router).with_graceful_shutdown(tasks.token().clone().cancelled_owned());
    until_closed(tasks.token(), async { serving.await.context("the HTTP server failed") }).await
}

/// Lets a server end by itself once `stopping` is cancelled, and cuts off the connections that take too long.
pub async fn until_closed(stopping: &CancellationToken, server: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let over = async {
        stopping.cancelled().await;
        tokio::time::sleep(CLOSE_LIMIT).await;
    };
    tokio::select! {
        served = server => served,
        () = over => {
            tracing::warn!(target: "troupe", "some connections were cut off");
            Ok(())
        }
    }
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
