use crate::harness::{Harness, RUN};
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Method, Request, Uri},
};
use proptest::{collection::vec, prelude::*, sample::select};

fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        select(vec![
            "api",
            "v1",
            "runs",
            "workflows",
            "tasks",
            "agents",
            "approvals",
            "queues",
            "schemas",
            "docs",
            "errors",
            "health",
            "metrics",
            "openapi.json",
            "cancel",
            "signal",
            "fork",
            "checkpoints",
            "diff",
            "why",
            "decision",
            "dead",
            "redrive",
            "graph",
            "versions",
            "drain",
            "1",
            "..",
            "",
            RUN,
        ])
        .prop_map(ToOwned::to_owned),
        "[a-zA-Z0-9%._~-]{0,20}",
        "(%[0-9a-f]{2}){1,6}",
    ]
}

fn path() -> impl Strategy<Value = String> {
    let query = prop_oneof![
        Just(String::new()),
        "\\?[a-z]{1,8}=[a-zA-Z0-9%&=,.]{0,30}",
        "\\?(limit|cursor|status|label|since|wait|from|to)=[^ \"<>#]{0,20}"
    ];
    let api = prop_oneof![Just(String::new()), Just("/api/v1".to_owned())];
    (api, vec(segment(), 0..6), query).prop_map(|(api, segments, query)| format!("{api}/{}{query}", segments.join("/")))
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..200),
        "[\\[\\]{}\":,0-9a-z\\\\ \n]{0,200}".prop_map(String::into_bytes),
        select(vec![
            "{}",
            "null",
            "[]",
            "0",
            "{\"input\":1e999}",
            "{\"name\":\"\\u0000\"}",
            "{\"checkpoint\":-1}",
            "{\"checkpoint\":18446744073709551616}"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ]
}

fn header() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
    let names = [
        "content-type",
        "troupe-namespace",
        "idempotency-key",
        "last-event-id",
        "x-request-id",
        "traceparent",
        "origin",
        "host",
        "accept",
        "content-length",
    ];
    (select(names.to_vec()), vec(32_u8..=255, 0..40))
        .prop_filter_map("is a header value", |(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_bytes(&value).ok()?)))
}

fn request() -> impl Strategy<Value = (Method, String, Vec<(HeaderName, HeaderValue)>, Vec<u8>)> {
    let methods = vec![Method::GET, Method::POST, Method::POST, Method::DELETE, Method::PUT, Method::HEAD, Method::OPTIONS];
    (select(methods), path(), vec(header(), 0..4), body())
}

#[test]
fn garbage_is_never_our_fault() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let gateway = runtime.block_on(async {
        let gateway = Harness::start().await;
        gateway.fakes.set_status("succeeded");
        gateway
    });
    proptest!(ProptestConfig::with_cases(2_000), |((method, path, headers, body) in request())| {
        let Ok(uri) = path.parse::<Uri>() else { return Ok(()) };
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        request.headers_mut().insert("host", HeaderValue::from_static("localhost"));
        request.headers_mut().extend(headers);
        let reply = runtime.block_on(gateway.send(request));
        prop_assert!(reply.status.as_u16() < 500, "{} {}: {} {}", method, path, reply.status, reply.text());
        let refused = reply.status.is_client_error() && method != Method::HEAD;
        prop_assert!(!refused || reply.header("content-type") == "application/problem+json", "{} {}: {}", method, path, reply.text());
    });
}
