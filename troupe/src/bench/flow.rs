//! Latency and throughput of runs whose steps do nothing.

use super::{millis, percentile, table::Table};
use crate::host::Host;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use std::{
    fmt::Write,
    time::{Duration, Instant},
};
use troupe_client::{Client, Context, TaskError, Worker, client::StartOptions};
use troupe_service_kit::Tasks;

const LIMIT: Duration = Duration::from_secs(120);

pub(crate) async fn measure(host: &Host, quick: bool, sync: Duration, table: &mut Table) -> anyhow::Result<()> {
    let client = Client::new(host.transport());
    let workers = Tasks::new();
    let stop = workers.token().clone();
    let worker = Worker::builder(host.transport()).agent("noop", noop).agent("nap", nap).slots(2048);
    workers.spawn("bench-worker", async move { worker.run(async move { stop.cancelled().await }).await });
    for source in
        [sequence("one", "noop", 1), sequence("five", "noop", 5), sequence("ten", "noop", 10), sequence("naps", "nap", 10), fan_out()]
    {
        client.apply_workflow(&source, false).await?;
    }
    warm_up(&client).await?;
    let scale = if quick { 10 } else { 1 };

    let mut one = repeat(&client, "one", 400 / scale).await?;
    let note = format!("{:.1} disk syncs in place", millis(percentile(&mut one, 50)) / millis(sync));
    table.row(
        "one-step run, started and awaited, p50 / p95",
        format!("{:.2} / {:.2} ms", millis(percentile(&mut one, 50)), millis(percentile(&mut one, 95))),
        note,
    );

    let mut ten = repeat(&client, "ten", 100 / scale).await?;
    let per_step = millis(percentile(&mut ten, 50)) / 10.0;
    table.row("overhead per sequential step, p50", format!("{per_step:.3} ms"), "a ten-step run over ten");

    let mut fan = repeat(&client, "fan", 40 / scale).await?;
    table.row(
        "100 parallel steps and a join, p50 / p95",
        format!("{:.2} / {:.2} ms", millis(percentile(&mut fan, 50)), millis(percentile(&mut fan, 95))),
        "",
    );

    throughput(&client, 1000 / scale, table).await?;

    let mut naps = repeat(&client, "naps", 10 / scale.min(5)).await?;
    let plain = plain_naps().await;
    let ratio = percentile(&mut naps, 50).as_secs_f64() / plain.as_secs_f64();
    table.row("ten 20 ms steps, time over a plain loop", format!("{ratio:.3}"), "");
    workers.stop(Duration::from_secs(5)).await;
    Ok(())
}

async fn noop(_: Context, input: Value) -> Result<Value, TaskError> {
    Ok(input)
}

async fn nap(_: Context, _: Value) -> Result<Value, TaskError> {
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(Value::Null)
}

async fn plain_naps() -> Duration {
    let start = Instant::now();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
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
    let (run, _) = client.start_run(workflow, &json!({}), StartOptions::default()).await?;
    let (run, ended) = client.wait_run(&run.run_id, LIMIT).await?;
    anyhow::ensure!(ended && run.status == "succeeded", "run {} of {workflow} is {}", run.run_id, run.status);
    Ok(())
}

async fn throughput(client: &Client, runs: usize, table: &mut Table) -> anyhow::Result<()> {
    let mut best = (0.0, 0);
    for concurrency in [16, 64, 256, 1000] {
        let start = Instant::now();
        stream::iter(0..runs).map(|_| run_once(client, "five")).buffer_unordered(concurrency).try_collect::<Vec<()>>().await?;
        let rate = runs as f64 / start.elapsed().as_secs_f64();
        if rate > best.0 {
            best = (rate, concurrency);
        }
    }
    table.row(
        format!("{runs} runs of 5 steps, best concurrency"),
        format!("{:.0} runs/s, {:.0} steps/s", best.0, best.0 * 5.0),
        format!("{} at once", best.1),
    );
    Ok(())
}
