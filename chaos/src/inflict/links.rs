//! Links that are cut, silent or slow.

use super::Notes;
use crate::{
    fault::{Fault, Path, Target},
    plan::Planned,
    stage::Stage,
};
use anyhow::{Context, ensure};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use troupe_testkit::{Proxy, proxy::Link, until};

/// How long links are watched to see which ones are in use.
const LOOK: Duration = Duration::from_millis(300);

/// Does to all links of a process along a path, or to one of them, what the fault says.
pub(super) async fn disturb(stage: &Stage, path: Path, planned: Planned, notes: &mut Notes) -> anyhow::Result<String> {
    let target = Target::ALL.into_iter().find(|target| target.name() == path.from).context("no such process")?;
    let mut links = chosen(stage, target, path, planned).await?;
    // One of several is a lost peer; all are a process that is cut off. Of links that carry nothing nobody would miss one.
    if planned.amount % 2 == 0 && links.len() > 1 {
        let busy = busy(&links).await;
        let at = if busy.is_empty() { planned.victim % links.len() } else { busy[planned.victim % busy.len()] };
        links = vec![links.swap_remove(at)];
    }
    ensure!(!links.is_empty(), "no {} has links to a {}", path.from, path.to);
    notes.victim = links.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ");
    let proxies: Vec<Arc<Proxy>> = links.into_iter().map(|(_, proxy)| proxy).collect();
    let (standing, before) = (sum(&proxies, Proxy::standing), carried(&proxies));
    let state = match planned.fault {
        Fault::Cut(_) => Link::Cut,
        Fault::Silence(_) => Link::Silent,
        _ => Link::Open(Duration::from_millis(u64::try_from(planned.amount)?)),
    };
    set(&proxies, state);
    sleep(planned.length).await;
    let (stood, between) = (sum(&proxies, Proxy::standing), carried(&proxies) - before);
    set(&proxies, Link::Open(Duration::ZERO));
    let seconds = planned.length.as_secs_f64();
    match state {
        Link::Cut => {
            ensure!(stood == 0, "{stood} connections stood");
            reconnected(&proxies).await?;
            Ok(format!("{standing} connections ended, none for {seconds:.1} s"))
        }
        Link::Silent => {
            // What was on its way already may have come through.
            let rate = between as f64 / seconds;
            ensure!(rate < 2_000.0, "{between} bytes came through");
            reconnected(&proxies).await?;
            Ok(format!("{standing} connections carried nothing for {seconds:.1} s"))
        }
        Link::Open(delay) => {
            ensure!(between > 0, "nothing came through");
            Ok(format!("{between} bytes came {} ms later each way", delay.as_millis()))
        }
    }
}

/// The links of one of the processes that a path begins at: one that uses them, where there is one.
async fn chosen(stage: &Stage, target: Target, path: Path, planned: Planned) -> anyhow::Result<Vec<(String, Arc<Proxy>)>> {
    let mut running = stage.running(target);
    ensure!(!running.is_empty(), "no {} runs", target.name());
    let first = planned.victim % running.len();
    running.rotate_left(first);
    for name in &running {
        let links = stage.links(name, path);
        if !busy(&links).await.is_empty() {
            return Ok(links);
        }
    }
    Ok(stage.links(&running[0], path))
}

/// The places of those links that carry something now.
async fn busy(links: &[(String, Arc<Proxy>)]) -> Vec<usize> {
    let before: Vec<u64> = links.iter().map(|(_, proxy)| proxy.carried()).collect();
    sleep(LOOK).await;
    (0..links.len()).filter(|at| links[*at].1.carried() > before[*at]).collect()
}

/// Waits until what is called is reached again, for a while: a link that nobody needs is not opened.
async fn reconnected(proxies: &[Arc<Proxy>]) -> anyhow::Result<()> {
    let wait = until("a connection", async || (sum(proxies, Proxy::standing) > 0).then_some(()));
    match tokio::time::timeout(Duration::from_secs(5), wait).await {
        Ok(waited) => waited,
        Err(_) => Ok(()),
    }
}

fn set(proxies: &[Arc<Proxy>], link: Link) {
    proxies.iter().for_each(|proxy| proxy.set(link));
}

fn sum(proxies: &[Arc<Proxy>], of: impl Fn(&Proxy) -> u64) -> u64 {
    proxies.iter().map(|proxy| of(proxy)).sum()
}

fn carried(proxies: &[Arc<Proxy>]) -> u64 {
    sum(proxies, Proxy::carried)
}
