//! Open runs of a partition that has just become ours (or whose effects may be lost): what they have pending is issued again.
//!
//! The partition serves meanwhile. Runs that something happens to before the scan comes to them issue theirs themselves.
//!
//! What parents and children tell each other is an effect of the one run and concerns the other, which may live elsewhere. Whoever owned
//! the first may have died after it had changed and before the other was told, and an ended run is not looked at again. So when any
//! partition changes hands, all executors look through their own open runs for parents and children of runs in it.

use crate::{
    backoff::Backoff,
    message::{Message, Recovered, Scan, Scope},
    metrics::RECOVERED,
    routing::{Epochs, Router},
    run::Key,
    shared::Shared,
    view,
};
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use troupe_domain::{Result, RunId};
use troupe_engine::Command;
use troupe_proto::checkpoint::v1 as pb;

/// The scan waits while this many effects wait for a service.
const EFFECTS_WAITING: usize = 4_000;

/// Runs applied again before other tasks get their turn.
const SLICE: usize = 32;

/// What may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Anything that open runs have asked for.
    Everything,
    /// What runs of these partitions had to tell their parents and children.
    News(Arc<BTreeSet<u32>>),
}

impl Lost {
    /// Whether this command of an open run is to be issued again.
    pub(crate) fn covers(&self, command: &Command, router: &Router) -> bool {
        match (self, command) {
            (Self::Everything, _) => true,
            // A child that has ended answers its start with its end.
            (Self::News(partitions), Command::StartChild(child)) => partitions.contains(&router.partition_of(child.child)),
            (Self::News(_), _) => false,
        }
    }

    /// Whether a parent's end may not have come to its children.
    fn covers_parent(&self, parent: RunId, router: &Router) -> bool {
        match self {
            Self::Everything => true,
            Self::News(partitions) => partitions.contains(&router.partition_of(parent)),
        }
    }
}

/// Recovers one partition.
struct Recovery {
    shared: Arc<Shared>,
    partition: u32,
    /// The partition that this is the recovery of, and none that is opened after it.
    inbox: mpsc::WeakSender<Message>,
    token: CancellationToken,
}

/// Scans at the start and after each loss, until the partition ends.
pub(crate) async fn run(shared: Arc<Shared>, partition: u32, inbox: mpsc::WeakSender<Message>, token: CancellationToken) {
    let (losses, epochs) = (shared.resync.subscribe(), shared.router.epochs());
    let recovery = Recovery { shared, partition, inbox, token: token.clone() };
    token.run_until_cancelled(recovery.run(losses, epochs)).await;
}

impl Recovery {
    async fn run(&self, mut losses: watch::Receiver<u64>, mut epochs: watch::Receiver<Epochs>) {
        let mut known = epochs.borrow_and_update().clone();
        let mut lost = Lost::Everything;
        loop {
            self.scan(&lost).await;
            self.tell(Scan::Over).await;
            lost = tokio::select! {
                changed = losses.changed() => match changed {
                    Ok(()) => Lost::Everything,
                    Err(_) => return,
                },
                changed = epochs.changed() => match changed {
                    Ok(()) => Lost::News(Arc::new(moved(&mut known, &epochs.borrow_and_update()))),
                    Err(_) => return,
                },
            };
            self.begin_again(lost.clone()).await;
        }
    }

    /// Ends when the partition has noted that a scan begins.
    async fn begin_again(&self, lost: Lost) {
        let (begun, noted) = tokio::sync::oneshot::channel();
        self.tell(Scan::Begins(lost, begun)).await;
        // A partition that has ended drops it.
        let _ = noted.await;
    }

    async fn tell(&self, scan: Scan) {
        if let Some(inbox) = self.inbox.upgrade() {
            // A partition that has ended has nothing to recover.
            let _ = inbox.send(Message::Scan(scan)).await;
        }
    }

