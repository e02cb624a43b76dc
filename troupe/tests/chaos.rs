//! Many runs of all kinds while the server and the worker are killed again and again: everything that was acknowledged is there at the end,
//! every step has one outcome, and nothing is done twice but what a killed worker had in its hands.

use anyhow::{Context as _, ensure};
use futures::{StreamExt, future::join_all, stream};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};
use tokio::process::{Child, Command};
use troupe_client::{
    Client, Context, Error, TaskError, Worker,
    client::{Answer, StartOptions},
};
use troupe_domain::Code;
use troupe_proto::{
    common::v1::Page,
    executor::v1::{ListRunsRequest, Run},
};
use troupe_testkit::{DevServer, until, until::PATIENCE};

const SEED: u64 = 20_261_121;
const RUNS: usize = 150;
const KILLS: usize = 12;
/// Between two starts.
const PACE: Duration = Duration::from_millis(60);
const RECORDS: usize = 10;

/// Set in the worker's own process: the server's address, the ledger of side effects, and which process it is.
const URL: &str = "TROUPE_TEST_CHAOS_URL";
const LEDGER: &str = "TROUPE_TEST_CHAOS_LEDGER";
const LIFE: &str = "TROUPE_TEST_CHAOS_LIFE";

const RETRY: &str = "retry: { attempts: 10, backoff: { initial: 50ms, max: 500ms } }";

