//! Latency and throughput of runs whose steps do nothing.

use super::{
    busy::Busy,
    millis, percentile,
    table::{Column, Table},
};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use std::{
    fmt::Write,
    time::{Duration, Instant},
};
use troupe_client::{Client, Context, TaskError, Transport, Worker, client::StartOptions};
use troupe_service_kit::Tasks;

const LIMIT: Duration = Duration::from_secs(120);

/// Runs that wait and are told to go on all at once.
const SIGNALLED: usize = 1_000;
const GO: &str = "go";

/// What is measured with: the callers' client, and where the figures go.
struct Measure<'a> {
    client: Client,
    table: &'a mut Table,
    column: Column,
    /// How many times fewer repetitions than usual.
    scale: usize,
}

/// Measures over one transport for callers and one for workers, which are in this process.
pub(crate) async fn measure(
    callers: &Transport,
    workers: &Transport,
    quick: bool,
    table: &mut Table,
    column: Column,
) -> anyhow::Result<()> {
    let client = Client::new(callers.clone());
    let tasks = Tasks::new();
    let stop = tasks.token().clone();
    let worker = Worker::builder(workers.clone()).agent("noop", noop).agent("nap", nap).slots(2048);
    tasks.spawn("bench-worker", async move { worker.run(async move { stop.cancelled().await }).await });
    let waiting = format!("workflow: signalled\nsteps:\n  wait: {{ signal: {GO} }}\n");
    for source in [
        sequence("one", "noop", 1),
        sequence("five", "noop", 5),
        sequence("ten", "noop", 10),
        sequence("naps", "nap", 10),
        fan_out(),
        waiting,
    ] {
        client.apply_workflow(&source, false).await?;
    }
    warm_up(&client).await?;
    let mut measure = Measure { client, table, column, scale: if quick { 10 } else { 1 } };
    measure.latency().await?;
    measure.throughput(1000).await?;
    measure.naps().await?;
    measure.signals().await?;
    tasks.stop(Duration::from_secs(5)).await;
    Ok(())
}

impl Measure<'_> {
    async fn latency(&mut self) -> anyhow::Result<()> {
        let before = Busy::now();
        let mut one = repeat(&self.client, "one", 400 / self.scale).await?;
        self.times("one-step run, started and awaited, p50 / p95", &mut one);
        self.processors("such a run", one.len(), &before, &Busy::now());
        let before = Busy::now();
        let mut ten = repeat(&self.client, "ten", 100 / self.scale).await?;
        let step = percentile(&mut ten, 50) / 10;
        let ratio = self.table.ratio(self.column, step);
        self.table.row(
            "overhead per sequential step (a ten-step run over ten), p50",
            self.column,
            format!("{:.3} ms{ratio}", millis(step)),
        );
        self.processors("such a step", ten.len() * 10, &before, &Busy::now());
        let before = Busy::now();
        let mut fan = repeat(&self.client, "fan", 40 / self.scale).await?;
        self.times("100 parallel steps and a join, p50 / p95", &mut fan);
        self.processors("such a fan-out", fan.len(), &before, &Busy::now());
        Ok(())
    }

    /// What the processors did for each of so many.
    fn processors(&mut self, what: &str, count: usize, before: &Busy, after: &Busy) {
        // No count is so large that a digit of it is lost.
        let shown = after.since(before, count as f64);
        self.table.row(format!("... processors, {what}"), self.column, shown);
    }

    fn times(&mut self, work: &str, times: &mut [Duration]) {
        let (half, most) = (percentile(times, 50), percentile(times, 95));
        let ratio = self.table.ratio(self.column, half);
        self.table.row(work, self.column, format!("{:.2} / {:.2} ms{ratio}", millis(half), millis(most)));
    }

    async fn throughput(&mut self, runs: usize) -> anyhow::Result<()> {
        let runs = runs / self.scale;
        let mut best = (0.0, 0);
        let before = Busy::now();
        for concurrency in [64, 256, 1000] {
            // The best of three: other work on the machine makes single ones vary.
            for _ in 0..3 {
                let start = Instant::now();
                stream::iter(0..runs)
                    .map(|_| run_once(&self.client, "five"))
                    .buffer_unordered(concurrency)
                    .try_collect::<Vec<()>>()
                    .await?;
                let rate = runs as f64 / start.elapsed().as_secs_f64();
                if rate > best.0 {
                    best = (rate, concurrency);
                }
            }
        }
        let shown = format!("{:.0} runs/s, {:.0} steps/s ({} at once)", best.0, best.0 * 5.0, best.1);
        self.table.row(format!("{runs} runs of 5 steps, best of three at the best concurrency"), self.column, shown);
        self.processors("a step of all nine", 9 * runs * 5, &before, &Busy::now());
        Ok(())
    }

    async fn naps(&mut self) -> anyhow::Result<()> {
        let before = Busy::now();
        let mut naps = repeat(&self.client, "naps", 10 / self.scale.min(5)).await?;
        let after = Busy::now();
        let mut plain = Vec::new();
        for _ in 0..5 {
            plain.push(plain_naps().await);
        }
        let ratio = percentile(&mut naps, 50).as_secs_f64() / percentile(&mut plain, 50).as_secs_f64();
        self.table.row("ten 20 ms steps, time over a plain loop", self.column, format!("{ratio:.3}"));
        self.processors("such a step of 20 ms", naps.len() * 10, &before, &after);
        Ok(())
    }

    async fn signals(&mut self) -> anyhow::Result<()> {
        let count = SIGNALLED / self.scale;
        let runs: Vec<String> = stream::iter(0..count)
            .map(|_| async { self.client.start_run("signalled", &json!({}), StartOptions::default()).await.map(|(run, _)| run.run_id) })
            .buffer_unordered(256)
            .try_collect()
            .await?;
        let before = Busy::now();
        let start = Instant::now();
        stream::iter(&runs)
            .map(|run| async {
                self.client.signal_run(run, GO, &json!({}), "").await?;
                let (run, ended) = self.client.wait_run(run, LIMIT).await?;
                succeeded(&run.run_id, &run.status, ended)
            })
            .buffer_unordered(count)
            .try_collect::<Vec<()>>()
            .await?;
        let shown = format!("{:.3} s", start.elapsed().as_secs_f64());
        self.table.row(format!("{count} waiting runs signalled at once, all ended"), self.column, shown);
        self.processors("such a run that was signalled", count, &before, &Busy::now());
        Ok(())
    }
}

