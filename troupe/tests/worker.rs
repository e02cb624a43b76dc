//! A worker process is killed in the middle of a ten-record task: the next attempt starts at the first missing record.

#[path = "support/both.rs"]
mod both;

use anyhow::{Context as _, ensure};
use both::{Place, on_both};
use serde_json::{Value, json};
use std::{fs, io::Write, path::Path, process::Stdio, time::Duration};
use tokio::process::{Child, Command};
use troupe_client::{Context, TaskError, Worker};
use troupe_testkit::{DevServer, System, until};

on_both!(a_killed_worker_loses_no_record_and_repeats_none);

const RECORDS: usize = 10;
/// Set in the worker's own process: the scheduler's address and the ledger of side effects.
const URL: &str = "TROUPE_TEST_WORKER_URL";
const LEDGER: &str = "TROUPE_TEST_WORKER_LEDGER";
const STOP_AT: &str = "TROUPE_TEST_WORKER_STOP_AT";

/// Not a test of its own: the body of the worker process, which is this program again.
#[tokio::test(flavor = "multi_thread")]
async fn worker_process() -> anyhow::Result<()> {
    let Ok(url) = std::env::var(URL) else { return Ok(()) };
    let ledger = std::env::var(LEDGER)?;
    let stop_at: usize = std::env::var(STOP_AT)?.parse()?;
    let worker = Worker::connect(&url)?.agent("counter", move |ctx: Context, _: Value| count(ctx, ledger.clone(), stop_at));
    worker.run(std::future::pending()).await?;
    Ok(())
}

/// Ten effects, each one written to the ledger and recorded. The process hangs at `stop_at`, to be killed there.
async fn count(ctx: Context, ledger: String, stop_at: usize) -> Result<Value, TaskError> {
    let mut sum = 0;
    for index in 0..RECORDS {
        if index == stop_at {
            note(&ledger, "hangs")?;
            std::future::pending::<()>().await;
        }
        let value: usize = ctx
            .step(&format!("effect-{index}"), || async {
                note(&ledger, &format!("effect {index} attempt {}", ctx.attempt()))?;
                Ok(index * index)
            })
            .await?;
        sum += value;
    }
    Ok(json!({ "sum": sum }))
}

fn note(ledger: &str, line: &str) -> Result<(), TaskError> {
    let failed = |e: std::io::Error| TaskError::new("LEDGER", e.to_string());
    let mut file = fs::OpenOptions::new().append(true).create(true).open(ledger).map_err(failed)?;
    writeln!(file, "{line}").map_err(failed)
}

fn spawn_worker(server: &System, ledger: &Path, stop_at: usize) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", "worker_process", "--nocapture"]).env(URL, server.grpc_url()).env(LEDGER, ledger);
    command.env(STOP_AT, stop_at.to_string()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().context("cannot start the worker")
}

async fn a_killed_worker_loses_no_record_and_repeats_none(server: Place) -> anyhow::Result<()> {
    let ledger = server.folder().join("ledger");
    let mut first = spawn_worker(&server, &ledger, 6)?;
    let (status, run) = server.post("/api/v1/tasks", &json!({ "agent": "counter", "input": {} })).await?;
    ensure!(status < 300, "{run}");
    let id = run["run_id"].as_str().context("no run_id")?.to_owned();
    until("the worker is in the middle", async || fs::read_to_string(&ledger).ok()?.contains("hangs").then_some(())).await?;
    first.kill().await?;

    let _second = spawn_worker(&server, &ledger, RECORDS + 1)?;
    let ended = until("the task ends", async || {
        let (_, run) = server.get(&format!("/api/v1/runs/{id}")).await.ok()?;
        matches!(run["status"].as_str(), Some("succeeded" | "failed")).then_some(run)
    })
    .await?;
    ensure!(ended["status"] == "succeeded", "{ended}");
    ensure!(ended.to_string().contains("285"), "0+1+4+...+81 is 285: {ended}");

    let lines = fs::read_to_string(&ledger)?;
    let effects: Vec<&str> = lines.lines().filter(|l| l.starts_with("effect")).collect();
    ensure!(effects.len() == RECORDS, "each effect happens once:\n{lines}");
    for (index, effect) in effects.iter().enumerate() {
        ensure!(effect.starts_with(&format!("effect {index} ")), "effects are out of order:\n{lines}");
    }
    let hang = lines.lines().position(|l| l == "hangs").context("no hang")?;
    ensure!(
        hang == 6 && lines.lines().nth(7).is_some_and(|l| l.starts_with("effect 6 ")),
        "the second attempt starts at record 6:\n{lines}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_server_ends_well_and_its_runs_go_on() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut server = DevServer::start(env!("CARGO_BIN_EXE_troupe"), folder.path()).await?;
    let source =
        "workflow: nap\nsteps:\n  rest: { sleep: 2s }\n  done: { after: rest, set: { ok: true } }\noutput: { ok: \"${ state.ok }\" }\n";
    let (status, answer) = server.post_text("/api/v1/workflows", "application/yaml", source).await?;
    ensure!(status < 300, "{answer}");
    let (_, run) = server.post("/api/v1/workflows/nap/runs", &json!({})).await?;
    let id = run["run_id"].as_str().context("no run_id")?.to_owned();
    ensure!(tokio::time::timeout(Duration::from_secs(30), server.terminate()).await??, "SIGTERM must end it with 0");
    server.restart().await?;
    let ended = until("the timer fires after the restart", async || {
        let (_, run) = server.get(&format!("/api/v1/runs/{id}")).await.ok()?;
        (run["status"] == "succeeded").then_some(run)
    })
    .await?;
    ensure!(ended["output"]["ok"] == true, "{ended}");
    Ok(())
}
