//! W3C trace context: the one place where it is put into headers and texts, and taken out again; and the spans of calls.
//!
//! Where nothing records spans every function here is as good as free: spans are disabled, and then nothing is parsed or printed. A context
//! that a caller sent still travels on ([`with_caller`]), so that those behind us can join it.

use http::{HeaderMap, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator},
};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACEPARENT: &str = "traceparent";

/// Calls that last as long as the processes at their ends. What they carry has traces of its own.
const STREAMS: [&str; 9] =
    ["/Append", "/Dispatch", "/Publish", "/Report", "/ReportInstances", "/Subscribe", "/WatchAgents", "/WatchRun", "/Work"];

tokio::task_local! {
    /// What the caller of this task's request sent.
    static CALLER: HeaderValue;
}

/// Writes the current span's context into outgoing headers; where nothing records it, that of [`with_caller`].
pub fn inject_headers(headers: &mut HeaderMap) {
    let span = Span::current();
    let context = if span.is_disabled() { Context::new() } else { span.context() };
    let before = headers.remove(TRACEPARENT);
    TraceContextPropagator::new().inject_context(&context, &mut HeaderInjector(headers));
    if !headers.contains_key(TRACEPARENT)
        && let Some(value) = before.or_else(|| CALLER.try_with(HeaderValue::clone).ok())
    {
        headers.insert(TRACEPARENT, value);
    }
}

/// Makes the context in incoming headers the parent of `span`.
pub fn adopt_headers(span: &Span, headers: &HeaderMap) {
    if !span.is_disabled() && headers.contains_key(TRACEPARENT) {
        adopt(span, TraceContextPropagator::new().extract(&HeaderExtractor(headers)));
    }
}

/// Makes a stored `traceparent` the parent of `span`; nothing happens when it is empty or malformed.
pub fn adopt_traceparent(span: &Span, traceparent: &str) {
    if !span.is_disabled() && !traceparent.is_empty() {
        adopt(span, TraceContextPropagator::new().extract(&One(traceparent)));
    }
}

fn adopt(span: &Span, context: Context) {
    // An error only says that no OpenTelemetry layer is installed: then there is no trace to join.
    let _ = span.set_parent(context);
}

/// The current span's context as a `traceparent`; where nothing records it, that of [`with_caller`]; empty where there is none.
pub fn current_traceparent() -> String {
    let text = traceparent_of(&Span::current());
    if !text.is_empty() {
        return text;
    }
    CALLER.try_with(|value| value.to_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

/// A span's context as a `traceparent`; empty when nothing records it.
pub fn traceparent_of(span: &Span) -> String {
    let mut text = Slot(String::new());
    if !span.is_disabled() {
        TraceContextPropagator::new().inject_context(&span.context(), &mut text);
    }
    text.0
}

/// Whether it is a `traceparent` of version 00.
pub fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, length: usize| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    matches!(parts[..], ["00", trace, parent, flags]
        if hex(trace, 32) && !zero(trace) && hex(parent, 16) && !zero(parent) && hex(flags, 2))
}

/// Serves a request: the context in its headers goes along with the calls that it leads to, also where nothing here records spans.
pub async fn with_caller<F: Future>(headers: &HeaderMap, request: F) -> F::Output {
    match headers.get(TRACEPARENT).filter(|value| value.to_str().is_ok_and(is_traceparent)).cloned() {
        Some(value) => CALLER.scope(value, request).await,
        None => request.await,
    }
}

/// The span of a call at its server. There is none for calls outside any trace (a service's own housekeeping), nor for streams that last
/// as long as the process.
pub fn rpc_span(path: &str, headers: &HeaderMap) -> Span {
    if headers.contains_key(TRACEPARENT) { entry_span(path, headers) } else { Span::none() }
}

/// The same for a server at the edge: a call outside any trace begins one.
pub fn entry_span(path: &str, headers: &HeaderMap) -> Span {
    if STREAMS.iter().any(|stream| path.ends_with(stream)) {
        return Span::none();
    }
    let method = path.trim_start_matches('/');
    let span = tracing::debug_span!(
        target: "troupe",
        "rpc",
        otel.name = method,
        otel.kind = "server",
        otel.status_code = field::Empty,
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.response.status_code = field::Empty
    );
    adopt_headers(&span, headers);
    span
}

struct One<'a>(&'a str);

impl Extractor for One<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }
    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

struct Slot(String);

impl Injector for Slot {
    fn set(&mut self, key: &str, value: String) {
        if key == TRACEPARENT {
            self.0 = value;
        }
    }
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
