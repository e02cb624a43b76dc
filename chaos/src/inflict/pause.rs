//! Processes that are stopped for longer than a lease.

use super::{Notes, choose, partitions_of, pid};
use crate::{
    change::Kind,
    clock,
    fault::{Path, Planned, Target},
    stage::Stage,
};
use std::{fs, time::Duration};
use tokio::time::sleep;
use troupe_testkit::{proxy::Link, until};

const JOURNAL: Path = Path { from: "executor", to: "checkpoint" };
/// In this time a busy executor begins to write, in each of its partitions.
const UNDER_WAY: Duration = Duration::from_millis(300);

/// Stops a process for longer than its lease, and wakes it. Before an executor is stopped its links to the journal fall silent, so that it
/// has something under way that comes there when the executor is no owner any more.
pub(super) async fn pause(stage: &Stage, target: Target, planned: Planned, notes: &mut Notes) -> anyhow::Result<String> {
    let name = choose(stage, target, planned, notes)?;
    let owned = if target == Target::Executor { partitions_of(stage, &name).await.unwrap_or_default() } else { 0 };
    let late = if target == Target::Executor { stage.links(&name, JOURNAL) } else { Vec::new() };
    let set = |link: Link| late.iter().for_each(|(_, proxy)| proxy.set(link));
    set(Link::Silent);
    sleep(UNDER_WAY).await;
    let from = clock::now();
    let stopped = stop(stage, &name, planned.length).await;
    set(Link::Open(Duration::ZERO));
    let state = stopped?;
    stage.cluster.wake(&name)?;
    let after = until(&format!("{name} goes on"), async || process_state(pid(stage, &name)?).filter(|state| *state != 'T')).await?;
    if target != Target::Executor {
        return Ok(format!("state {state} for {:.1} s, then {after}", planned.length.as_secs_f64()));
    }
    notes.changed(Kind::Stopped, from);
    Ok(format!("state {state} for {:.1} s with {owned} partitions, then {after}", planned.length.as_secs_f64()))
}

/// Stops a process for so long, as far as it can be seen.
async fn stop(stage: &Stage, name: &str, length: Duration) -> anyhow::Result<char> {
    stage.cluster.pause(name)?;
    let state = until(&format!("{name} is stopped"), async || {
        let state = process_state(pid(stage, name)?)?;
        (state == 'T').then_some(state)
    })
    .await?;
    sleep(length).await;
    Ok(state)
}

/// As the kernel says it: `T` is stopped.
fn process_state(pid: u32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, in brackets.
    text.rsplit_once(") ")?.1.chars().next()
}
