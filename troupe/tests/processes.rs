//! The services as processes of their own: they work together, and may be killed in the middle of a run; of two replicas one may be missing.

#[path = "support/both.rs"]
mod both;

use anyhow::{Context, ensure};
use both::Place;
use serde_json::{Value, json};
use std::{collections::BTreeSet, pin::pin, time::Duration};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use troupe_client::Client;
use troupe_testkit::{Api, Cluster, Plan, until};

const ITEMS: u64 = 40;

const AGENT: &str = "\
agent: square
kind: code
code: |
  function run({ n }) { return { square: n * n }; }
";

/// Each item takes 50 ms at least, two at a time: there is a middle in which to kill.
const WORKFLOW: &str = "\
workflow: squares
input: { type: object, required: [numbers], properties: { numbers: { type: array } } }
state: { total: { merge: sum, default: 0 } }
steps:
  each:
    for_each: \"${ input.numbers }\"
    as: n
    concurrency: 2
    steps:
      rest: { sleep: 50ms }
      square: { after: rest, agent: square, with: { n: \"${ n }\" }, save: { total: \"${ output.square }\" } }
output: { total: \"${ state.total }\" }
";

async fn apply(api: &Api) -> anyhow::Result<()> {
    for (path, text) in [("/api/v1/agents", AGENT), ("/api/v1/workflows", WORKFLOW)] {
        let (status, answer) = api.post_text(path, "application/yaml", text).await?;
        ensure!(status < 300, "{path}: {answer}");
    }
    Ok(())
}

/// The steps that succeeded, as a watcher at the public gRPC port is told.
async fn watch(client: Client, run: String) -> anyhow::Result<Vec<String>> {
    let mut events = pin!(client.watch(&run, ""));
    let mut succeeded = Vec::new();
    while let Some(event) = events.try_next().await? {
        if event.kind == "step.succeeded" {
            succeeded.push(event.step);
        }
    }
    Ok(succeeded)
}

fn has_ended(run: &Value) -> bool {
    matches!(run["status"].as_str(), Some("succeeded" | "failed" | "cancelled"))
}

/// The run when it has come to checkpoint `seq` or to its end. A service that is restarted answers with an error for a moment.
async fn reaches(api: &Api, run: &str, seq: u64) -> anyhow::Result<Value> {
    until(&format!("the run comes to checkpoint {seq}"), async || {
        let (status, now) = api.get(&format!("/api/v1/runs/{run}")).await.ok()?;
        (status == 200 && (has_ended(&now) || now["seq"].as_u64()? >= seq)).then_some(now)
    })
    .await
}

/// What happens to a victim after it was killed.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Restart,
    Nothing,
}

/// Runs the workflow to its right end while the victims are killed one after the other, `further` checkpoints apart.
async fn survives(cluster: &Cluster, victims: &[&str], further: u64, then: Then) -> anyhow::Result<()> {
    let api = cluster.api().clone();
    until("all services find each other", async || matches!(api.get("/health").await, Ok((200, _))).then_some(())).await?;
    apply(&api).await?;
    let (status, run) =
        api.post("/api/v1/workflows/squares/runs", &json!({ "input": { "numbers": (0..ITEMS).collect::<Vec<_>>() } })).await?;
    ensure!(status < 300, "{run}");
    let id = run["run_id"].as_str().context("no run_id")?.to_owned();
    let watcher = JoinSet::from_iter([watch(Client::connect(&cluster.grpc_url())?, id.clone())]);

    let mut seq = 0;
    for victim in victims {
        let before = reaches(&api, &id, seq + further).await?;
        ensure!(!has_ended(&before), "the run ended before the {victim} was killed: {before}");
        cluster.kill(victim).await?;
        if then == Then::Restart {
            cluster.restart(victim).await?;
        }
        seq = before["seq"].as_u64().context("no seq")?;
    }
    let ended = tokio::time::timeout(Duration::from_secs(90), reaches(&api, &id, u64::MAX)).await??;
    ensure!(ended["status"] == "succeeded", "{ended}");
    let expected: u64 = (0..ITEMS).map(|n| n * n).sum();
    ensure!(ended["output"] == json!({ "total": expected }), "{ended}");

    let told = tokio::time::timeout(Duration::from_secs(90), watcher.join_all()).await?.remove(0)?;
    let distinct: BTreeSet<&String> = told.iter().collect();
    // Of each item the sleep, the task and the group around them, and the loop itself.
    ensure!(told.len() == distinct.len() && u64::try_from(told.len())? == 3 * ITEMS + 1, "a watcher saw {told:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn services_in_processes_of_their_own_survive_kills() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_troupe"), folder.path(), Plan::default()).await?;
    survives(&cluster, &["executor-1", "scheduler-1"], 20, Then::Restart).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_replicas_of_each_service_one_is_enough() -> anyhow::Result<()> {
    let system = Place::services().await?;
    let cluster = system.cluster().context("no services")?;
    let victims = ["scheduler-1", "executor-1", "checkpoint-1", "registry-1", "approval-1", "agents-1"];
    survives(cluster, &victims, 8, Then::Nothing).await
}
