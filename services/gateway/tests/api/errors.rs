use crate::{
    fakes::{Fakes, HANGS, PANICS},
    harness::{Harness, RUN, request},
};
use axum::{body::Body, http::Method};
use bytes::Bytes;
use serde_json::json;
use std::time::{Duration, Instant};
use troupe_gateway::Config;
use troupe_wire::{LateTransport, Transport};

#[tokio::test]
async fn unknown_paths_and_methods_are_told_apart() {
    let gateway = Harness::start().await;
    for path in ["/", "/nope", "/api/v1", "/api/v1/nope", "/api/v1/runs/", "/docs/nope"] {
        gateway.get(path).await.problem(404, "NOT_FOUND");
    }
    let reply = gateway.send(request(Method::PATCH, "/api/v1/runs").body(Body::empty()).unwrap()).await;
    reply.problem(405, "INVALID_ARGUMENT");
    assert_eq!(reply.header("allow"), "GET,HEAD");
    let reply = gateway.send(request(Method::PUT, "/api/v1/agents/a").body(Body::empty()).unwrap()).await;
    reply.problem(405, "INVALID_ARGUMENT");
    assert!(reply.header("allow").contains("DELETE"));
}

#[tokio::test]
async fn bad_bodies_name_the_place() {
    let gateway = Harness::start().await;
    let start = "/api/v1/workflows/triage/runs";
    let bad = gateway.post(start, "{\n  \"input\": }").await.problem(400, "INVALID_ARGUMENT");
    assert_eq!((&bad["errors"][0]["line"], &bad["errors"][0]["path"]), (&json!(2), &json!("body")));
    let unknown = gateway.post(start, r#"{"inputs":{}}"#).await.problem(400, "INVALID_ARGUMENT");
    assert!(unknown["detail"].as_str().unwrap().contains("unknown field `inputs`"), "{unknown}");
    let typed = gateway.post(start, r#"{"priority":"high"}"#).await.problem(400, "INVALID_ARGUMENT");
    assert_eq!(typed["errors"][0]["path"], "priority");
    gateway.post(start, &"[".repeat(100_000)).await.problem(400, "INVALID_ARGUMENT");
    gateway.post(start, &format!("{{\"input\":{}}}", "[".repeat(100_000))).await.problem(400, "INVALID_ARGUMENT");
    gateway.post(start, r#"{"priority":10}"#).await.problem(400, "INVALID_ARGUMENT");
    gateway.post(start, r#"{"deadline":"soon"}"#).await.problem(400, "INVALID_ARGUMENT");
    for body in [&b"{\"input\":\"\xff\"}"[..], b"\xfe\xff"] {
        let raw = request(Method::POST, start).header("content-type", "application/json").body(Body::from(body.to_vec())).unwrap();
        let problem = gateway.send(raw).await.problem(400, "INVALID_ARGUMENT");
        assert!(problem["detail"].as_str().unwrap().contains("UTF-8"), "{problem}");
    }
    let yaml = request(Method::POST, "/api/v1/workflows").body(Body::from(&b"workflow: \xff"[..])).unwrap();
    gateway.send(yaml).await.problem(400, "INVALID_ARGUMENT");
    gateway.post("/api/v1/workflows", " \n").await.problem(400, "INVALID_ARGUMENT");
}

#[tokio::test]
async fn another_content_type_is_refused() {
    let gateway = Harness::start().await;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/yaml", "multipart/form-data; boundary=x"] {
        gateway.post_with("/api/v1/tasks", "{}", &[("content-type", kind)]).await.problem(415, "INVALID_ARGUMENT");
    }
    gateway
        .post_with("/api/v1/workflows", "x", &[("content-type", "multipart/form-data; boundary=x")])
        .await
        .problem(415, "INVALID_ARGUMENT");
    for kind in ["application/json; charset=utf-8", "application/problem+json"] {
        gateway.post_with("/api/v1/tasks", "{}", &[("content-type", kind)]).await.problem(400, "INVALID_ARGUMENT");
    }
}

#[tokio::test]
async fn a_body_of_100_megabytes_is_refused_quickly() {
    let gateway = Harness::start().await;
    let started = Instant::now();
    let chunk = Bytes::from(vec![b'x'; 1 << 20]);
    for path in ["/api/v1/workflows", "/api/v1/tasks", "/api/v1/workflows/triage/runs"] {
        let chunks = futures::stream::iter((0..100).map({
            let chunk = chunk.clone();
            move |_| Ok::<_, std::io::Error>(chunk.clone())
        }));
        let request = request(Method::POST, path).header("content-type", "application/json").body(Body::from_stream(chunks)).unwrap();
        gateway.send(request).await.problem(413, "PAYLOAD_TOO_LARGE");
    }
    let announced = request(Method::POST, "/api/v1/tasks").header("content-length", "104857600").body(Body::from("{}")).unwrap();
    gateway.send(announced).await.problem(413, "PAYLOAD_TOO_LARGE");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn names_ids_and_headers_are_checked() {
    let gateway = Harness::start().await;
    let long = "x".repeat(64);
    for path in [
        format!("/api/v1/workflows/{long}"),
        "/api/v1/workflows/a%20b".into(),
        "/api/v1/agents/%2e%2e%2f".into(),
        "/api/v1/workflows/%ff".into(),
    ] {
        gateway.get(&path).await.problem(400, "INVALID_ARGUMENT");
    }
    for (header, value) in [("troupe-namespace", "a b"), ("troupe-namespace", "../x"), ("idempotency-key", "")] {
        gateway.post_with("/api/v1/workflows/triage/runs", "{}", &[(header, value)]).await.problem(400, "INVALID_ARGUMENT");
    }
    assert!(gateway.fakes.seen().starts.is_empty());
}

#[tokio::test]
async fn the_request_id_comes_back() {
    let gateway = Harness::start().await;
    let given = request(Method::GET, "/nope").header("x-request-id", "mine-1").body(Body::empty()).unwrap();
    assert_eq!(gateway.send(given).await.problem(404, "NOT_FOUND")["instance"], "mine-1");
    let made = gateway.get("/live").await;
    assert_eq!(made.header("x-request-id").len(), 36);
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_nothing_more() {
    let gateway = Harness::start().await;
    let problem = gateway.get(&format!("/api/v1/runs/{PANICS}")).await.problem(500, "INTERNAL");
    assert!(!problem["detail"].as_str().unwrap().contains("this run panics"));
    assert_eq!(gateway.get(&format!("/api/v1/runs/{RUN}")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_is_cut_off() {
    let gateway = Harness::start().await;
    gateway.get(&format!("/api/v1/runs/{HANGS}")).await.problem(504, "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn a_service_that_is_away_is_unavailable() {
    let gateway = Harness::over(Config::default(), Fakes::default(), LateTransport::default().transport()).await;
    let reply = gateway.get(&format!("/api/v1/runs/{RUN}")).await;
    reply.problem(503, "UNAVAILABLE");
    assert_eq!(reply.header("retry-after"), "1");
    let health = gateway.get("/health").await;
    let executor = health.json()["dependencies"].as_array().unwrap().iter().find(|d| d["name"] == "executor").cloned();
    assert_eq!((health.status.as_u16(), &executor.unwrap()["ok"]), (503, &json!(false)));
    // Nothing listens on port 1 of this host.
    let away = Transport::connect("http://127.0.0.1:1").unwrap();
    let gateway = Harness::over(Config::default(), Fakes::default(), away).await;
    let problem = gateway.get(&format!("/api/v1/runs/{RUN}")).await.problem(503, "UNAVAILABLE");
    assert!(!problem["detail"].as_str().unwrap().contains("127.0.0.1"), "{problem}");
}

#[tokio::test]
async fn strange_hosts_and_origins_are_refused() {
    let gateway = Harness::start().await;
    let strange = axum::http::Request::get("/api/v1/runs").header("host", "evil.example").body(Body::empty()).unwrap();
    assert_eq!(gateway.send(strange).await.problem(403, "PERMISSION_DENIED")["reason"], "HOST");
    let headers = [("origin", "https://evil.example")];
    let reply = gateway.post_with("/api/v1/workflows/triage/runs", "{}", &headers).await;
    assert_eq!(reply.problem(403, "PERMISSION_DENIED")["reason"], "ORIGIN");
    assert!(gateway.fakes.seen().starts.is_empty());
}

#[tokio::test]
async fn a_drain_refuses_what_is_new() {
    let gateway = Harness::start().await;
    gateway.service.drain().await;
    gateway.get("/api/v1/runs").await.problem(503, "UNAVAILABLE");
    assert_eq!((gateway.get("/live").await.status.as_u16(), gateway.get("/ready").await.status.as_u16()), (200, 503));
}
