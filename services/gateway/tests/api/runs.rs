use crate::{
    fakes::MISSING,
    harness::{Harness, RUN},
};
use serde_json::json;
use troupe_proto::executor::v1::ControlAction;

#[tokio::test]
async fn a_start_hands_everything_on() {
    let gateway = Harness::start().await;
    let body = json!({ "input": { "n": 12345678901234567890123_f64, "z": 1, "a": [null] }, "version": "1.2.0", "priority": 0, "labels": { "team": "a" }, "deadline": "2h" });
    let headers = [("idempotency-key", "k-1"), ("troupe-namespace", "team-a")];
    let reply = gateway.post_with("/api/v1/workflows/triage/runs", &body.to_string(), &headers).await;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (201, format!("/api/v1/runs/{RUN}").as_str()));
    let run = reply.json();
    assert_eq!((&run["run_id"], &run["status"], &run["created_at"]), (&json!(RUN), &json!("running"), &json!("2026-01-01T00:00:00Z")));
    let start = gateway.fakes.seen().starts.remove(0);
    assert_eq!(start.input, body["input"].to_string());
    assert_eq!((start.namespace.as_str(), start.workflow.as_str(), start.version.as_str()), ("team-a", "triage", "1.2.0"));
    assert_eq!((start.priority, start.labels["team"].as_str(), start.idempotency_key.as_str()), (Some(0), "a", "k-1"));
    assert_eq!(start.deadline.unwrap().seconds, 7_200);
}

#[tokio::test]
async fn a_start_needs_no_body_and_repeats_are_told_apart() {
    let gateway = Harness::start().await;
    assert_eq!(gateway.post_with("/api/v1/workflows/triage/runs", "", &[("content-type", "")]).await.status, 201);
    assert_eq!(gateway.post_with("/api/v1/workflows/triage/runs", "{}", &[("idempotency-key", "again")]).await.status, 200);
    assert!(gateway.fakes.seen().starts[0].input.is_empty());
}

#[tokio::test]
async fn a_start_may_wait_for_the_end() {
    let gateway = Harness::start().await;
    assert_eq!(gateway.post("/api/v1/workflows/triage/runs?wait=1s", "{}").await.status, 202);
    gateway.fakes.set_status("succeeded");
    let reply = gateway.post("/api/v1/workflows/triage/runs?wait=9h", "{}").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["status"]), (200, &json!("succeeded")));
    let waits = gateway.fakes.seen().starts.iter().map(|start| start.wait.unwrap().seconds).collect::<Vec<_>>();
    assert_eq!(waits, [1, 300], "the longest wait is a setting");
    assert!(gateway.fakes.seen().waits.is_empty(), "it is one call");
    gateway.post("/api/v1/workflows/triage/runs?wait=soon", "{}").await.problem(400, "INVALID_ARGUMENT");
}

#[tokio::test]
async fn what_is_asked_too_much_says_when_to_come_back() {
    let gateway = Harness::start().await;
    let reply = gateway.post("/api/v1/workflows/full/runs", "{}").await;
    assert_eq!(reply.problem(429, "RESOURCE_EXHAUSTED")["retry_after_ms"], 2_500);
    assert_eq!(reply.header("retry-after"), "3");
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let gateway = Harness::start().await;
    let path = format!(
        "/api/v1/runs?workflow=triage&status=failed,running&status=paused&label=team%3Da&label=env%3Dx%3Dy&since=2026-01-01T00:00:00Z&parent={RUN}&limit=2"
    );
    let page = gateway.get(&path).await.json();
    assert_eq!((&page["items"][0]["run_id"], &page["next_cursor"]), (&json!(RUN), &json!("2")));
    let request = gateway.fakes.seen().lists.remove(0);
    assert_eq!(request.statuses, ["failed", "running", "paused"]);
    assert_eq!((request.labels["team"].as_str(), request.labels["env"].as_str()), ("a", "x=y"));
    assert_eq!((request.workflow.as_str(), request.parent_run_id.as_str()), ("triage", RUN));
    assert_eq!((request.since.unwrap().seconds, request.page.unwrap().limit), (1_767_225_600, 2));
    let last = gateway.get("/api/v1/runs?cursor=2").await.json();
    assert!(last.get("next_cursor").is_none(), "{last}");
    for bad in ["limit=0", "limit=501", "limit=x", "status=odd", "label=x", "since=now", "parent=1", "workflow=a%20b", "statuses=failed"] {
        gateway.get(&format!("/api/v1/runs?{bad}")).await.problem(400, "INVALID_ARGUMENT");
    }
}