fn workflows() -> [String; 7] {
    [
        format!(
            "workflow: sequence
steps:
  a: {{ agent: work, with: {{ n: \"${{ input.n }}\" }}, {RETRY} }}
  b: {{ after: a, agent: work, with: {{ n: \"${{ steps.a.output.n }}\" }}, {RETRY} }}
  c: {{ after: b, agent: work, with: {{ n: \"${{ steps.b.output.n }}\" }}, {RETRY} }}
output: \"${{ steps.c.output.n }}\"
"
        ),
        format!(
            "workflow: fan
state: {{ seen: {{ merge: append, default: [] }} }}
steps:
  part: {{ for_each: \"${{ input.items }}\", concurrency: 4, agent: work, with: {{ n: \"${{ item }}\" }}, save: {{ seen: \"${{ output.n }}\" }}, {RETRY} }}
output: \"${{ state.seen }}\"
"
        ),
        format!(
            "workflow: circle
state: {{ seen: {{ merge: append, default: [] }} }}
steps:
  again: {{ loop: {{ while: \"${{ loop.index < 4 }}\", max: 9 }}, agent: work, with: {{ n: \"${{ loop.index }}\" }}, save: {{ seen: \"${{ output.n }}\" }}, {RETRY} }}
output: \"${{ state.seen }}\"
"
        ),
        format!(
            "workflow: human
state: {{ note: {{ default: none }}, got: {{ merge: append, default: [] }} }}
steps:
  first: {{ agent: work, with: {{ n: \"${{ input.n }}\" }}, {RETRY} }}
  sign: {{ after: first, approve: {{ title: \"Go on?\", edit: [note] }} }}
  one: {{ after: sign, signal: go, save: {{ got: \"${{ output }}\" }} }}
  two: {{ after: one, signal: go, save: {{ got: \"${{ output }}\" }} }}
  rest: {{ after: two, sleep: 200ms }}
  last: {{ after: rest, agent: work, with: {{ n: \"${{ steps.first.output.n }}\" }}, {RETRY} }}
output: {{ note: \"${{ state.note }}\", got: \"${{ state.got }}\", n: \"${{ steps.last.output.n }}\" }}
"
        ),
        format!(
            "workflow: child
steps:
  nap: {{ sleep: 100ms }}
  work: {{ after: nap, agent: work, with: {{ n: \"${{ input.n }}\" }}, {RETRY} }}
output: \"${{ steps.work.output.n }}\"
"
        ),
        "workflow: family
steps:
  left: { workflow: child, with: { n: \"${ input.n }\" } }
  right: { workflow: child, with: { n: \"${ input.n + 10 }\" } }
output: \"${ steps.left.output + steps.right.output }\"
"
        .to_owned(),
        format!(
            "workflow: long
steps:
  count: {{ agent: counter, with: {{}}, {RETRY} }}
  moody: {{ after: count, agent: moody, with: {{ sum: \"${{ steps.count.output.sum }}\" }}, {RETRY} }}
output: \"${{ steps.moody.output.sum }}\"
"
        ),
    ]
}

/// What run `i` is: its workflow, its input and its output.
fn plan(i: usize) -> (&'static str, Value, Value) {
    let n = i * 100;
    match i % 6 {
        0 => ("sequence", json!({ "n": n }), json!(n + 3)),
        1 => ("fan", json!({ "items": (n..n + 8).collect::<Vec<_>>() }), json!((n + 1..n + 9).collect::<Vec<_>>())),
        2 => ("circle", json!({}), json!([1, 2, 3, 4])),
        3 => ("human", json!({ "n": n }), json!({ "note": format!("note {i}"), "got": [n, n + 1], "n": n + 2 })),
        4 => ("family", json!({ "n": n }), json!(n + n + 12)),
        _ => ("long", json!({}), json!(285)),
    }
}

/// Not a test of its own: the body of the worker process, which is this program again.
#[tokio::test(flavor = "multi_thread")]
async fn worker_process() -> anyhow::Result<()> {
    let Ok(url) = std::env::var(URL) else { return Ok(()) };
    let ledger = Ledger { file: std::env::var(LEDGER)?.into(), life: std::env::var(LIFE)? };
    let (work, counter, moody) = (ledger.clone(), ledger.clone(), ledger);
    let worker = Worker::connect(&url)?
        .agent("work", move |ctx: Context, input: Value| one_more(ctx, input, work.clone()))
        .agent("counter", move |ctx: Context, _: Value| count(ctx, counter.clone()))
        .agent("moody", move |ctx: Context, input: Value| refuse_twice(ctx, input, moody.clone()))
        .slots(32);
    worker.run(std::future::pending()).await?;
    Ok(())
}

/// A file to which side effects append a line each.
#[derive(Clone)]
struct Ledger {
    file: PathBuf,
    life: String,
}

impl Ledger {
    fn note(&self, what: &str, key: &str, detail: impl std::fmt::Display) -> Result<(), TaskError> {
        let failed = |e: std::io::Error| TaskError::new("LEDGER", e.to_string());
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&self.file).map_err(failed)?;
        file.write_all(format!("{}\t{what}\t{key}\t{detail}\n", self.life).as_bytes()).map_err(failed)
    }
}

/// Not waiting for anything: work takes time.
async fn toil() {
    let time = Duration::from_millis(rand::random_range(2..40));
    tokio::time::sleep(time).await;
}

async fn one_more(ctx: Context, input: Value, ledger: Ledger) -> Result<Value, TaskError> {
    ledger.note("task", &ctx.idempotency_key(), ctx.attempt())?;
    toil().await;
    let n = input["n"].as_u64().ok_or_else(|| TaskError::new("INVALID_INPUT", input.to_string()))?;
    Ok(json!({ "n": n + 1 }))
}

async fn count(ctx: Context, ledger: Ledger) -> Result<Value, TaskError> {
    ledger.note("task", &ctx.idempotency_key(), ctx.attempt())?;
    let mut sum = 0;
    for index in 0..RECORDS {
        let key = format!("{}/{index}", ctx.idempotency_key());
        let value: usize = ctx
            .step(&format!("effect-{index}"), || async {
                ledger.note("begun", &key, ctx.attempt())?;
                toil().await;
                Ok(index * index)
            })
            .await?;
        ledger.note("recorded", &key, ctx.attempt())?;
        sum += value;
    }
    Ok(json!({ "sum": sum }))
}

async fn refuse_twice(ctx: Context, input: Value, ledger: Ledger) -> Result<Value, TaskError> {
    ledger.note("task", &ctx.idempotency_key(), ctx.attempt())?;
    if ctx.attempt() < 3 {
        return Err(TaskError::retryable("MOODY", "not in the mood"));
    }
    Ok(input)
}

fn spawn_worker(url: &str, ledger: &Path, life: usize) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", "worker_process", "--nocapture"]).env(URL, url).env(LEDGER, ledger).env(LIFE, life.to_string());
    command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().context("cannot start the worker")
}

/// Repeats a call for as long as nobody can say what became of it.
async fn insist<T>(what: &str, mut call: impl AsyncFnMut() -> Result<T, Error>) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.code.is_transient() || error.code == Code::Cancelled => {
                ensure!(begun.elapsed() < PATIENCE, "{what}: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => anyhow::bail!("{what}: {error}"),
        }
    }
}

/// One run from its start to its end; answers with its id.
async fn live(client: &Client, i: usize) -> anyhow::Result<String> {
    let (workflow, input, output) = plan(i);
    let options = StartOptions { idempotency_key: format!("chaos-{i}"), ..StartOptions::default() };
    let (run, _) = insist("start", async || client.start_run(workflow, &input, options.clone()).await).await?;
    if workflow == "human" {
        guide(client, &run.run_id, i).await?;
    }
    let ended = until(&format!("run {i} ({workflow}, {}) ends", run.run_id), async || {
        let (run, ended) = client.wait_run(&run.run_id, Duration::from_secs(1)).await.ok()?;
        ended.then_some(run)
    })
    .await?;
    ensure!(ended.status == "succeeded", "run {i} ({workflow}): {} {:?}", ended.status, ended.error);
    let got: Value = serde_json::from_slice(&ended.output)?;
    ensure!(got == output, "run {i} ({workflow}) gave {got}, not {output}");
    let (again, created) = insist("start again", async || client.start_run(workflow, &input, options.clone()).await).await?;
    ensure!(!created && again.run_id == ended.run_id, "the key of run {i} started {} beside {}", again.run_id, ended.run_id);
    Ok(ended.run_id)
}

/// Decides and signals, once each as far as the run is concerned.
async fn guide(client: &Client, run: &str, i: usize) -> anyhow::Result<()> {
    let approval = until("the approval is there", async || {
        let page = Page { limit: 10, cursor: String::new() };
        client.list_approvals(run, Vec::new(), page).await.ok()?.approvals.pop()
    })
    .await?;
    let payload = json!({ "note": format!("note {i}") }).to_string().into();
    let answer = Answer { decision: "approve".into(), by: "user:ada".into(), payload, digest: approval.digest, ..Answer::default() };
    insist("decide", async || match client.decide(&approval.approval_id, answer.clone()).await {
        // An answer was lost on its way back.
        Err(error) if error.code == Code::Conflict => Ok(()),
        other => other.map(|_| ()),
    })
    .await?;
    for n in 0..2 {
        let key = format!("signal-{n}");
        for _ in 0..2 {
            insist("signal", async || client.signal_run(run, "go", &json!(i * 100 + n), &key).await).await?;
        }
    }
    Ok(())
}

/// Kills the server or the worker at random moments until the runs have ended or it was done often enough; answers how often each.
async fn rage(server: &mut DevServer, ledger: &Path, ended: &AtomicUsize) -> anyhow::Result<(usize, usize)> {
    // Another seed finds other moments.
    let seed = std::env::var("TROUPE_TEST_SEED").map_or(Ok(SEED), |text| text.parse())?;
    let mut rng = StdRng::seed_from_u64(seed);
    let url = server.grpc_url();
    let mut worker = spawn_worker(&url, ledger, 0)?;
    let (mut servers, mut workers) = (0, 0);
    while servers + workers < KILLS && ended.load(Ordering::Relaxed) < RUNS {
        // Not waiting for anything: the moment of the kill is what is random here.
        tokio::time::sleep(Duration::from_millis(rng.random_range(150..900))).await;
        if (servers + workers) % 3 != 2 {
            server.kill().await?;
            servers += 1;
            server.restart().await?;
        } else {
            worker.kill().await?;
            workers += 1;
            worker = spawn_worker(&url, ledger, workers)?;
        }
    }
    until("all runs end", async || (ended.load(Ordering::Relaxed) >= RUNS).then_some(())).await?;
    Ok((servers, workers))
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_change_nothing_that_was_acknowledged() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let ledger = folder.path().join("ledger");
    let mut server = DevServer::start(env!("CARGO_BIN_EXE_troupe"), &folder.path().join("data")).await?;
    let client = Client::connect(&server.grpc_url())?;
    for source in workflows() {
        client.apply_workflow(&source, false).await?;
    }
    let ended = AtomicUsize::new(0);
    let lives = stream::iter(0..RUNS)
        .map(|i| {
            let (client, ended) = (&client, &ended);
            async move {
                tokio::time::sleep(PACE * u32::try_from(i)?).await;
                let run = live(client, i).await;
                ended.fetch_add(1, Ordering::Relaxed);
                run
            }
        })
        .buffer_unordered(RUNS)
        .collect::<Vec<_>>();
    let (kills, runs) = tokio::join!(rage(&mut server, &ledger, &ended), lives);
    let runs = runs.into_iter().collect::<anyhow::Result<HashSet<String>>>()?;
    let (servers, workers) = kills?;
    ensure!(servers + workers >= KILLS - 2 && servers > 3 && workers > 1, "only {servers} kills of the server and {workers} of the worker");

    let all = every_run(&client).await?;
    let roots: HashSet<String> = all.iter().filter(|run| run.parent_run_id.is_empty()).map(|run| run.run_id.clone()).collect();
    ensure!(roots == runs, "{} runs were acknowledged, and there are {}", runs.len(), roots.len());
    ensure!(all.len() == RUNS + 2 * (RUNS / 6), "{} runs with their children", all.len());
    ensure!(all.iter().all(|run| run.status == "succeeded"), "some child did not succeed");
    for checked in join_all(all.iter().map(|run| one_outcome_each(&client, &run.run_id))).await {
        checked?;
    }
    effects_are_not_repeated(&fs::read_to_string(&ledger)?, workers)
}

async fn every_run(client: &Client) -> anyhow::Result<Vec<Run>> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let filters = ListRunsRequest { page: Some(Page { limit: 100, cursor }), ..ListRunsRequest::default() };
        let page = client.list_runs(filters).await?;
        all.extend(page.runs);
        if page.next_cursor.is_empty() {
            return Ok(all);
        }
        cursor = page.next_cursor;
    }
}

async fn one_outcome_each(client: &Client, run: &str) -> anyhow::Result<()> {
    let journal = client.list_checkpoints(run, Page { limit: 500, cursor: String::new() }).await?;
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    for checkpoint in journal.checkpoints.iter().filter(|checkpoint| !checkpoint.changes.is_empty()) {
        let changes: Vec<Value> = serde_json::from_slice(&checkpoint.changes)?;
        for change in changes.iter().filter(|c| matches!(c["kind"].as_str(), Some("step.succeeded" | "step.failed" | "step.skipped"))) {
            *outcomes.entry(change["step"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    ensure!(!outcomes.is_empty(), "run {run} has no outcomes");
    let twice: Vec<_> = outcomes.iter().filter(|(_, times)| **times > 1).collect();
    ensure!(twice.is_empty(), "steps of run {run} with two outcomes: {twice:?}");
    Ok(())
}

/// One life of the worker does nothing twice, whatever happens to the server; and what is recorded is never done again by any.
fn effects_are_not_repeated(ledger: &str, kills: usize) -> anyhow::Result<()> {
    let (mut seen, mut recorded, mut done) = (HashSet::new(), HashSet::new(), HashMap::new());
    for line in ledger.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [_, what, key, attempt] = fields[..] else { anyhow::bail!("a broken line: {line}") };
        ensure!(what == "recorded" || seen.insert(line.to_owned()), "done twice by one worker: {line}");
        match what {
            "recorded" => _ = recorded.insert(key.to_owned()),
            "begun" => ensure!(!recorded.contains(key), "done again after it was recorded: {line}"),
            _ => *done.entry((key.to_owned(), attempt.to_owned())).or_insert(0_usize) += 1,
        }
    }
    let most = done.values().copied().max().unwrap_or_default();
    ensure!(most <= kills + 1, "some attempt was begun {most} times with {kills} kills of the worker");
    ensure!(recorded.len() == RUNS / 6 * RECORDS, "{} records", recorded.len());
    Ok(())
}