async fn noop(_: Context, input: Value) -> Result<Value, TaskError> {
    Ok(input)
}

/// On a thread of its own: the runtime's timer counts in whole milliseconds.
async fn nap(_: Context, _: Value) -> Result<Value, TaskError> {
    sleep().await;
    Ok(Value::Null)
}

async fn sleep() {
    // It ends early only when the runtime does.
    let _ = tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(20))).await;
}

async fn plain_naps() -> Duration {
    let start = Instant::now();
    for _ in 0..10 {
        sleep().await;
    }
    start.elapsed()
}

fn sequence(name: &str, agent: &str, steps: usize) -> String {
    let mut out = format!("workflow: {name}\nsteps:\n");
    for step in 0..steps {
        let after = if step > 0 { format!("after: s{}, ", step - 1) } else { String::new() };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  s{step}: {{ {after}agent: {agent} }}");
    }
    out
}

fn fan_out() -> String {
    "workflow: fan\nsteps:\n  all: { for_each: \"${ range(100) }\", agent: noop }\n  join: { after: all, set: { done: true } }\n".to_owned()
}

/// The first runs pay for connections, caches and page faults.
async fn warm_up(client: &Client) -> anyhow::Result<()> {
    for name in ["one", "five", "ten", "fan"] {
        repeat(client, name, 20).await?;
    }
    Ok(())
}

async fn repeat(client: &Client, workflow: &str, times: usize) -> anyhow::Result<Vec<Duration>> {
    let mut out = Vec::with_capacity(times);
    for _ in 0..times.max(1) {
        let start = Instant::now();
        run_once(client, workflow).await?;
        out.push(start.elapsed());
    }
    Ok(out)
}

async fn run_once(client: &Client, workflow: &str) -> anyhow::Result<()> {
    let (run, ended) = client.run(workflow, &json!({}), StartOptions::default(), LIMIT).await?;
    succeeded(&run.run_id, &run.status, ended)
}

fn succeeded(run: &str, status: &str, ended: bool) -> anyhow::Result<()> {
    anyhow::ensure!(ended && status == "succeeded", "run {run} is {status}");
    Ok(())
}
