//! The stage: databases, services, workers, and proxies on the links between them.

use crate::{
    disk::Disk,
    fault::{PATHS, Path, Target},
    options::Options,
};
use anyhow::Context;
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{self, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Mutex as AsyncMutex;
use troupe_client::Client;
use troupe_testkit::{Cluster, Launch, Plan, Postgres, Process, Proxy, Redis, cluster::service_of};

/// Processes whose clock can be moved, by service: the last one of each.
const CLOCKED: [Target; 2] = [Target::Executor, Target::Scheduler];
/// A worker's lease on a task: shorter than a pause, longer than any work between two signs of life.
pub const TASK_LEASE_SECONDS: u64 = 5;

/// Into how many partitions runs are split.
pub const PARTITIONS: u32 = 8;

/// A process and the target it calls.
type Pair = (String, String);
type Links = Arc<Mutex<BTreeMap<Pair, Arc<Proxy>>>>;

pub struct Stage {
    pub cluster: Cluster,
    pub postgres: AsyncMutex<Postgres>,
    pub redis: AsyncMutex<Redis>,
    pub workers: Vec<(String, Mutex<Process>)>,
    pub client: Client,
    links: Links,
    /// The file that says how far the clock of a process is moved.
    clocks: BTreeMap<String, PathBuf>,
    /// Why no clock can be moved.
    pub no_clocks: Option<String>,
    /// The small disk; or why there is none.
    pub disk: Result<Disk, String>,
    pub data: PathBuf,
    /// All processes that run from the start to the end but for what is done to them.
    first: Vec<String>,
}

impl Stage {
    /// Starts everything; answers when all are ready.
    pub async fn start(options: &Options, data: &path::Path) -> anyhow::Result<Self> {
        fs::create_dir(data).with_context(|| format!("cannot make {}", data.display()))?;
        // PostgreSQL runs as another user when this is root.
        fs::set_permissions(data, fs::Permissions::from_mode(0o711))?;
        fs::create_dir(data.join("ledger"))?;
        let folder = data.join("postgres");
        let disk = Disk::mount(&folder, disk_size(options)).map_err(|cause| format!("{cause:#}"));
        let postgres = Postgres::start(&folder).await?;
        let redis = Redis::start()?;
        redis.ready().await?;
        let (library, no_clocks) = match faketime() {
            Ok(library) => (Some(library), None),
            Err(cause) => (None, Some(format!("{cause:#}"))),
        };
        let (plan, clocks, links) = arrange(options, data, &postgres, &redis, library)?;
        let cluster = Cluster::start(options.program()?, data, plan).await?;
        cluster.ready().await?;
        let workers = start_workers(options, data, &cluster, &links)?;
        let client = Client::connect(&cluster.grpc_urls().join(","))?;
        let services = cluster.names().iter().filter(|name| cluster.is_running(name)).cloned();
        let first = services.chain(workers.iter().map(|(name, _)| name.clone())).collect();
        let (postgres, redis) = (AsyncMutex::new(postgres), AsyncMutex::new(redis));
        Ok(Self { cluster, postgres, redis, workers, client, links, clocks, no_clocks, disk, data: data.to_owned(), first })
    }

    /// All processes that run from the start to the end.
    pub fn first(&self) -> &[String] {
        &self.first
    }

    /// The processes of a kind that run now.
    pub fn running(&self, target: Target) -> Vec<String> {
        let services = self.cluster.names().iter().filter(|name| service_of(name) == target.name());
        let mut running: Vec<String> = services.filter(|name| self.cluster.is_running(name)).cloned().collect();
        if target == Target::Worker {
            running.extend(self.workers.iter().map(|(name, _)| name.clone()));
        }
        running
    }

    /// One worker's process.
    pub fn worker(&self, name: &str) -> Option<MutexGuard<'_, Process>> {
        let (_, process) = self.workers.iter().find(|(worker, _)| worker == name)?;
        // Nothing that holds this lock panics.
        Some(process.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends a signal to a process: `STOP`, `CONT`.
    pub fn signal(&self, name: &str, signal: &str) -> anyhow::Result<()> {
        self.worker(name).map_or_else(|| self.cluster.signal(name, signal), |process| process.signal(signal))
    }

    /// The links of a process along a path.
    pub fn links(&self, from: &str, path: Path) -> Vec<(String, Arc<Proxy>)> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let of = links.iter().filter(|((source, target), _)| source == from && service_of(target) == path.to);
        of.map(|((source, target), proxy)| (format!("{source}>{target}"), Arc::clone(proxy))).collect()
    }

    /// The process whose clock can be moved.
    pub fn clocked(&self, target: Target) -> Option<String> {
        self.clocks.keys().find(|name| service_of(name) == target.name()).cloned()
    }

    /// Moves the clock of a process this far from the right time.
    pub fn set_clock(&self, name: &str, seconds: i64) -> anyhow::Result<()> {
        let file = self.clocks.get(name).with_context(|| format!("the clock of {name} cannot be moved"))?;
        write_clock(file, seconds)
    }

    /// The processes' logs.
    pub fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    pub fn ledger(&self) -> PathBuf {
        self.data.join("ledger")
    }
}

/// The journal of the load and its write-ahead log, with some room.
fn disk_size(options: &Options) -> u64 {
    let runs = options.rate * options.time().as_secs_f64();
    512 + (runs * 0.05) as u64
}

fn faketime() -> anyhow::Result<PathBuf> {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path().join("faketime")));
    let mut files = folders.map(|folder| folder.join("libfaketime.so.1"));
    files.find(|file| file.is_file()).context("libfaketime is missing: install the package faketime")
}

