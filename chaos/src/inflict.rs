//! How a fault is done, and how it is seen that it really happened.

mod links;
mod pause;
mod servers;

use crate::{
    change::{Change, Kind},
    clock::{self, Micros},
    fault::{Fault, Target},
    plan::Planned,
    stage::Stage,
};
use anyhow::{Context, bail, ensure};
use rand::RngExt;
use serde::Serialize;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use troupe_proto::checkpoint::v1::{ListPartitionsRequest, checkpoint_store_client::CheckpointStoreClient};
use troupe_testkit::until;
use troupe_wire::Transport;

/// What became of a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "detail")]
pub enum Outcome {
    /// What was seen of it.
    Happened(String),
    /// It could not be done here.
    NotTried(String),
    /// It was to be done, and was not seen.
    Failed(String),
}

/// A fault that was done.
#[derive(Clone, Debug, Serialize)]
pub struct Done {
    #[serde(flatten)]
    pub planned: Planned,
    /// The process, server or links.
    pub victim: String,
    pub from: Micros,
    /// When it was over.
    pub to: Micros,
    pub outcome: Outcome,
    /// Times in which partitions changed hands.
    pub changes: Vec<Change>,
}

/// What one fault has to say while it is done.
#[derive(Default)]
struct Notes {
    victim: String,
    changes: Vec<Change>,
}

impl Notes {
    /// A change that began at this moment, and is complete now.
    fn changed(&mut self, kind: Kind, from: Micros) {
        self.changes.push(Change { kind, from, to: clock::now() });
    }
}

/// Why one cannot be done here.
struct NotHere(String);

type Seen = anyhow::Result<Result<String, NotHere>>;

