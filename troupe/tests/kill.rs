//! The process is killed at random moments of a real run, and started again: the result is the same, and no step has two outcomes.

use anyhow::{Context, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use troupe_service_kit::Tasks;
use troupe_testkit::{DevServer, until};

const SEED: u64 = 20_261_121;
const KILLS: usize = 10;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn example(file: &str) -> String {
    root().join("examples/incident-triage").join(file).display().to_string()
}

/// The example's own log, of 23,500 lines.
fn log(folder: &Path) -> anyhow::Result<PathBuf> {
    let file = folder.join("input.json");
    std::fs::write(&file, json!({ "log": incident_triage::generate(SEED)?.log }).to_string())?;
    Ok(file)
}

async fn start_run(server: &DevServer, input: &Path) -> anyhow::Result<String> {
    let workflow = example("workflow.yaml");
    let input = format!("@{}", input.display());
    let out = server.troupe(&["run", &workflow, "--input", &input, "--output", "json"]).await?;
    let run: Value = serde_json::from_str(&out)?;
    Ok(run["run_id"].as_str().context("no run_id")?.to_owned())
}

/// Answers the approval as soon as it is there; answers with the ended run.
async fn finish(server: &DevServer, run: &str) -> anyhow::Result<Value> {
    until("the run ends", async || {
        let (_, page) = server.get(&format!("/api/v1/approvals?run={run}")).await.ok()?;
        for approval in page["items"].as_array().into_iter().flatten() {
            let path = format!("/api/v1/approvals/{}/decision", approval["approval_id"].as_str()?);
            server.post(&path, &json!({ "decision": "approve", "by": "role:incident-manager" })).await.ok()?;
        }
        let (_, run) = server.get(&format!("/api/v1/runs/{run}")).await.ok()?;
        let ended = matches!(run["status"].as_str(), Some("succeeded" | "failed" | "cancelled"));
        ended.then_some(run)
    })
    .await
}

/// Every change of every checkpoint, in order.
async fn changes(server: &DevServer, run: &str) -> anyhow::Result<Vec<Value>> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let (status, page) = server.get(&format!("/api/v1/runs/{run}/checkpoints?limit=500&cursor={cursor}")).await?;
        ensure!(status == 200, "{page}");
        for checkpoint in page["items"].as_array().context("no items")? {
            let seq = checkpoint["seq"].as_u64().unwrap_or_default();
            all.extend(checkpoint["changes"].as_array().into_iter().flatten().map(|change| json!({ "seq": seq, "change": change })));
        }
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return Ok(all),
        }
    }
}

fn assert_one_outcome_each(changes: &[Value]) -> anyhow::Result<()> {
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    for entry in changes {
        let change = &entry["change"];
        if matches!(change["kind"].as_str(), Some("step.succeeded" | "step.failed" | "step.skipped")) {
            *outcomes.entry(change["step"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    ensure!(outcomes.len() > 30, "only {} steps have an outcome", outcomes.len());
    let twice: Vec<_> = outcomes.iter().filter(|(_, n)| **n > 1).collect();
    ensure!(twice.is_empty(), "steps with two outcomes: {twice:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_change_nothing() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let input = log(folder.path())?;
    let program = env!("CARGO_BIN_EXE_troupe");

    let calm = DevServer::start(program, &folder.path().join("calm")).await?;
    let run = start_run(&calm, &input).await?;
    let expected = finish(&calm, &run).await?;
    ensure!(expected["status"] == "succeeded", "{expected}");
    let report = expected.pointer("/output/report").and_then(Value::as_str).context("no report")?;
    ensure!(report.contains("connection pool exhausted") && report.contains("TLS certificate expired"), "{report}");
    drop(calm);

    let mut rng = StdRng::seed_from_u64(SEED);
    // One task at a time: the run takes long enough to be hit ten times.
    let slow = [("TROUPE__AGENTS__SLOTS", "1")];
    let mut server = DevServer::start_with(program, &folder.path().join("rough"), &slow).await?;
    let run = start_run(&server, &input).await?;
    // Somebody watches all the time, in another terminal.
    let mut watcher = server.command(&["runs", "watch", &run, "--output", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut events = BufReader::new(watcher.stderr.take().context("no standard error")?).lines();
    events.next_line().await?.context("the watcher saw nothing")?;
    let events = async move { while let Ok(Some(_)) = events.next_line().await {} };
    let drained = Tasks::new();
    drained.spawn("events", events);
    let (mut kills, mut seen) = (0, BTreeSet::new());
    while kills < KILLS {
        // Not waiting for anything: the moment of the kill is what is random here.
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..40))).await;
        let (_, now) = server.get(&format!("/api/v1/runs/{run}")).await?;
        // It moves on until it waits for a person; nobody answers before the last kill.
        ensure!(matches!(now["status"].as_str(), Some("running" | "waiting")), "kill {kills}: {}", now["status"]);
        seen.insert(now["seq"].as_u64().unwrap_or_default());
        server.kill().await?;
        kills += 1;
        server.restart().await?;
    }
    let ended = finish(&server, &run).await?;
    ensure!(ended["status"] == "succeeded", "{ended}");
    ensure!(ended["output"] == expected["output"], "the output differs:\n{}\n{}", ended["output"], expected["output"]);
    let watched = watcher.wait_with_output().await?;
    let last: Value = serde_json::from_slice(&watched.stdout).context("what the watcher printed at the end")?;
    ensure!(watched.status.success() && last["output"] == expected["output"], "the watcher ended with {:?}: {last}", watched.status);
    ensure!(seen.len() >= 3, "the kills hit the run at the same places: {seen:?}");
    assert_one_outcome_each(&changes(&server, &run).await?)
}
