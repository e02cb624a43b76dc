//! Processes that are stopped for longer than a lease.

use super::{Notes, choose, partitions_of, pid};
use crate::{
    change::Kind,
    clock,
    fault::{JOURNAL, Target},
    plan::Planned,
    refusals::{Refusal, added, so_far},
    stage::Stage,
};
use std::{fs, time::Duration};
use tokio::time::sleep;
use troupe_testkit::{proxy::Link, until};

/// In this time a busy executor begins to write, in each of its partitions.
const UNDER_WAY: Duration = Duration::from_millis(300);

/// Stops a process for longer than its lease, and wakes it. Of executors and workers, which others stood in for, something must be refused
/// then.
pub(super) async fn pause(stage: &Stage, target: Target, planned: Planned, notes: &mut Notes) -> anyhow::Result<String> {
    let name = choose(stage, target, planned, notes)?;
    let refused = match target {
        Target::Executor => stop_owner(stage, &name, planned.length, notes).await?,
        Target::Worker => stop_worker(stage, &name, planned.length).await?,
        _ => {
            stop(stage, &name, planned.length).await?;
            wake(stage, &name).await?;
            String::new()
        }
    };
    Ok(format!("the kernel called it stopped for {:.1} s{refused}", planned.length.as_secs_f64()))
}

/// Before an executor is stopped its links to the journal fall silent, so that it has something under way that comes there when it is no
/// owner any more.
async fn stop_owner(stage: &Stage, name: &str, length: Duration, notes: &mut Notes) -> anyhow::Result<String> {
    let owned = until(&format!("{name} has partitions"), async || partitions_of(stage, name).await.ok().filter(|owned| *owned > 0)).await?;
    let itself = [name.to_owned()];
    let before = so_far(stage, Refusal::Append, &itself).await?;
    let late = stage.links(name, JOURNAL);
    let set = |link: Link| late.iter().for_each(|(_, proxy)| proxy.set(link));
    set(Link::Silent);
    sleep(UNDER_WAY).await;
    let from = clock::now();
    let stopped = stop(stage, name, length).await;
    set(Link::Open(Duration::ZERO));
    stopped?;
    wake(stage, name).await?;
    notes.changed(Kind::Stopped, from);
    let refused = added(stage, Refusal::Append, &itself, before).await?;
    Ok(format!(", with {owned} partitions; {refused} appends refused"))
}

/// A worker that wakes says what it has and sends its results: others were given all of it.
async fn stop_worker(stage: &Stage, name: &str, length: Duration) -> anyhow::Result<String> {
    stop(stage, name, length).await?;
    let schedulers = stage.running(Target::Scheduler);
    let before = so_far(stage, Refusal::Delivery, &schedulers).await?;
    wake(stage, name).await?;
    let refused = added(stage, Refusal::Delivery, &schedulers, before).await?;
    Ok(format!("; {refused} late results and the like refused"))
}

/// Stops a process for so long, from when it can be seen.
async fn stop(stage: &Stage, name: &str, length: Duration) -> anyhow::Result<()> {
    stage.signal(name, "STOP")?;
    until(&format!("{name} is stopped"), async || (process_state(pid(stage, name)?)? == 'T').then_some(())).await?;
    sleep(length).await;
    Ok(())
}

async fn wake(stage: &Stage, name: &str) -> anyhow::Result<()> {
    stage.signal(name, "CONT")?;
    until(&format!("{name} goes on"), async || (process_state(pid(stage, name)?)? != 'T').then_some(())).await
}

/// As the kernel says it: `T` is stopped.
fn process_state(pid: u32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, in brackets.
    text.rsplit_once(") ")?.1.chars().next()
}