/// Does what was planned, each at its time or as soon as the one before is over.
pub async fn all(stage: &Stage, plan: &[Planned], begun: Instant, mut told: impl FnMut(&Done)) -> Vec<Done> {
    let mut done = Vec::with_capacity(plan.len());
    for planned in plan {
        sleep_until(begun + planned.at).await;
        let from = clock::now();
        let mut notes = Notes::default();
        let seen = one(stage, *planned, &mut notes).await;
        let outcome = match seen {
            Ok(Ok(detail)) => Outcome::Happened(detail),
            Ok(Err(NotHere(why))) => Outcome::NotTried(why),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        let this = Done { planned: *planned, victim: notes.victim, from, to: clock::now(), outcome, changes: notes.changes };
        told(&this);
        done.push(this);
    }
    done
}

async fn one(stage: &Stage, planned: Planned, notes: &mut Notes) -> Seen {
    match planned.fault {
        Fault::Kill(target) => kill(stage, target, planned, notes).await.map(Ok),
        Fault::Drain(target) => drain(stage, target, planned, notes).await.map(Ok),
        Fault::Pause(target) => pause::pause(stage, target, planned, notes).await.map(Ok),
        Fault::Cut(path) | Fault::Silence(path) | Fault::Delay(path) => links::disturb(stage, path, planned, notes).await.map(Ok),
        Fault::RedisKill => servers::kill_redis(stage, planned, notes).await.map(Ok),
        Fault::RedisFlush => servers::flush_redis(stage, notes).await.map(Ok),
        Fault::PostgresKill => servers::kill_postgres(stage, planned, notes).await.map(Ok),
        Fault::PostgresRestart => servers::restart_postgres(stage, planned, notes).await.map(Ok),
        Fault::DiskFull => servers::fill_disk(stage, planned, notes).await,
        Fault::Clock(target) => move_clock(stage, target, planned, notes).await,
        Fault::Scale => scale(stage, planned, notes).await.map(Ok),
    }
}

fn choose(stage: &Stage, target: Target, planned: Planned, notes: &mut Notes) -> anyhow::Result<String> {
    let running = stage.running(target);
    let name = running.get(planned.victim % running.len().max(1)).with_context(|| format!("no {} runs", target.name()))?;
    notes.victim.clone_from(name);
    Ok(name.clone())
}

async fn kill(stage: &Stage, target: Target, planned: Planned, notes: &mut Notes) -> anyhow::Result<String> {
    let name = choose(stage, target, planned, notes)?;
    // In the middle of what the system does, not of what this program does.
    let moment = rand::rng().random_range(0..200);
    sleep(Duration::from_millis(moment)).await;
    let (before, from) = (pid(stage, &name), clock::now());
    match target {
        Target::Worker => stage.worker(&name).context("no such worker")?.kill()?,
        _ => stage.cluster.kill(&name).await?,
    }
    sleep(planned.length).await;
    start(stage, target, &name).await?;
    if target == Target::Executor {
        notes.changed(Kind::Killed, from);
    }
    let after = pid(stage, &name);
    ensure!(before.is_some() && after.is_some() && before != after, "the process is the same: {before:?}");
    Ok(format!("process {} died, {} lives", before.unwrap_or_default(), after.unwrap_or_default()))
}

async fn drain(stage: &Stage, target: Target, planned: Planned, notes: &mut Notes) -> anyhow::Result<String> {
    let name = choose(stage, target, planned, notes)?;
    let from = clock::now();
    let status = match target {
        Target::Worker => {
            stage.worker(&name).context("no such worker")?.signal("TERM")?;
            until(&format!("{name} ends"), async || stage.worker(&name).and_then(|mut process| process.ended())).await?
        }
        _ => stage.cluster.terminate(&name).await?,
    };
    let took = clock::seconds(from, clock::now());
    sleep(planned.length).await;
    start(stage, target, &name).await?;
    if target == Target::Executor {
        notes.changed(Kind::Drained, from);
    }
    ensure!(status.success(), "it ended with {status} after {took:.1} s");
    Ok(format!("it ended in order after {took:.1} s"))
}

async fn start(stage: &Stage, target: Target, name: &str) -> anyhow::Result<()> {
    match target {
        Target::Worker => stage.worker(name).context("no such worker")?.begin(),
        _ => stage.cluster.restart(name).await,
    }
}

fn pid(stage: &Stage, name: &str) -> Option<u32> {
    stage.worker(name).map_or_else(|| stage.cluster.pid(name), |process| process.pid())
}

async fn move_clock(stage: &Stage, target: Target, planned: Planned, notes: &mut Notes) -> Seen {
    if let Some(why) = &stage.no_clocks {
        return Ok(Err(NotHere(why.clone())));
    }
    let name = stage.clocked(target).with_context(|| format!("no {} whose clock can be moved", target.name()))?;
    notes.victim.clone_from(&name);
    stage.set_clock(&name, planned.amount)?;
    let seen = until(&format!("the clock of {name} is moved"), async || {
        let off = clock_offset(stage, &name).await?;
        ((off - planned.amount).abs() <= 5).then_some(off)
    })
    .await?;
    sleep(planned.length).await;
    // Nobody waits to see it right again: the dates of HTTP answers are remembered until the clock has passed them.
    stage.set_clock(&name, 0)?;
    Ok(Ok(format!("its clock was {seen:+} s off for {:.1} s", planned.length.as_secs_f64())))
}

/// How many seconds a process's clock is ahead, as the date of its answers says.
async fn clock_offset(stage: &Stage, name: &str) -> Option<i64> {
    let url = format!("{}/live", stage.cluster.ops(name).ok()?.url());
    let answer = reqwest::get(url).await.ok()?;
    let date = answer.headers().get("date")?.to_str().ok()?;
    let date = chrono::DateTime::parse_from_rfc2822(date).ok()?;
    Some((date.to_utc() - chrono::Utc::now()).num_seconds())
}

/// One executor more, then one alone, then as many as at first.
async fn scale(stage: &Stage, planned: Planned, notes: &mut Notes) -> anyhow::Result<String> {
    let all: Vec<String> = stage.cluster.names().iter().filter(|name| name.starts_with("executor-")).cloned().collect();
    let (first, later) = (stage.running(Target::Executor), all.iter().find(|name| !stage.cluster.is_running(name)));
    let later = later.context("all executors run")?;
    notes.victim = "executors".to_owned();
    let mut owners = vec![owners(stage).await?];
    let from = clock::now();
    stage.cluster.restart(later).await?;
    until(&format!("{later} has partitions"), async || partitions_of(stage, later).await.ok().filter(|count| *count > 0)).await?;
    notes.changed(Kind::Added, from);
    owners.push(self::owners(stage).await?);
    sleep(planned.length).await;
    for name in &first {
        let from = clock::now();
        let status = stage.cluster.terminate(name).await?;
        ensure!(status.success(), "{name} ended with {status}");
        notes.changed(Kind::Removed, from);
    }
    until(&format!("{later} is alone"), async || (self::owners(stage).await.ok()? == 1).then_some(())).await?;
    owners.push(1);
    sleep(planned.length).await;
    for name in &first {
        let from = clock::now();
        stage.cluster.restart(name).await?;
        notes.changed(Kind::Added, from);
    }
    until("they share", async || (self::owners(stage).await.ok()? > 1).then_some(())).await?;
    sleep(planned.length).await;
    let from = clock::now();
    stage.cluster.terminate(later).await?;
    notes.changed(Kind::Removed, from);
    Ok(format!("owners of partitions: {owners:?}, then {}", self::owners(stage).await?))
}

/// How many owners the partitions have.
async fn owners(stage: &Stage) -> anyhow::Result<usize> {
    let mut owners: Vec<String> = leases(stage).await?.into_iter().map(|(owner, _)| owner).collect();
    owners.sort_unstable();
    owners.dedup();
    Ok(owners.len())
}

/// How many partitions an executor owns.
async fn partitions_of(stage: &Stage, name: &str) -> anyhow::Result<usize> {
    let address = stage.cluster.address(name)?;
    Ok(leases(stage).await?.iter().filter(|(owner, _)| owner.ends_with(address)).count())
}

/// Owners and their partitions, of the leases that last.
async fn leases(stage: &Stage) -> anyhow::Result<Vec<(String, u32)>> {
    let answer = journal(stage)?.list_partitions(ListPartitionsRequest {}).await;
    let Ok(answer) = answer else { bail!("the partitions cannot be listed") };
    let now = i64::try_from(clock::now() / 1_000_000)?;
    let lasting = answer.into_inner().leases.into_iter().filter(|lease| lease.expires_at.is_some_and(|at| at.seconds >= now));
    Ok(lasting.map(|lease| (lease.owner, lease.partition)).collect())
}

/// A client of the checkpoint services, past all proxies.
pub fn journal(stage: &Stage) -> anyhow::Result<CheckpointStoreClient<Transport>> {
    let checkpoints = stage.cluster.names().iter().filter(|name| name.starts_with("checkpoint-"));
    let urls = checkpoints.map(|name| stage.cluster.address(name)).collect::<anyhow::Result<Vec<&str>>>()?;
    let transport = Transport::connect(&urls.join(","))?;
    let client = CheckpointStoreClient::new(transport);
    Ok(client.max_decoding_message_size(troupe_wire::MAX_MESSAGE).max_encoding_message_size(troupe_wire::MAX_MESSAGE))
}
