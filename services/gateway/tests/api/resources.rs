use crate::harness::{Harness, RUN, request};
use axum::{body::Body, http::Method};
use serde_json::json;
use troupe_proto::{common::v1::target::Kind, registry::v1::AgentState};

#[tokio::test]
async fn a_task_is_a_run() {
    let gateway = Harness::start().await;
    let reply = gateway.post("/api/v1/tasks", r#"{"agent":"writer","input":{"x":1},"timeout":"30s","attempts":2}"#).await;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (201, format!("/api/v1/tasks/{RUN}").as_str()));
    gateway.post("/api/v1/tasks", r#"{"tool":"text.count"}"#).await;
    {
        let seen = gateway.fakes.seen();
        let first = &seen.tasks[0];
        assert_eq!(first.target.as_ref().unwrap().kind, Some(Kind::Agent("writer".into())));
        assert_eq!((first.timeout.unwrap().seconds, first.attempts, &first.input[..]), (30, 2, b"{\"x\":1}".as_slice()));
        assert_eq!(seen.tasks[1].target.as_ref().unwrap().kind, Some(Kind::Tool("text.count".into())));
    }
    for bad in
        ["{}", r#"{"agent":"a","tool":"b"}"#, r#"{"agent":"a b"}"#, r#"{"agent":"a","attempts":0}"#, r#"{"agent":"a","timeout":"x"}"#]
    {
        gateway.post("/api/v1/tasks", bad).await.problem(400, "INVALID_ARGUMENT");
    }
    // The run that the fakes know belongs to a workflow.
    gateway.get(&format!("/api/v1/tasks/{RUN}")).await.problem(404, "NOT_FOUND");
}

#[tokio::test]
async fn tasks_are_found_among_runs() {
    let gateway = Harness::start().await;
    let page = gateway.get("/api/v1/tasks").await.json();
    assert_eq!(page["items"].as_array().unwrap().len(), 1, "the first page has none, the second one");
    assert_eq!(page["items"][0]["workflow"], "task.agent.writer");
}

#[tokio::test]
async fn agents_are_operated() {
    let gateway = Harness::start().await;
    assert_eq!(gateway.post_with("/api/v1/agents", "agent: writer", &[("content-type", "application/yaml")]).await.status, 201);
    assert_eq!(gateway.get("/api/v1/agents?capability=writing").await.json()["items"][0]["state"], "active");
    assert_eq!(gateway.get("/api/v1/agents/writer").await.json()["state"], "draining");
    for (action, state) in [("drain", "draining"), ("quarantine", "quarantined"), ("activate", "active")] {
        let agent = gateway.post(&format!("/api/v1/agents/writer/{action}"), r#"{"reason":"r"}"#).await.json();
        assert_eq!(agent["state"], state);
    }
    let states: Vec<_> = gateway.fakes.seen().states.iter().map(|s| (s.state(), s.reason.clone())).collect();
    let r = || "r".to_owned();
    assert_eq!(states, [(AgentState::Draining, r()), (AgentState::Quarantined, r()), (AgentState::Active, r())]);
    let gone = gateway.send(request(Method::DELETE, "/api/v1/agents/writer").body(Body::empty()).unwrap()).await;
    assert_eq!((gone.status.as_u16(), gone.body.len()), (204, 0));
}

#[tokio::test]
async fn approvals_are_decided_once() {
    let gateway = Harness::start().await;
    assert_eq!(gateway.get("/api/v1/approvals?status=all").await.json()["items"][0]["title"], "Publish?");
    assert_eq!(gateway.get(&format!("/api/v1/approvals/{RUN}")).await.json()["show"], "report");
    let path = format!("/api/v1/approvals/{RUN}/decision");
    let decision = r#"{"decision":"approve","edits":{"report":"better"},"comment":"fine","digest":"d"}"#;
    assert_eq!(gateway.post(&path, decision).await.status, 200);
    let problem = gateway.post(&path, decision).await.problem(409, "CONFLICT");
    assert!(problem["detail"].as_str().unwrap().contains("anna"), "{problem}");
    {
        let seen = gateway.fakes.seen();
        let first = &seen.decisions[0];
        assert_eq!(
            (first.decision.as_str(), first.by.as_str(), first.comment.as_str(), first.digest.as_str()),
            ("approve", "anonymous", "fine", "d")
        );
        assert_eq!(first.payload, "{\"report\":\"better\"}");
    }
    for bad in [r#"{"decision":"maybe"}"#, r#"{"decision":"answer"}"#, r#"{"decision":"reject","edits":{}}"#, "{}"] {
        gateway.post(&path, bad).await.problem(400, "INVALID_ARGUMENT");
    }
    gateway.get("/api/v1/approvals/1").await.problem(400, "INVALID_ARGUMENT");
}

#[tokio::test]
async fn dead_letters_are_redriven() {
    let gateway = Harness::start().await;
    assert_eq!(gateway.get("/api/v1/queues").await.json()["items"][0]["ready"], 3);
    for path in ["/api/v1/queues/agent/writer/dead", "/api/v1/queues/agent%2Fwriter/dead"] {
        assert_eq!(gateway.get(path).await.json()["items"][0]["run_id"], RUN, "{path}");
    }
    for path in ["/api/v1/queues/agent/writer/redrive", "/api/v1/queues/agent%2Fwriter/redrive"] {
        assert_eq!(gateway.post(path, "{}").await.json(), json!({ "redriven": [RUN], "failed": [], "more": true }), "{path}");
    }
    let missing = crate::fakes::MISSING;
    let named = gateway.post("/api/v1/queues/agent/writer/redrive", &json!({ "run_ids": [RUN, missing] }).to_string()).await.json();
    assert_eq!(
        (&named["redriven"], &named["failed"][0]["run_id"], &named["failed"][0]["code"]),
        (&json!([RUN]), &json!(missing), &json!("NOT_FOUND"))
    );
    assert!(gateway.fakes.seen().lists.iter().all(|list| list.dead_queue == "agent/writer" && list.statuses == ["failed"]));
    gateway.get("/api/v1/queues/odd/writer/dead").await.problem(400, "INVALID_ARGUMENT");
    gateway.get("/api/v1/queues/writer/dead").await.problem(400, "INVALID_ARGUMENT");
}

#[tokio::test]
async fn the_program_says_how_it_is() {
    let gateway = Harness::start().await;
    for path in ["/health", "/ready", "/live"] {
        let reply = gateway.get(path).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["status"]), (200, &json!("ok")), "{path}");
    }
    let names: Vec<_> = gateway.get("/health").await.json()["dependencies"].as_array().unwrap().iter().map(|d| d["name"].clone()).collect();
    assert_eq!(names, ["approval", "executor", "registry", "scheduler"]);
    assert_eq!(gateway.get("/metrics").await.text(), "troupe_test 1\n");
    assert!(gateway.get("/docs/errors/NOT_FOUND").await.text().starts_with("# NOT_FOUND\n"));
    gateway.get("/docs/errors/ODD").await.problem(404, "NOT_FOUND");
    assert!(gateway.get("/docs/").await.text().contains("swagger"));
}
