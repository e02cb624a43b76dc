//! What a process pays for spans and log lines: nothing for those that nobody wants.
//!
//! The subscriber is the process's own, so each case is a process: this program again, with a case in its environment.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::process::Command;
use tracing::level_filters::LevelFilter;
use troupe_service_kit::{Tasks, Telemetry, telemetry::Config};
use troupe_wire::trace::{current_traceparent, is_traceparent, traceparent_of};

const CASE: &str = "TROUPE_TEST_TELEMETRY";

fn run(case: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for name in ["RUST_LOG", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER"] {
        command.env_remove(name);
    }
    let output = command.args(["--exact", "the_case", "--nocapture"]).env(CASE, case).output().unwrap();
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{case}: {out}{errors}");
    assert!(out.contains(&format!("case {case} is over")), "{case} did not run: {out}");
}

#[test]
fn without_an_endpoint_spans_are_off() {
    run("silent");
}

#[test]
fn with_an_endpoint_our_spans_are_recorded_and_others_are_not() {
    run("exporting");
}

/// Not a test of its own: the body of the processes.
#[tokio::test]
async fn the_case() {
    let Ok(case) = std::env::var(CASE) else { return };
    match case.as_str() {
        "silent" => silent(),
        "exporting" => exporting().await,
        other => panic!("no case {other}"),
    }
    println!("case {case} is over");
}

fn silent() {
    let _telemetry = Telemetry::init("test", &Config::default()).unwrap();
    assert_eq!(LevelFilter::current(), LevelFilter::WARN, "what is below is not even looked at");
    assert!(tracing::info_span!(target: "troupe", "span").is_disabled());
    assert!(!tracing::enabled!(target: "troupe", tracing::Level::INFO));
    assert_eq!(tracing::info_span!(target: "troupe", "span").in_scope(current_traceparent), "");
}

async fn exporting() {
    // Nobody listens there.
    let config = Config { otlp_endpoint: "http://127.0.0.1:9".to_owned(), log: "off".to_owned(), ..Config::default() };
    let _telemetry = Telemetry::init("test", &config).unwrap();
    assert!(is_traceparent(&traceparent_of(&tracing::debug_span!(target: "troupe_executor::grpc", "ours"))));
    assert!(tracing::info_span!(target: "hyper", "theirs").is_disabled());
    assert!(tracing::trace_span!(target: "troupe", "detail").is_disabled());
    assert!(!tracing::enabled!(target: "troupe", tracing::Level::WARN), "log lines are not exported");
    let background = Tasks::new().spawn("background", async { current_traceparent() });
    assert_eq!(background.await.unwrap(), "", "a task for the life of the process is no trace");
}
