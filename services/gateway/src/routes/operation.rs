//! Health, metrics, the OpenAPI document and the pages of the error codes.

use crate::{app::App, failure::Answer};
use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use troupe_api::{DependencyHealth, Health};
use troupe_domain::{Code, Error};

/// Shows the state of the program and of each thing that it depends on.
#[utoipa::path(get, path = "/health", tag = "operation",
    responses((status = 200, description = "All is well", body = Health), (status = 503, description = "Something fails", body = Health)))]
pub async fn health(State(app): State<App>) -> Response {
    state(&app).await
}

/// Whether requests should be sent here.
#[utoipa::path(get, path = "/ready", tag = "operation",
    responses((status = 200, description = "Yes", body = Health), (status = 503, description = "Not now", body = Health)))]
pub async fn ready(State(app): State<App>) -> Response {
    if app.is_draining() {
        let stopping = DependencyHealth { name: "gateway".to_owned(), ok: false, detail: "shutting down".to_owned() };
        return answer(vec![stopping]);
    }
    state(&app).await
}

/// Whether the process runs at all.
#[utoipa::path(get, path = "/live", tag = "operation", responses((status = 200, description = "It does", body = Health)))]
pub async fn live() -> Response {
    answer(Vec::new())
}

async fn state(app: &App) -> Response {
    let dependencies = app.health().await;
    answer(dependencies.into_iter().map(|d| DependencyHealth { name: d.name, ok: d.ok, detail: d.detail }).collect())
}

fn answer(dependencies: Vec<DependencyHealth>) -> Response {
    let ok = dependencies.iter().all(|dependency| dependency.ok);
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = if ok { "ok" } else { "failing" };
    (status, Json(Health { status: word.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned(), dependencies })).into_response()
}

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "operation", responses((status = 200, description = "The metrics", content_type = "text/plain", body = String)))]
pub async fn metrics(State(app): State<App>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (app.ops.metrics)()).into_response()
}

/// This document. `/docs` shows it to people.
#[utoipa::path(get, path = "/openapi.json", tag = "operation", responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
pub async fn openapi_document(State(app): State<App>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], app.openapi().to_owned()).into_response()
}

/// What an error code means and what to do about it.
#[utoipa::path(get, path = "/docs/errors/{code}", tag = "operation", params(("code" = String, Path, description = "The code")),
    responses((status = 200, description = "Markdown", content_type = "text/markdown", body = String)))]
pub async fn error_page(Path(code): Path<String>) -> Answer<Response> {
    let known = Code::from_name(code.trim_end_matches(".md"));
    let code = known.ok_or_else(|| Error::not_found("an error code of that name"))?;
    Ok(([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], troupe_api::error_page(code)).into_response())
}
