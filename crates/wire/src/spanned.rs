//! Spans around the calls of a gRPC server.

use crate::trace::rpc_span;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tonic::codegen::{
    Service,
    http::{HeaderMap, Request, Response},
};
use tracing::{Instrument, Span};

/// Statuses by their numbers.
const STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Those that are the server's fault, by OpenTelemetry's conventions.
const FAULTS: [&str; 6] = ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];

/// A gRPC server each of whose calls has a span in its caller's trace, with the status that it ends with.
#[derive(Clone, Debug)]
pub struct Spanned<S>(S);

impl<S> Spanned<S> {
    pub fn new(server: S) -> Self {
        Self(server)
    }
}

impl<S, B, R> Service<Request<B>> for Spanned<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let span = rpc_span(request.uri().path(), request.headers());
        let answer = span.in_scope(|| self.0.call(request));
        if span.is_disabled() {
            return Box::pin(answer);
        }
        Box::pin(async move {
            let answer = answer.instrument(span.clone()).await?;
            record_status(&span, answer.headers());
            Ok(answer)
        })
    }
}

/// Notes a failure, which is told in the head of an answer.
pub fn record_status(span: &Span, headers: &HeaderMap) {
    let code = headers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let Some(status) = code.and_then(|code| STATUSES.get(code)) else { return };
    span.record("rpc.response.status_code", status);
    if FAULTS.contains(status) {
        span.record("otel.status_code", "ERROR");
    }
}
