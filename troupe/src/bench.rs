//! `troupe bench`: what this machine does with Troupe in one process, with the journal and the queues that the settings name.

mod flow;
mod memory;
mod table;

use crate::{
    cli::{Bench, Globals},
    host::{self, Host},
    output, settings,
};
use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use table::Table;
use troupe_service_kit::Tasks;

pub(crate) async fn execute(globals: &Globals, args: &Bench) -> anyhow::Result<()> {
    let folder = Scratch::new()?;
    let mut table = Table::default();
    let (append, sync) = (sync_time(folder.path(), false)?, sync_time(folder.path(), true)?);
    table.row("disk: write 4 KiB and sync, p50, appended / in place", format!("{:.3} / {:.3} ms", millis(append), millis(sync)), "");

    let mut own = settings::load(globals, settings::Flags { data: Some(folder.path().join("flow")), ..settings::Flags::default() })?.value;
    own.gateway.http = crate::host::ANY_PORT;
    own.gateway.grpc = crate::host::ANY_PORT;
    let stores = stores(&own);
    let tasks = Tasks::new();
    let host = Host::start(own, host::no_metrics(), &tasks).await?;
    flow::measure(&host, args.quick, sync, &mut table).await?;
    host.drain().await;
    tasks.stop(Duration::from_secs(5)).await;
    drop(host);

    memory::measure(folder.path(), &args.waiting, args.quick, &mut table).await?;
    table.print(globals.output)?;
    match globals.output {
        output::Format::Table => {
            output::line(&format!("one process, workers in the same process, {stores}; memory is that of a separate `troupe dev`"))
        }
        _ => Ok(()),
    }
}

/// Where journal and queues are.
fn stores(settings: &settings::Settings) -> String {
    let on_postgres = !settings.checkpoint.postgres.url.is_empty();
    let journal = if on_postgres { "journal on PostgreSQL" } else { "journal on SQLite in WAL mode with synchronous=FULL" };
    let queues = if settings.scheduler.redis.url.0.is_empty() { "in memory" } else { "on Redis" };
    format!("{journal}, queues {queues}")
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

/// The disk's own time for what every commit needs. SQLite's log grows at first, and is then written in place.
fn sync_time(folder: &Path, in_place: bool) -> anyhow::Result<Duration> {
    let mut file = File::create(folder.join("sync"))?;
    let mut times = Vec::new();
    for _ in 0..200 {
        if in_place {
            file.seek(SeekFrom::Start(0))?;
        }
        file.write_all(&[7; 4096])?;
        let start = Instant::now();
        file.sync_data()?;
        times.push(start.elapsed());
    }
    Ok(percentile(&mut times, 50))
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
