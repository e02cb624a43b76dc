//! Open runs of a partition that has just become ours (or whose effects may be lost): what they have pending is issued again.
//!
//! The partition serves meanwhile. Runs that something happens to before the scan comes to them issue theirs themselves.

use crate::{
    backoff::Backoff,
    message::{Message, Recovered, Scope},
    metrics::RECOVERED,
    run::Key,
    shared::Shared,
    view,
};
use std::{collections::HashSet, sync::Arc};
use tokio_util::sync::CancellationToken;
use troupe_domain::Result;
use troupe_proto::checkpoint::v1 as pb;

/// The scan waits while this many effects wait for a service.
const EFFECTS_WAITING: usize = 4_000;

/// Runs applied again before other tasks get their turn.
const SLICE: usize = 32;

/// Scans at the start and after each loss, until the partition ends.
pub(crate) async fn run(shared: Arc<Shared>, partition: u32, token: CancellationToken) {
    let mut losses = shared.resync.subscribe();
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            () = scan(&shared, partition, &token) => {}
        }
        tell(&shared, partition, Message::RecoveryDone).await;
        tokio::select! {
            () = token.cancelled() => return,
            changed = losses.changed() => if changed.is_err() { return },
        }
        tokio::select! {
            () = token.cancelled() => return,
            () = begin_again(&shared, partition) => {}
        }
    }
}

/// Ends when the partition has noted that a scan begins.
async fn begin_again(shared: &Shared, partition: u32) {
    let (begun, noted) = tokio::sync::oneshot::channel();
    tell(shared, partition, Message::Resync(begun)).await;
    // A partition that has ended drops it.
    let _ = noted.await;
}

async fn tell(shared: &Shared, partition: u32, message: Message) {
    if let Ok(mailbox) = shared.router.mailbox(partition) {
        // A partition that has ended has nothing to recover.
        let _ = mailbox.send(message).await;
    }
}

async fn scan(shared: &Shared, partition: u32, token: &CancellationToken) {
    let (mut after, mut backoff, mut count) = (String::new(), Backoff::default(), 0_usize);
    loop {
        shared.effects.room(EFFECTS_WAITING).await;
        let page = match shared.store.load_open(partition, shared.config.recovery_page, after.clone()).await {
            Ok(page) => page,
            Err(cause) => {
                tracing::warn!(partition, %cause, "open runs cannot be read");
                if !backoff.wait(token).await {
                    return;
                }
                continue;
            }
        };
        backoff.reset();
        let Some(last) = page.last().and_then(|run| run.summary.as_ref()) else { break };
        after.clone_from(&last.run_id);
        count += page.len();
        let (recovered, children) = derive(shared, page).await;
        cancel_orphans(shared, &children).await;
        tell(shared, partition, Message::Recovered(recovered)).await;
    }
    metrics::counter!(RECOVERED).increment(count as u64);
    tracing::info!(partition, runs = count, "open runs recovered");
}

/// A child run, and its parent's id.
struct Child {
    scope: Arc<Scope>,
    parent: String,
}

/// What each run of a page has pending, and which of them would have ended with their parents. Children that were started again after
/// their end go on by themselves.
async fn derive(shared: &Shared, page: Vec<pb::LoadedRun>) -> (Vec<Recovered>, Vec<Child>) {
    let (mut recovered, mut children) = (Vec::with_capacity(page.len()), Vec::new());
    for (n, loaded) in page.into_iter().enumerate() {
        if n % SLICE == SLICE - 1 {
            tokio::task::yield_now().await;
        }
        let key = loaded.summary.as_ref().and_then(|summary| Key::parse(&summary.namespace, &summary.run_id).ok());
        let Some(key) = key else { continue };
        let id = key.run;
        match shared.revive(key, loaded).await {
            Ok(run) => {
                if !run.summary.parent_run_id.is_empty() && run.state.retries() == 0 {
                    children.push(Child { scope: Arc::clone(&run.scope), parent: run.summary.parent_run_id.clone() });
                }
                let commands = run.pending();
                recovered.push(Recovered { run: id, scope: run.scope, commands });
            }
            // One damaged run does not hold up the others; the cause is logged where it was found.
            Err(error) => tracing::error!(run.id = %id, cause = %error, "a run was not recovered"),
        }
    }
    (recovered, children)
}

/// A crash may have come between a parent's end and the cancellation of its children.
async fn cancel_orphans(shared: &Shared, children: &[Child]) {
    if let Err(cause) = try_cancel_orphans(shared, children).await {
        tracing::warn!(%cause, "children of ended runs were not looked for");
    }
}

async fn try_cancel_orphans(shared: &Shared, children: &[Child]) -> Result<()> {
    let parents: HashSet<(&str, &str)> = children.iter().map(|child| (child.scope.key.namespace.as_str(), child.parent.as_str())).collect();
    if parents.is_empty() {
        return Ok(());
    }
    let keys: Vec<pb::RunKey> =
        parents.into_iter().map(|(namespace, run)| pb::RunKey { namespace: namespace.to_owned(), run_id: run.to_owned() }).collect();
    let loaded = shared.store.load(&keys, 0).await?;
    let ended: HashSet<String> =
        loaded.into_iter().filter_map(|run| run.summary).filter(view::has_ended).map(|summary| summary.run_id).collect();
    for child in children.iter().filter(|child| ended.contains(&child.parent)) {
        shared.effects.cancel_orphan(&child.scope);
    }
    Ok(())
}
