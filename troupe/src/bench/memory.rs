//! Memory of a server of its own, idle and with many runs that wait for a person, and the time it takes to find them again.

use super::table::Table;
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
use troupe_client::{Client, client::StartOptions};

const WAITING: &str = "workflow: waiting\nsteps:\n  ask: { approve: { title: \"Go on?\" } }\n";
const AT_ONCE: usize = 256;
/// The counter that tells how many runs were found again.
const RECOVERED: &str = "executor_recovered_runs_total";

pub(crate) async fn measure(folder: &Path, waiting: &[u32], quick: bool, table: &mut Table) -> anyhow::Result<()> {
    let data = folder.join("memory");
    let mut server = Server::start(&data).await?;
    table.row("memory, idle", format!("{:.0} MiB", server.rss()?), "RSS");
    let mut started = 0;
    let mut steps: Vec<u32> = waiting.iter().map(|n| if quick { n / 100 } else { *n }).collect();
    steps.sort_unstable();
    for count in steps {
        let client = Client::connect(&server.grpc)?;
        client.apply_workflow(WAITING, false).await?;
        let start = Instant::now();
        stream::iter(started..count)
            .map(|_| async { client.start_run("waiting", &json!({}), StartOptions::default()).await })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        let rate = f64::from(count - started) / start.elapsed().as_secs_f64();
        started = count;
        server.settle().await;
        table.row(
            format!("memory, {count} runs waiting for a person"),
            format!("{:.0} MiB", server.rss()?),
            format!("started at {rate:.0} runs/s"),
        );
    }
    if started > 0 {
        server.kill().await?;
        let start = Instant::now();
        server = Server::start(&data).await?;
        let ready = start.elapsed();
        server.until_recovered(f64::from(started)).await?;
        let note = format!("answers after {:.2} s; {:.0} MiB afterwards", ready.as_secs_f64(), server.rss()?);
        table.row(format!("recovery of {started} waiting runs after kill -9"), format!("{:.2} s", start.elapsed().as_secs_f64()), note);
    }
    server.kill().await
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

    /// Resident memory, MiB.
    fn rss(&self) -> anyhow::Result<f64> {
        let pid = self.child.id().context("the server has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("memory is read from /proc, on Linux")?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.split_whitespace().nth(1).context("no VmRSS")?.parse()?;
        Ok(kib / 1024.0)
    }

    /// Lets the allocator give back what the load needed.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    async fn until_recovered(&self, runs: f64) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let text = reqwest::get(format!("{}/metrics", self.http)).await?.text().await?;
            let found: f64 =
                text.lines().filter(|l| l.starts_with(RECOVERED)).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum();
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
