//! `/health`, `/ready`, `/live` and `/metrics` of a process.

use crate::Dependency;
use axum::{Json, Router, http::StatusCode, response::IntoResponse, routing::get};
use futures::future::BoxFuture;
use serde_json::json;
use std::sync::Arc;

/// Asks for the state of every dependency.
pub type Health = Arc<dyn Fn() -> BoxFuture<'static, Vec<Dependency>> + Send + Sync>;

/// What the endpoints show.
#[derive(Clone)]
pub struct Ops {
    pub health: Health,
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl Ops {
    /// The routes. `/live` says that the process runs; `/ready` and `/health` answer 503 when a dependency fails.
    pub fn router(&self) -> Router {
        let (ready, health, metrics) = (self.clone(), self.clone(), Arc::clone(&self.metrics));
        Router::new()
            .route("/live", get(|| async { Json(json!({ "status": "ok" })) }))
            .route("/ready", get(move || async move { ready.answer().await }))
            .route("/health", get(move || async move { health.answer().await }))
            .route("/metrics", get(move || async move { ([("content-type", "text/plain; version=0.0.4")], metrics()) }))
    }

    async fn answer(self) -> impl IntoResponse + use<> {
        let dependencies = (self.health)().await;
        let ok = dependencies.iter().all(|d| d.ok);
        let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(json!({ "status": if ok { "ok" } else { "failing" }, "dependencies": dependencies })))
    }
}
