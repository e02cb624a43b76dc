use crate::{
    fakes::{HANGS, MISSING, Script, Then},
    harness::{Harness, RUN, request},
};
use axum::{
    body::Body,
    http::{Method, Response, StatusCode},
};
use futures::StreamExt;
use serde_json::Value;
use std::time::Duration;
use tower::ServiceExt;
use troupe_domain::Error;
use troupe_gateway::Config;
use troupe_proto::executor::v1::WatchRunResponse;

fn event(cursor: &str, kind: &str) -> WatchRunResponse {
    let (cursor, kind) = (cursor.to_owned(), kind.to_owned());
    WatchRunResponse { cursor, kind, step: "analyse[3]".into(), data: "{\n \"n\": 1\r\n}".into(), ..Default::default() }
}

fn script(events: &[(&str, &str)], then: Then) -> Script {
    Script { events: events.iter().map(|(cursor, kind)| event(cursor, kind)).collect(), then }
}

/// (id, event, data) of each event of a whole stream.
fn events(text: &str) -> Vec<(String, String, Value)> {
    let field = |block: &str, name: &str| {
        let lines: Vec<&str> = block.lines().filter_map(|line| line.strip_prefix(name)).map(str::trim_start).collect();
        lines.join("\n")
    };
    let blocks = text.split("\n\n").filter(|block| block.lines().any(|line| line.starts_with("data:")));
    blocks.map(|block| (field(block, "id:"), field(block, "event:"), serde_json::from_str(&field(block, "data:")).unwrap())).collect()
}

fn watch(rest: &str) -> String {
    format!("/api/v1/runs/{RUN}/events{rest}")
}

#[tokio::test]
async fn a_stream_ends_with_its_run() {
    let gateway = Harness::start().await;
    gateway.fakes.script([script(&[("1.0", "run.started"), ("1.0/7", "chunk"), ("2.0", "run.succeeded")], Then::End)]);
    gateway.fakes.set_status("succeeded");
    let reply = gateway.get(&watch("")).await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type"), reply.header("x-accel-buffering")), (200, "text/event-stream", "no"));
    let events = events(&reply.text());
    let shape: Vec<_> = events.iter().map(|(id, kind, _)| (id.as_str(), kind.as_str())).collect();
    assert_eq!(shape, [("1.0", "run.started"), ("1.0/7", "chunk"), ("2.0", "run.succeeded"), ("2.0", "end")]);
    let data = &events[1].2;
    assert_eq!((&data["cursor"], &data["step"], &data["data"]["n"]), (&"1.0/7".into(), &"analyse[3]".into(), &1.into()));
    assert_eq!(events[3].2["data"]["status"], "succeeded");
    let text = reply.text();
    assert!(!text.contains('\r') && text.matches("data:").count() == 4, "data is one line each: {text}");
}

#[tokio::test]
async fn the_last_event_id_resumes() {
    let gateway = Harness::start().await;
    gateway.fakes.set_status("succeeded");
    let header = request(Method::GET, &watch("?cursor=1.0&chunks=false")).header("last-event-id", "3.1").body(Body::empty()).unwrap();
    gateway.send(header).await;
    gateway.get(&watch("?cursor=1.0/9")).await;
    {
        let seen = gateway.fakes.seen();
        assert_eq!((seen.watches[0].cursor.as_str(), seen.watches[0].lifecycle_only), ("3.1", true));
        assert_eq!((seen.watches[1].cursor.as_str(), seen.watches[1].lifecycle_only), ("1.0/9", false));
    }
    gateway.get(&watch(&format!("?cursor={}", "x".repeat(300)))).await.problem(400, "INVALID_ARGUMENT");
    gateway.get(&format!("/api/v1/runs/{MISSING}/events")).await.problem(404, "NOT_FOUND");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_behind_goes_on_where_it_was() {
    let gateway = Harness::start().await;
    gateway.fakes.set_status("running");
    gateway.fakes.script([
        script(&[("1.0", "run.started")], Then::Fail(Error::unavailable("the owner changes"))),
        script(&[("2.0", "step.started")], Then::End),
        script(&[("3.0", "run.succeeded")], Then::Fail(Error::internal())),
    ]);
    let reply = gateway.get(&watch("")).await;
    let events = events(&reply.text());
    let shape: Vec<_> = events.iter().map(|(id, kind, _)| (id.as_str(), kind.as_str())).collect();
    assert_eq!(shape, [("1.0", "run.started"), ("2.0", "step.started"), ("3.0", "run.succeeded"), ("", "error")]);
    assert_eq!(events[3].2["code"], "INTERNAL");
    let cursors: Vec<_> = gateway.fakes.seen().watches.iter().map(|watch| watch.cursor.clone()).collect();
    assert_eq!(cursors, ["", "1.0", "2.0"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_stays_broken_is_given_up() {
    let gateway = Harness::start().await;
    let broken = || script(&[], Then::Fail(Error::unavailable("the store is away")));
    gateway.fakes.script((0..20).map(|_| broken()));
    let events = events(&gateway.get(&watch("")).await.text());
    assert_eq!((events.len(), events[0].1.as_str(), &events[0].2["code"]), (1, "error", &"UNAVAILABLE".into()));
}

async fn open(gateway: &Harness) -> Response<Body> {
    gateway.router.clone().oneshot(request(Method::GET, &watch("")).body(Body::empty()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn events_come_one_by_one_and_a_drain_ends_the_stream() {
    let gateway = Harness::start().await;
    gateway.fakes.script([script(&[("1.0", "run.started")], Then::Silence)]);
    let mut body = open(&gateway).await.into_body().into_data_stream();
    assert!(body.next().await.unwrap().unwrap().starts_with(b": connected"), "something comes at once");
    let first = body.next().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("run.started"), "although the run goes on");
    let (rest, ()) = tokio::join!(body.next(), gateway.service.drain());
    assert!(rest.is_none(), "{rest:?}");
}

#[tokio::test]
async fn silence_is_filled_with_comments() {
    let gateway = Harness::with(Config { keep_alive_ms: 100, ..Config::default() }).await;
    gateway.fakes.script([script(&[], Then::Silence)]);
    let mut body = open(&gateway).await.into_body().into_data_stream();
    body.next().await.unwrap().unwrap();
    let filler = tokio::time::timeout(Duration::from_secs(5), body.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(filler, ": keep-alive\n\n");
}

#[tokio::test]
async fn streams_are_counted() {
    let gateway = Harness::with(Config { max_streams: 1, ..Config::default() }).await;
    gateway.fakes.script([script(&[], Then::Silence), script(&[], Then::Silence)]);
    let first = open(&gateway).await;
    let refused = gateway.get(&watch("")).await;
    refused.problem(429, "RESOURCE_EXHAUSTED");
    assert_eq!(refused.header("retry-after"), "5");
    drop(first);
    assert_eq!(open(&gateway).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_no_time_limit() {
    let gateway = Harness::start().await;
    let path = format!("/api/v1/runs/{HANGS}/events");
    let waiting = gateway.router.clone().oneshot(request(Method::GET, &path).body(Body::empty()).unwrap());
    assert!(tokio::time::timeout(Duration::from_secs(3_600), waiting).await.is_err());
}
