//! `troupe bench`: what this machine does with Troupe in one process, and beside it what a deployment does that runs already.

mod busy;
mod flow;
mod kept;
mod machine;
mod memory;
mod table;

use crate::{
    cli::{Bench, Globals},
    host::{self, Host},
    settings,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use table::{Column, Table};
use troupe_client::Transport;
use troupe_service_kit::Tasks;

pub(crate) async fn execute(globals: &Globals, args: &Bench) -> anyhow::Result<()> {
    let folder = Scratch::new()?;
    let mut table = Table::default();
    embedded(globals, args, folder.path(), &mut table).await?;
    if !args.against.is_empty() {
        distributed(args, &mut table).await?;
    }
    table.print(globals.output)
}

/// One process with its workers, on its own SQLite file; then the memory of a process of its own.
async fn embedded(globals: &Globals, args: &Bench, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let mut own = settings::load(globals, settings::Flags { data: Some(folder.join("flow")), ..settings::Flags::default() })?.value;
    own.gateway.http = host::ANY_PORT;
    own.gateway.grpc = host::ANY_PORT;
    machine::embedded(folder, Column::Embedded, table)?;
    let tasks = Tasks::new();
    let host = Host::start(own, host::no_metrics(), &tasks).await?;
    flow::measure(&host.transport(), &host.transport(), args.quick, table, Column::Embedded).await?;
    if args.finished > 0 {
        kept::fill(&host.transport(), args.finished).await?;
        machine::embedded(folder, Column::EmbeddedKept, table)?;
        flow::measure(&host.transport(), &host.transport(), args.quick, table, Column::EmbeddedKept).await?;
    }
    host.drain().await;
    tasks.stop(Duration::from_secs(5)).await;
    drop(host);
    memory::embedded(folder, &args.waiting, args.quick, table).await
}

/// Services that run already; the workers are in this process.
async fn distributed(args: &Bench, table: &mut Table) -> anyhow::Result<()> {
    let client = Transport::connect(&args.against)?;
    let workers = if args.workers_at.is_empty() { client.clone() } else { Transport::connect(&args.workers_at)? };
    machine::distributed(&args.postgres, Column::Distributed, table).await?;
    memory::idle(&args.services, table).await?;
    flow::measure(&client, &workers, args.quick, table, Column::Distributed).await?;
    memory::distributed(&client, &args.services, &args.waiting, args.quick, table).await?;
    if args.finished > 0 {
        kept::fill(&client, args.finished).await?;
        machine::distributed(&args.postgres, Column::DistributedKept, table).await?;
        flow::measure(&client, &workers, args.quick, table, Column::DistributedKept).await?;
    }
    Ok(())
}

/// A folder that goes with the measurement.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::current_dir()?.join(format!(".troupe-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} is left over: {error}", self.0.display());
        }
    }
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
