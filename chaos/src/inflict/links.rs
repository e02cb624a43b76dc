//! Links that are cut, silent or slow.

use super::{Notes, choose};
use crate::{
    fault::{Fault, Path, Planned, Target},
    stage::Stage,
};
use anyhow::{Context, ensure};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use troupe_testkit::{Proxy, proxy::Link, until};

/// Does to all links of a process along a path, or to one of them, what the fault says.
pub(super) async fn disturb(stage: &Stage, path: Path, planned: Planned, notes: &mut Notes) -> anyhow::Result<String> {
    let target = Target::ALL.into_iter().find(|target| target.name() == path.from).context("no such process")?;
    let name = choose(stage, target, planned, notes)?;
    let mut links = stage.links(&name, path);
    // One of several is a lost peer; all are a process that is cut off.
    if planned.amount % 2 == 0 && links.len() > 1 {
        links = vec![links.swap_remove(planned.victim % links.len())];
    }
    ensure!(!links.is_empty(), "{name} has no links to {}", path.to);
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