    async fn scan(&self, lost: &Lost) {
        let (shared, partition) = (&self.shared, self.partition);
        let (mut after, mut backoff, mut count) = (String::new(), Backoff::default(), 0_usize);
        loop {
            shared.effects.room(EFFECTS_WAITING).await;
            let page = match shared.store.load_open(partition, shared.config.recovery_page, after.clone()).await {
                Ok(page) => page,
                Err(cause) => {
                    tracing::warn!(partition, %cause, "open runs cannot be read");
                    if !backoff.wait(&self.token).await {
                        return;
                    }
                    continue;
                }
            };
            backoff.reset();
            let Some(last) = page.last().and_then(|run| run.summary.as_ref()) else { break };
            after.clone_from(&last.run_id);
            count += page.len();
            let (recovered, children) = derive(shared, page, lost).await;
            cancel_orphans(shared, &children, &self.token).await;
            if !recovered.is_empty() {
                self.tell(Scan::Found(recovered)).await;
            }
        }
        match lost {
            Lost::Everything => {
                metrics::counter!(RECOVERED).increment(count as u64);
                tracing::info!(partition, runs = count, "open runs recovered");
            }
            Lost::News(moved) => tracing::debug!(partition, ?moved, runs = count, "open runs looked through for families"),
        }
    }
}

/// Partitions whose epoch is another one now.
fn moved(known: &mut Epochs, newest: &Epochs) -> BTreeSet<u32> {
    let moved = newest.iter().filter(|(partition, epoch)| known.get(partition) != Some(epoch)).map(|(partition, _)| *partition).collect();
    known.clone_from(newest);
    moved
}

/// A child run, and its parent.
struct Child {
    scope: Arc<Scope>,
    parent: RunId,
}

/// What each run of a page has pending, and which of them would have ended with their parents. Children that were started again after
/// their end go on by themselves.
async fn derive(shared: &Shared, page: Vec<pb::LoadedRun>, lost: &Lost) -> (Vec<Recovered>, Vec<Child>) {
    let (mut recovered, mut children) = (Vec::new(), Vec::new());
    for (n, loaded) in page.into_iter().enumerate() {
        if n % SLICE == SLICE - 1 {
            tokio::task::yield_now().await;
        }
        let key = loaded.summary.as_ref().and_then(|summary| Key::parse(&summary.namespace, &summary.run_id).ok());
        let Some(key) = key else { continue };
        let id = key.run;
        match shared.revive(key, loaded).await {
            Ok(run) => {
                if let Ok(parent) = run.summary.parent_run_id.parse::<RunId>()
                    && run.state.retries() == 0
                    && lost.covers_parent(parent, &shared.router)
                {
                    children.push(Child { scope: Arc::clone(&run.scope), parent });
                }
                let mut commands = run.pending();
                commands.retain(|command| lost.covers(command, &shared.router));
                if *lost == Lost::Everything || !commands.is_empty() {
                    recovered.push(Recovered { run: id, scope: run.scope, commands });
                }
            }
            // One damaged run does not hold up the others; the cause is logged where it was found.
            Err(error) => tracing::error!(run.id = %id, cause = %error, "a run was not recovered"),
        }
    }
    (recovered, children)
}

/// A crash may have come between a parent's end and the cancellation of its children.
async fn cancel_orphans(shared: &Shared, children: &[Child], token: &CancellationToken) {
    let mut backoff = Backoff::default();
    while let Err(cause) = try_cancel_orphans(shared, children).await {
        tracing::warn!(%cause, "children of ended runs cannot be looked for");
        if !cause.code.is_transient() || !backoff.wait(token).await {
            return;
        }
    }
}

async fn try_cancel_orphans(shared: &Shared, children: &[Child]) -> Result<()> {
    let parents: HashSet<Key> =
        children.iter().map(|child| Key { namespace: child.scope.key.namespace.clone(), run: child.parent }).collect();
    if parents.is_empty() {
        return Ok(());
    }
    let keys: Vec<pb::RunKey> = parents.iter().map(Key::wire).collect();
    let loaded = shared.store.load(&keys, 0).await?;
    let ended: HashSet<String> =
        loaded.into_iter().filter_map(|run| run.summary).filter(view::has_ended).map(|summary| summary.run_id).collect();
    for child in children.iter().filter(|child| ended.contains(&child.parent.to_string())) {
        shared.effects.cancel_orphan(&child.scope);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_move_with_their_epochs() {
        let mut known = Epochs::from([(0, 1), (1, 4)]);
        let newest = Epochs::from([(0, 1), (1, 5), (2, 1)]);
        assert_eq!(moved(&mut known, &newest), BTreeSet::from([1, 2]));
        assert!(moved(&mut known, &newest).is_empty());
    }
}