#[tokio::test]
async fn a_run_is_shown() {
    let gateway = Harness::start().await;
    let run = gateway.get(&format!("/api/v1/runs/{}", RUN.to_uppercase())).await.json();
    assert_eq!((&run["run_id"], &run["state"]), (&json!(RUN), &json!({ "a": 1 })));
    gateway.get(&format!("/api/v1/runs/{MISSING}")).await.problem(404, "NOT_FOUND");
    gateway.get("/api/v1/runs/7").await.problem(400, "INVALID_ARGUMENT");
}

#[tokio::test]
async fn runs_are_steered() {
    let gateway = Harness::start().await;
    for action in ["cancel", "pause", "resume", "retry"] {
        let reply = gateway.post(&format!("/api/v1/runs/{RUN}/{action}"), "{\"reason\":\"because\"}").await.json();
        assert_eq!((&reply["outcome"], &reply["run"]["run_id"]), (&json!("already"), &json!(RUN)));
    }
    assert_eq!(gateway.post_with(&format!("/api/v1/runs/{RUN}/cancel"), "", &[]).await.status, 200, "the body may be left out");
    let seen: Vec<_> = gateway.fakes.seen().controls.iter().map(|control| (control.action(), control.reason.clone())).collect();
    let because = || "because".to_owned();
    let expected = [
        (ControlAction::Cancel, because()),
        (ControlAction::Pause, because()),
        (ControlAction::Resume, because()),
        (ControlAction::Retry, because()),
        (ControlAction::Cancel, String::new()),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn signals_and_forks_hand_their_key_on() {
    let gateway = Harness::start().await;
    let headers = [("idempotency-key", "k")];
    let signal = gateway.post_with(&format!("/api/v1/runs/{RUN}/signal"), r#"{"name":"go","payload":[1]}"#, &headers).await;
    assert_eq!(signal.json()["applied"], true);
    let fork = gateway.post_with(&format!("/api/v1/runs/{RUN}/fork"), r#"{"checkpoint":3,"state":{"a":2}}"#, &headers).await;
    assert_eq!(fork.status, 201);
    {
        let seen = gateway.fakes.seen();
        assert_eq!((seen.signals[0].idempotency_key.as_str(), &seen.signals[0].payload[..]), ("k", b"[1]".as_slice()));
        assert_eq!(
            (seen.forks[0].idempotency_key.as_str(), seen.forks[0].checkpoint, &seen.forks[0].state[..]),
            ("k", 3, b"{\"a\":2}".as_slice())
        );
    }
    gateway.post(&format!("/api/v1/runs/{RUN}/fork"), r#"{"checkpoint":3,"state":[]}"#).await.problem(400, "INVALID_ARGUMENT");
    gateway.post(&format!("/api/v1/runs/{RUN}/signal"), "").await.problem(400, "INVALID_ARGUMENT");
}

#[tokio::test]
async fn history_is_shown() {
    let gateway = Harness::start().await;
    let at = |rest: &str| format!("/api/v1/runs/{RUN}/{rest}");
    assert_eq!(gateway.get(&at("checkpoints")).await.json()["items"][0]["kind"], "started");
    assert_eq!(gateway.get(&at("checkpoints/4")).await.json()["checkpoint"]["seq"], 4);
    assert_eq!(gateway.get(&at("checkpoints/diff?from=1&to=4")).await.json()["patch"][0]["op"], "remove");
    assert_eq!(gateway.get(&at("why")).await.json(), json!({ "status": "waiting", "waits": [{ "step": "sign-off", "kind": "approval" }] }));
    for bad in ["checkpoints/x", "checkpoints/-1", "checkpoints/diff", "checkpoints/diff?from=1&to=x"] {
        gateway.get(&at(bad)).await.problem(400, "INVALID_ARGUMENT");
    }
}
