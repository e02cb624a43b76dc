//! Approvals: durable, answered once, independent of each other.

#[path = "support/both.rs"]
mod both;

use anyhow::{Context, ensure};
use both::{Place, on_both};
use serde_json::{Value, json};
use troupe_testkit::{System, until};

on_both!(an_approval_waits_across_restarts_and_is_answered_once, a_decision_is_bound_to_what_was_shown);

const TWO: &str = r#"
workflow: two-approvals
state:
  log: { merge: append, default: [] }
steps:
  before: { set: { log: "before" } }
  left: { after: before, approve: { title: "Left?", show: "left" } }
  right: { after: before, approve: { title: "Right?", show: "right" } }
  after-left: { after: left, set: { log: "left" } }
  after-right: { after: right, set: { log: "right" } }
output: { log: "${ state.log }" }
"#;

async fn start(server: &System) -> anyhow::Result<String> {
    let (status, answer) = server.post_text("/api/v1/workflows", "application/yaml", TWO).await?;
    ensure!(status < 300, "{answer}");
    let (status, run) = server.post("/api/v1/workflows/two-approvals/runs", &json!({})).await?;
    ensure!(status < 300, "{run}");
    Ok(run["run_id"].as_str().context("no run_id")?.to_owned())
}

async fn approval(server: &System, run: &str, step: &str) -> anyhow::Result<Value> {
    until("the approval is requested", async || {
        let (_, page) = server.get(&format!("/api/v1/approvals?run={run}&status=pending&status=approved")).await.ok()?;
        page["items"].as_array()?.iter().find(|a| a["step"] == step).cloned()
    })
    .await
}

async fn decide(server: &System, approval: &Value, decision: &str) -> anyhow::Result<(u16, Value)> {
    let id = approval["approval_id"].as_str().context("no id")?;
    let body = json!({ "decision": decision, "by": "user:ada", "digest": approval["digest"] });
    server.post(&format!("/api/v1/approvals/{id}/decision"), &body).await
}

async fn run_where(server: &System, run: &str, what: &str, test: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    until(what, async || {
        let (_, run) = server.get(&format!("/api/v1/runs/{run}")).await.ok()?;
        test(&run).then_some(run)
    })
    .await
}

fn step<'a>(run: &'a Value, path: &str) -> &'a Value {
    let steps = run["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
    steps.iter().find(|s| s["path"] == path).unwrap_or(&Value::Null)
}

async fn an_approval_waits_across_restarts_and_is_answered_once(mut server: Place) -> anyhow::Result<()> {
    let run = start(&server).await?;
    let left = approval(&server, &run, "left").await?;
    let right = approval(&server, &run, "right").await?;

    server.crash().await?;
    ensure!(approval(&server, &run, "left").await?["approval_id"] == left["approval_id"], "the approval has another id after the restart");

    let (status, answer) = decide(&server, &left, "approve").await?;
    ensure!(status == 200, "{status} {answer}");
    let (status, problem) = decide(&server, &left, "reject").await?;
    ensure!(status == 409 && problem["code"] == "CONFLICT", "{status} {problem}");
    ensure!(problem["detail"].as_str().unwrap_or_default().contains("user:ada"), "who decided is not told: {problem}");

    let now = run_where(&server, &run, "the left branch goes on", |r| step(r, "after-left")["status"] == "succeeded").await?;
    ensure!(step(&now, "right")["status"] == "waiting", "the other approval was touched: {now}");
    ensure!(approval(&server, &run, "right").await?["status"] == "pending", "the other approval is not pending");
    ensure!(step(&now, "before")["attempt"] == step(&now, "after-left")["attempt"], "a finished step ran again: {now}");
    ensure!(now["state"]["log"] == json!(["before", "left"]), "{now}");

    server.crash().await?;
    let (status, problem) = decide(&server, &left, "approve").await?;
    ensure!(status == 409, "a decision was forgotten: {status} {problem}");
    let (status, answer) = decide(&server, &right, "approve").await?;
    ensure!(status == 200, "{status} {answer}");
    let ended = run_where(&server, &run, "the run ends", |r| r["status"] == "succeeded").await?;
    ensure!(ended["output"]["log"] == json!(["before", "left", "right"]), "{ended}");
    Ok(())
}

async fn a_decision_is_bound_to_what_was_shown(server: Place) -> anyhow::Result<()> {
    let run = start(&server).await?;
    let mut left = approval(&server, &run, "left").await?;
    left["digest"] = json!("0".repeat(64));
    let (status, problem) = decide(&server, &left, "approve").await?;
    ensure!(status == 412 && problem["code"] == "FAILED_PRECONDITION", "{status} {problem}");
    ensure!(approval(&server, &run, "left").await?["status"] == "pending", "it was decided all the same");
    Ok(())
}
