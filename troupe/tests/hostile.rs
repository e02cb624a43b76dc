//! What a stranger may send: refused or stopped within its limit, with a clear error, and the process lives.

#[path = "support/both.rs"]
mod both;

use anyhow::{Context, ensure};
use both::{Place, on_both};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use troupe_testkit::{System, until};

on_both!(bodies_that_are_too_much, expressions_that_explode, code_that_does_not_end);

const HUNDRED_MIB: usize = 100 << 20;

async fn is_alive(server: &System) -> anyhow::Result<()> {
    let (status, health) = server.get("/health").await?;
    ensure!(status == 200 && health["status"] == "ok", "{status} {health}");
    Ok(())
}

fn refused(answer: &(u16, Value), status: u16, code: &str) -> anyhow::Result<()> {
    ensure!(answer.0 == status && answer.1["code"] == code, "wanted {status} {code}, got {} {}", answer.0, answer.1);
    ensure!(answer.1["detail"].as_str().is_some_and(|d| !d.is_empty()), "no detail: {}", answer.1);
    Ok(())
}

async fn bodies_that_are_too_much(server: Place) -> anyhow::Result<()> {
    let start = Instant::now();
    let huge = server.post_text("/api/v1/workflows/x/runs", "application/json", vec![b' '; HUNDRED_MIB]).await;
    // The server may answer 413, or close the connection while it is still being written to.
    if let Ok(answer) = huge {
        refused(&answer, 413, "PAYLOAD_TOO_LARGE")?;
    }
    ensure!(start.elapsed() < Duration::from_secs(20), "100 MB took {:?}", start.elapsed());
    is_alive(&server).await?;

    refused(&server.post_text("/api/v1/workflows", "application/yaml", vec![b'w', 0xff, 0xfe]).await?, 400, "INVALID_ARGUMENT")?;
    let bomb = format!("{{\"input\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    refused(&server.post_text("/api/v1/workflows/x/runs", "application/json", bomb).await?, 400, "INVALID_ARGUMENT")?;
    refused(&server.post_text("/api/v1/workflows/x/runs", "application/json", "{\"input\": {").await?, 400, "INVALID_ARGUMENT")?;
    is_alive(&server).await
}

async fn expressions_that_explode(server: Place) -> anyhow::Result<()> {
    let deep = format!("workflow: deep\nsteps:\n  a: {{ set: {{ x: \"${{ {}1{} }}\" }} }}\n", "(".repeat(5_000), ")".repeat(5_000));
    refused(&server.post_text("/api/v1/workflows", "application/yaml", deep).await?, 400, "INVALID_ARGUMENT")?;

    let nested =
        "workflow: wide\nsteps:\n  a: { set: { x: \"${ range(9999).map(a, range(9999).map(b, range(9999).map(c, a * b * c))) }\" } }\n";
    let (status, applied) = server.post_text("/api/v1/workflows", "application/yaml", nested).await?;
    if status < 300 {
        let start = Instant::now();
        let (_, run) = server.post("/api/v1/workflows/wide/runs?wait=30s", &json!({})).await?;
        ensure!(run["status"] == "failed", "{run}");
        ensure!(run["error"]["message"].as_str().unwrap_or_default().contains("max_expression_cost"), "the setting is not named: {run}");
        ensure!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    } else {
        refused(&(status, applied), 400, "INVALID_ARGUMENT")?;
    }
    is_alive(&server).await
}

async fn code_that_does_not_end(server: Place) -> anyhow::Result<()> {
    let bombs = [
        ("endless", "while (true) {}", "SANDBOX_TIMEOUT"),
        ("hungry", "const all = []; while (true) all.push(new Array(100000).fill(7));", "SANDBOX_MEMORY"),
        ("deep", "function f() { return f() + 1; } return f();", "SANDBOX_STACK"),
    ];
    for (name, body, _) in bombs {
        let source = format!(
            "agent: {name}\nkind: code\nlimits: {{ timeout: 1s, memory_mib: 32 }}\ncode: |\n  function run(input, ctx) {{ {body} }}\n"
        );
        let (status, answer) = server.post_text("/api/v1/agents", "application/yaml", source).await?;
        ensure!(status < 300, "{answer}");
    }
    for (name, _, code) in bombs {
        let (status, run) = server.post("/api/v1/tasks", &json!({ "agent": name, "input": {}, "attempts": 1 })).await?;
        ensure!(status < 300, "{run}");
        let id = run["run_id"].as_str().context("no run_id")?.to_owned();
        let ended = until("the bomb is stopped", async || {
            let (_, run) = server.get(&format!("/api/v1/runs/{id}")).await.ok()?;
            matches!(run["status"].as_str(), Some("failed" | "succeeded")).then_some(run)
        })
        .await?;
        ensure!(ended["status"] == "failed" && ended["error"]["code"] == code, "{name}: {}", ended["error"]);
    }
    is_alive(&server).await
}