fn write_clock(file: &path::Path, seconds: i64) -> anyhow::Result<()> {
    // In one step: it is read at any time.
    let fresh = file.with_extension("new");
    fs::write(&fresh, format!("{seconds:+}\n"))?;
    fs::rename(&fresh, file).with_context(|| format!("cannot write {}", file.display()))
}

type Arranged = (Plan, BTreeMap<String, PathBuf>, Links);

fn arrange(
    options: &Options,
    data: &path::Path,
    postgres: &Postgres,
    redis: &Redis,
    faketime: Option<PathBuf>,
) -> anyhow::Result<Arranged> {
    let mut plan = Plan::default().replicas("executor", options.replicas + 1);
    for service in ["scheduler", "checkpoint", "registry", "approval", "gateway"] {
        plan = plan.replicas(service, options.replicas);
    }
    plan = plan
        .env("TROUPE__EXECUTOR__LEASE_MS", options.lease_ms.to_string())
        .env("TROUPE__EXECUTOR__PARTITIONS", PARTITIONS.to_string())
        .env("TROUPE__SCHEDULER__LEASE", format!("{TASK_LEASE_SECONDS}s"))
        .env("RUST_BACKTRACE", "1");
    plan.later.insert(format!("executor-{}", options.replicas + 1));
    plan.postgres = Some(postgres.url());
    plan.redis = Some(redis.url());
    let mut clocks = BTreeMap::new();
    if let Some(library) = faketime {
        for target in CLOCKED {
            let name = format!("{}-{}", target.name(), options.replicas);
            let file = data.join(format!("{name}.clock"));
            write_clock(&file, 0)?;
            plan.environment_of.insert(name.clone(), clock_variables(&library, &file));
            clocks.insert(name, file);
        }
    }
    let links = Links::default();
    let made = Arc::clone(&links);
    plan.through = Some(Arc::new(move |from, to, url| proxied(&made, from, to, url).unwrap_or_else(|| url.to_owned())));
    Ok((plan, clocks, links))
}

fn clock_variables(library: &path::Path, file: &path::Path) -> Vec<(String, String)> {
    let variable = |name: &str, value: String| (name.to_owned(), value);
    vec![
        variable("LD_PRELOAD", library.display().to_string()),
        variable("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        variable("FAKETIME_NO_CACHE", "1".into()),
        variable("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        variable("DONT_FAKE_MONOTONIC", "1".into()),
        variable("FAKETIME_DISABLE_SHM", "1".into()),
    ]
}

/// The URL of a proxy in front of the URL's server, where the link is one of those that are broken.
fn proxied(links: &Links, from: &str, to: &str, url: &str) -> Option<String> {
    PATHS.iter().find(|path| path.from == service_of(from) && path.to == service_of(to))?;
    let mut parsed = url::Url::parse(url).ok()?;
    let target: SocketAddr = format!("{}:{}", parsed.host_str()?, parsed.port()?).parse().ok()?;
    let mut links = links.lock().unwrap_or_else(PoisonError::into_inner);
    let pair = (from.to_owned(), to.to_owned());
    let proxy = match links.get(&pair) {
        Some(proxy) => Arc::clone(proxy),
        None => Arc::clone(links.entry(pair).or_insert(Arc::new(Proxy::start(target).ok()?))),
    };
    parsed.set_port(Some(proxy.address().port())).ok()?;
    Some(parsed.to_string().trim_end_matches('/').to_owned())
}

fn start_workers(options: &Options, data: &path::Path, cluster: &Cluster, links: &Links) -> anyhow::Result<Vec<(String, Mutex<Process>)>> {
    let program = std::env::current_exe().context("cannot see where this program is")?;
    let mut workers = Vec::new();
    for number in 1..=options.workers {
        let name = format!("worker-{number}");
        let arguments = ["worker", "--url", &gateways(&name, cluster, links)?, "--name", &name, "--ledger"].map(Into::into);
        let mut arguments: Vec<std::ffi::OsString> = arguments.into();
        arguments.push(data.join("ledger").join(format!("{name}.jsonl")).into());
        let log = data.join("logs").join(format!("{name}.log"));
        let launch = Launch { name: name.clone(), program: program.clone(), arguments, environment: Vec::new(), log };
        workers.push((name, Mutex::new(Process::start(launch)?)));
    }
    Ok(workers)
}

/// Where a worker reaches the gateways.
fn gateways(worker: &str, cluster: &Cluster, links: &Links) -> anyhow::Result<String> {
    let gateways = cluster.names().iter().filter(|name| service_of(name) == Target::Gateway.name());
    let urls = gateways.map(|gateway| {
        let url = cluster.address(gateway)?;
        proxied(links, worker, gateway, url).with_context(|| format!("no proxy between {worker} and {gateway}"))
    });
    Ok(urls.collect::<anyhow::Result<Vec<String>>>()?.join(","))
}
