//! `troupe run --follow` goes on when its server is killed and started again, whatever it was about to ask the server.

#[path = "support/both.rs"]
mod both;

use anyhow::{Context, ensure};
use both::{Place, on_both};
use serde_json::{Value, json};
use std::{process::Stdio, time::Duration};
use tokio::io::{AsyncBufReadExt, BufReader};
use troupe_testkit::{DevServer, System, until::PATIENCE};

on_both!(a_server_that_dies_at_any_moment_is_waited_for);

const WORKFLOW: &str = r#"
workflow: followed
state:
  log: { merge: append, default: [] }
steps:
  before: { set: { log: "before" } }
  ask: { after: before, approve: { title: "Go on?", show: "this" } }
  after: { after: ask, set: { log: "after" } }
output: { log: "${ state.log }" }
"#;

/// Follows a run, kills the server as soon as the lines that have `moments` in them are shown, and answers with the run that was printed.
async fn followed(server: &mut System, moments: &[&str]) -> anyhow::Result<Value> {
    let file = server.folder().join("followed.yaml");
    std::fs::write(&file, WORKFLOW)?;
    let file = file.display().to_string();
    let mut command = server.command(&["run", &file, "--follow", "--approve-as", "user:ada", "--output", "json"]);
    let mut follower = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(follower.stderr.take().context("no standard error")?).lines();
    let (mut moments, mut said) = (moments.iter().peekable(), String::new());
    while let Some(line) = lines.next_line().await? {
        if moments.next_if(|moment| line.contains(**moment)).is_some() {
            server.crash().await?;
        }
        said += &line;
        said.push('\n');
    }
    let out = follower.wait_with_output().await?;
    ensure!(out.status.success(), "it ended with {}:\n{said}", out.status);
    ensure!(moments.next().is_none(), "not every moment came:\n{said}");
    serde_json::from_slice(&out.stdout).context(said)
}

async fn a_server_that_dies_at_any_moment_is_waited_for(mut server: Place) -> anyhow::Result<()> {
    let all = [&["run.started", "step.waiting", "run.succeeded"][..], &["run.started"], &["step.waiting"], &["run.succeeded"]];
    // Fourteen processes take longer to come back than one.
    let rounds = if server.is_one_process() { all.len() } else { 1 };
    for moments in &all[..rounds] {
        let run = tokio::time::timeout(PATIENCE, followed(&mut server, moments)).await.with_context(|| format!("{moments:?} hangs"))??;
        ensure!(run["status"] == "succeeded" && run["output"]["log"] == json!(["before", "after"]), "{moments:?}: {run}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_without_a_server_is_an_error_at_once() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut server = DevServer::start(env!("CARGO_BIN_EXE_troupe"), folder.path()).await?;
    server.kill().await?;
    let out = tokio::time::timeout(Duration::from_secs(30), server.command(&["run", "followed", "--follow"]).output()).await??;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(!out.status.success() && said.contains("no server at"), "{said}");
    Ok(())
}
