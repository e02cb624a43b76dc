//! Memory of processes, idle and with many runs that wait for a person, and the time it takes to find those again after a loss.

use super::table::{Column, Table};
use anyhow::{Context, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::json;
use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use troupe_client::{Client, Transport, client::StartOptions};

const WAITING: &str = "workflow: waiting\nsteps:\n  ask: { approve: { title: \"Go on?\" } }\n";
const AT_ONCE: usize = 256;
/// The counter that tells how many runs were found again.
const RECOVERED: &str = "executor_recovered_runs_total";
/// What every process says of itself.
const RESIDENT: &str = "process_resident_memory_bytes";

/// A `troupe dev` of its own: idle, with runs that wait, and after it was killed.
pub(crate) async fn embedded(folder: &Path, waiting: &[u32], quick: bool, table: &mut Table) -> anyhow::Result<()> {
    let data = folder.join("memory");
    let mut server = Server::start(&data).await?;
    let column = Column::Embedded;
    table.row("memory (RSS), idle", column, format!("{:.0} MiB", resident(&server.http).await?));
    let mut started = 0;
    let client = Client::connect(&server.grpc)?;
    for count in counts(waiting, quick) {
        let rate = wait_for_a_person(&client, count - started).await?;
        started = count;
        settle().await;
        let shown = format!("{:.0} MiB", resident(&server.http).await?);
        table.row(format!("memory, {count} runs waiting for a person"), column, shown);
        table.row(format!("starting them, up to {count}"), column, format!("{rate:.0} runs/s"));
    }
    if started > 0 {
        server.kill().await?;
        let start = Instant::now();
        server = Server::start(&data).await?;
        let ready = start.elapsed();
        server.until_recovered(f64::from(started)).await?;
        let (all, memory) = (start.elapsed().as_secs_f64(), resident(&server.http).await?);
        let shown = format!("{all:.2} s, answering after {:.2} s; {memory:.0} MiB", ready.as_secs_f64());
        table.row(format!("recovery of {started} waiting runs after kill -9"), column, shown);
    }
    server.kill().await
}

/// The services of a deployment before any load.
pub(crate) async fn idle(services: &[(String, String)], table: &mut Table) -> anyhow::Result<()> {
    if !services.is_empty() {
        table.row("memory (RSS), idle", Column::Distributed, each(services).await?);
    }
    Ok(())
}

/// The same with runs that wait.
pub(crate) async fn distributed(
    transport: &Transport,
    services: &[(String, String)],
    waiting: &[u32],
    quick: bool,
    table: &mut Table,
) -> anyhow::Result<()> {
    if services.is_empty() {
        return Ok(());
    }
    let (client, mut started) = (Client::new(transport.clone()), 0);
    table.row("memory after the load above", Column::Distributed, each(services).await?);
    for count in counts(waiting, quick) {
        let rate = wait_for_a_person(&client, count - started).await?;
        started = count;
        settle().await;
        table.row(format!("memory, {count} runs waiting for a person"), Column::Distributed, each(services).await?);
        table.row(format!("starting them, up to {count}"), Column::Distributed, format!("{rate:.0} runs/s"));
    }
    Ok(())
}

fn counts(waiting: &[u32], quick: bool) -> Vec<u32> {
    let mut counts: Vec<u32> = waiting.iter().map(|n| if quick { n / 100 } else { *n }).collect();
    counts.sort_unstable();
    counts
}

/// Starts runs that wait; answers how many a second.
async fn wait_for_a_person(client: &Client, runs: u32) -> anyhow::Result<f64> {
    client.apply_workflow(WAITING, false).await?;
    let start = Instant::now();
    stream::iter(0..runs)
        .map(|_| async { client.start_run("waiting", &json!({}), StartOptions::default()).await })
        .buffer_unordered(AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(f64::from(runs) / start.elapsed().as_secs_f64())
}

/// Lets allocators give back what the load needed.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

/// Of every process, MiB.
async fn each(services: &[(String, String)]) -> anyhow::Result<String> {
    let mut shown = Vec::new();
    for (name, url) in services {
        shown.push(format!("{name} {:.0}", resident(url).await?));
    }
    Ok(format!("{} MiB", shown.join(", ")))
}

/// Resident memory, MiB.
async fn resident(url: &str) -> anyhow::Result<f64> {
    let bytes = metric(url, RESIDENT).await?.with_context(|| format!("{url}/metrics does not say {RESIDENT}"))?;
    Ok(bytes / f64::from(1 << 20))
}

/// The sum of a metric over its labels.
async fn metric(url: &str, name: &str) -> anyhow::Result<Option<f64>> {
    let text = reqwest::get(format!("{url}/metrics")).await?.text().await?;
    let values: Vec<f64> = text.lines().filter(|l| l.starts_with(name)).filter_map(|l| l.rsplit(' ').next()?.parse().ok()).collect();
    Ok((!values.is_empty()).then(|| values.iter().sum()))
}

/// A `troupe dev` of its own.
struct Server {
    child: Child,
    http: String,
    grpc: String,
}

impl Server {
    async fn start(data: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["dev", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("the server has no output")?).lines();
        let (mut http, mut grpc) = (String::new(), String::new());
        while grpc.is_empty() {
            let line = lines.next_line().await?.context("the server ended before it was ready")?;
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("HTTP"), Some(url)) => url.clone_into(&mut http),
                (Some("gRPC"), Some(address)) => grpc = format!("http://{address}"),
                _ => {}
            }
        }
        Ok(Self { child, http, grpc })
    }

    async fn until_recovered(&self, runs: f64) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let found = metric(&self.http, RECOVERED).await?.unwrap_or(0.0);
            if found >= runs {
                return Ok(());
            }
            ensure!(start.elapsed() < Duration::from_secs(300), "only {found} of {runs} runs were found again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot kill the server")
    }
}
