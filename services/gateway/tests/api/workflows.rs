use crate::harness::Harness;
use serde_json::json;
use troupe_proto::executor::v1::Workflow;

#[tokio::test]
async fn a_file_is_applied_as_it_was_sent() {
    let gateway = Harness::start().await;
    for kind in ["application/yaml", "text/yaml", "application/json", "application/x-www-form-urlencoded", "text/plain; charset=utf-8"] {
        let reply =
            gateway.post_with("/api/v1/workflows", "workflow: triage\n", &[("content-type", kind), ("troupe-namespace", "team-a")]).await;
        assert_eq!(reply.status, 201, "{kind}: {}", reply.text());
        let expected = json!({ "namespace": "team-a", "name": "triage", "version": "1", "hash": "abc", "created": true, "dry_run": false });
        assert_eq!(reply.json(), expected);
    }
    let seen = gateway.fakes.seen();
    assert!(seen.applied.iter().all(|request| request.source == "workflow: triage\n" && !request.dry_run));
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let gateway = Harness::start().await;
    let reply = gateway.post("/api/v1/workflows?dry_run=true", "{}").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["created"], &reply.json()["dry_run"]), (200, &json!(false), &json!(true)));
    assert!(gateway.fakes.seen().applied[0].dry_run);
}

#[tokio::test]
async fn faults_have_their_place_and_what_to_do() {
    let gateway = Harness::start().await;
    let problem = gateway.post("/api/v1/workflows", "broken").await.problem(400, "INVALID_ARGUMENT");
    let fault =
        json!({ "path": "steps.a.after", "message": "there is no step b", "help": "name a step of this group", "line": 3, "column": 5 });
    assert_eq!(problem["errors"], json!([fault]));
    assert_eq!(problem["type"], "/docs/errors/INVALID_ARGUMENT");
}

#[tokio::test]
async fn definitions_are_shown() {
    let gateway = Harness::start().await;
    gateway.fakes.store(Workflow {
        name: "triage".into(),
        body: "{\"workflow\":\"triage\"}".into(),
        source: "text".into(),
        ..Default::default()
    });
    assert_eq!(gateway.get("/api/v1/workflows").await.json()["items"][0]["name"], "triage");
    assert_eq!(gateway.get("/api/v1/workflows/triage").await.json()["definition"], json!({ "workflow": "triage" }));
    assert_eq!(gateway.get("/api/v1/workflows/triage/versions").await.json()["items"].as_array().unwrap().len(), 1);
    for path in ["/api/v1/workflows/absent", "/api/v1/workflows/absent/versions", "/api/v1/workflows/absent/graph"] {
        gateway.get(path).await.problem(404, "NOT_FOUND");
    }
    gateway.get("/api/v1/workflows/triage/graph?format=dot").await.problem(400, "INVALID_ARGUMENT");
}

/// Steps one after the other, a choice, a fallback and a group with a loop.
const WORKFLOW: &str = r#"
workflow: review
version: 1.0.0
state:
  score: { merge: max, default: 0 }
steps:
  draft: { agent: writer, on_error: rescue }
  rescue: { agent: { capability: rescue } }
  judge:
    after: draft
    agent: critic
    routes: { good: publish, _: improve }
  publish: { tool: text.count, with: { text: "x" } }
  improve:
    loop: { while: "${ state.score < 8 }", max: 4 }
    steps:
      score: { agent: critic, save: { score: "${ output.score }" } }
      revise: { after: score, when: "${ state.score < 8 }", agent: writer }
"#;

#[tokio::test]
async fn a_workflow_is_drawn() {
    let gateway = Harness::start().await;
    let definition = troupe_engine::language::parse(WORKFLOW, &troupe_engine::Limits::default()).unwrap();
    gateway.fakes.store(Workflow { name: "review".into(), body: definition.canonical.to_bytes(), ..Default::default() });

    let graph = gateway.get("/api/v1/workflows/review/graph").await.json();
    let mut edges: Vec<String> = graph["edges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|edge| format!("{} {} {} {}", edge["from"], edge["kind"], edge["to"], edge["label"]).replace('"', ""))
        .collect();
    edges.sort();
    let expected = [
        "draft after judge null",
        "draft error rescue null",
        "improve.score after improve.revise null",
        "judge route improve _",
        "judge route publish good",
    ];
    assert_eq!(edges, expected);
    let node = |id: &str| graph["nodes"].as_array().unwrap().iter().find(|node| node["id"] == id).unwrap().clone();
    assert_eq!((node("draft")["kind"].clone(), node("draft")["target"].clone()), (json!("agent"), json!("writer")));
    assert_eq!(node("rescue")["target"], "any with rescue");
    assert_eq!(node("improve.score")["parent"], "improve");
    assert!(node("improve")["loop"].as_str().unwrap().contains("at most 4"), "{graph}");
    assert!(node("improve.revise")["when"].as_str().unwrap().contains("state.score < 8"), "{graph}");

    let mermaid = gateway.get("/api/v1/workflows/review/graph?format=mermaid").await;
    assert!(mermaid.header("content-type").starts_with("text/vnd.mermaid"));
    assert!(mermaid.text().starts_with("flowchart TD\n") && mermaid.text().contains("subgraph"), "{}", mermaid.text());
}

#[tokio::test]
async fn schemas_are_served() {
    let gateway = Harness::start().await;
    for kind in ["workflow", "agent"] {
        assert!(gateway.get(&format!("/api/v1/schemas/{kind}")).await.json().is_object(), "{kind}");
    }
    gateway.get("/api/v1/schemas/odd").await.problem(404, "NOT_FOUND");
}
