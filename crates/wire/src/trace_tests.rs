use super::*;
use crate::Transport;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::sync::{Arc, Mutex};
use tower::ServiceExt;
use tracing::{Instrument, instrument::WithSubscriber};
use tracing_subscriber::{Registry, layer::SubscriberExt};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn recorder() -> impl tracing::Subscriber + Send + Sync {
    let tracer = SdkTracerProvider::builder().build().tracer("test");
    Registry::default().with(tracing_opentelemetry::layer().with_tracer(tracer))
}

fn headers(traceparent: &'static str) -> HeaderMap {
    [(http::HeaderName::from_static(TRACEPARENT), HeaderValue::from_static(traceparent))].into_iter().collect()
}

/// A server that keeps what it saw: the headers' context, and the one that it would send on.
fn server(seen: &Arc<Mutex<Vec<(String, String)>>>) -> Transport {
    let seen = Arc::clone(seen);
    Transport::embedded(tower::service_fn(move |request: http::Request<tonic::body::Body>| {
        let sent = request.headers().get(TRACEPARENT).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        let seen = Arc::clone(&seen);
        async move {
            seen.lock().unwrap().push((sent, current_traceparent()));
            Ok::<_, std::convert::Infallible>(http::Response::new(tonic::body::Body::empty()))
        }
    }))
}

async fn call(seen: &Arc<Mutex<Vec<(String, String)>>>, path: &str) -> (String, String) {
    let request = http::Request::builder().uri(path).body(tonic::body::Body::empty()).unwrap();
    server(seen).oneshot(request).await.unwrap();
    seen.lock().unwrap().pop().unwrap()
}

#[tokio::test]
async fn an_embedded_call_has_a_span_in_the_callers_trace() {
    let seen = Arc::default();
    async {
        let span = entry_span("/a.B/C", &headers(PARENT));
        let (sent, inside) = call(&seen, "/d.E/F").instrument(span.clone()).await;
        assert!(sent.contains(TRACE) && sent != PARENT, "the caller's span is the parent: {sent}");
        assert!(inside.contains(TRACE) && inside != sent, "the call has a span of its own: {inside}");
        let (sent, inside) = call(&seen, "/d.E/Work").instrument(span).await;
        assert_eq!(inside, sent, "a stream that never ends has no span of its own");
        let (sent, inside) = call(&seen, "/d.E/F").await;
        assert_eq!((sent.as_str(), inside.as_str()), ("", ""), "housekeeping begins no trace");
    }
    .with_subscriber(recorder())
    .await;
}

#[tokio::test]
async fn a_callers_context_travels_on_where_nothing_is_recorded() {
    let seen = Arc::default();
    let (sent, inside) = with_caller(&headers(PARENT), call(&seen, "/d.E/F")).await;
    assert_eq!((sent.as_str(), inside.as_str()), (PARENT, PARENT));
    let (sent, _) = with_caller(&headers("rubbish"), call(&seen, "/d.E/F")).await;
    assert_eq!(sent, "");
}

#[test]
fn a_stored_context_is_joined() {
    tracing::subscriber::with_default(recorder(), || {
        let span = tracing::info_span!("later");
        adopt_traceparent(&span, PARENT);
        assert!(traceparent_of(&span).contains(TRACE));
        let odd = tracing::info_span!("odd");
        adopt_traceparent(&odd, "00-rubbish");
        assert!(is_traceparent(&traceparent_of(&odd)) && !traceparent_of(&odd).contains(TRACE));
    });
}

#[test]
fn contexts_are_checked() {
    assert!(is_traceparent(PARENT));
    let zero = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
    let upper = "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01";
    for odd in ["", "00", "01-a-b-c", zero, upper, &format!("{PARENT}-x"), &PARENT[..54]] {
        assert!(!is_traceparent(odd), "{odd}");
    }
}
