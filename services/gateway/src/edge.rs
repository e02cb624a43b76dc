//! What happens to every request, whatever its path: it gets an id, a span and a time limit, its origin is checked, it is counted, and when it
//! fails it fails as a problem document.

use crate::{
    app::App,
    failure::{self, Failure},
    metrics, origin,
};
use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{
    any::Any,
    time::{Duration, Instant},
};
use tracing::{Instrument, Span, field};
use troupe_domain::{Code, Error};
use troupe_wire::trace;
use uuid::Uuid;

/// The request's id: kept when the client sends one, answered always.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is kept.
const MAX_REQUEST_ID: usize = 128;

/// The outermost layer of the HTTP API.
pub async fn edge(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let headers = request.headers().clone();
    let span = span_of(&route, method.as_str(), &id, &headers);
    let limit = time_limit(&app, &route, request.uri().query());
    let response = async {
        let response = match origin::check(&app.config, request.method(), request.uri(), request.headers()) {
            Ok(()) if app.is_draining() && route.starts_with("/api/") => Failure::from(draining()).into_response(),
            Ok(()) => within(limit, next.run(request)).await,
            Err(error) => Failure::from(error).into_response(),
        };
        failure::render(response, &id).await
    };
    let mut response = trace::with_caller(&headers, response).instrument(span.clone()).await;
    record_status(&span, response.status());
    let status = response.status().as_u16().to_string();
    ::metrics::counter!(metrics::REQUESTS, "route" => route.clone(), "method" => method.as_str().to_owned(), "status" => status)
        .increment(1);
    ::metrics::histogram!(metrics::DURATION, "route" => route).record(started.elapsed().as_secs_f64());
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The request's span, in the client's trace where it sent one. Probes and scrapes have none.
fn span_of(route: &str, method: &str, id: &str, headers: &HeaderMap) -> Span {
    if !route.starts_with("/api/") {
        return Span::none();
    }
    let span = tracing::info_span!(
        target: "troupe",
        "http",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = field::Empty,
        request.id = id
    );
    trace::adopt_headers(&span, headers);
    span
}

fn record_status(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// The client's id where it is short and printable, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let fits = |id: &&str| !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.bytes().all(|b| b.is_ascii_graphic());
    given.filter(fits).map_or_else(|| Uuid::now_v7().to_string(), ToOwned::to_owned)
}

/// Event streams live as long as their run; `?wait=` adds its own time.
fn time_limit(app: &App, route: &str, query: Option<&str>) -> Option<Duration> {
    if route.ends_with("/events") {
        return None;
    }
    let waits = query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("wait=")));
    Some(app.config.request_timeout() + if waits { app.config.max_wait() } else { Duration::ZERO })
}

async fn within(limit: Option<Duration>, answer: impl Future<Output = Response>) -> Response {
    let Some(limit) = limit else { return answer.await };
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
        let shown = troupe_domain::format_span(limit);
        let error =
            Error::new(Code::DeadlineExceeded, format!("there was no answer within {shown}; the work may have been done nevertheless"));
        Failure::from(error.with_help("look before you repeat it, or repeat it with the same Idempotency-Key")).into_response()
    })
}

fn draining() -> Error {
    let mut error = Error::unavailable("the server is shutting down");
    error.retry_after_ms = Some(1_000);
    error
}

/// The answer to a request whose handler panicked. The panic itself is in the log already.
pub fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a handler panicked");
    Failure::from(Error::internal()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_request_ids_are_replaced() {
        let id = |value: &str| {
            let headers = [(REQUEST_ID, HeaderValue::from_bytes(value.as_bytes()).unwrap())].into_iter().collect();
            request_id(&headers)
        };
        assert_eq!(id("abc-1"), "abc-1");
        for odd in ["", "a b", "ä", &"x".repeat(129)] {
            assert!(Uuid::parse_str(&id(odd)).is_ok(), "{odd}");
        }
    }
}
