//! W3C trace context: the one place where it is put into headers and texts, and taken out again.

use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator},
};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACEPARENT: &str = "traceparent";

/// Writes the current span's context into outgoing headers.
pub fn inject_headers(headers: &mut http::HeaderMap) {
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut HeaderInjector(headers));
}

/// Makes the context in incoming headers the parent of `span`.
pub fn adopt_headers(span: &Span, headers: &http::HeaderMap) {
    adopt(span, TraceContextPropagator::new().extract(&HeaderExtractor(headers)));
}

/// Makes a stored `traceparent` the parent of `span`; nothing happens when it is empty or malformed.
pub fn adopt_traceparent(span: &Span, traceparent: &str) {
    if !traceparent.is_empty() {
        adopt(span, TraceContextPropagator::new().extract(&One(traceparent)));
    }
}

fn adopt(span: &Span, context: Context) {
    // An error only says that no OpenTelemetry layer is installed: then there is no trace to join.
    let _ = span.set_parent(context);
}

/// The current span's context as a `traceparent`; empty when nothing records traces.
pub fn current_traceparent() -> String {
    let mut text = Slot(String::new());
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut text);
    text.0
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
