//! Which partitions are ours: acquired under a growing epoch, renewed while we live, given back when we drain.

use crate::{
    backoff::Backoff,
    message::Message,
    partition::{Exit, Partition},
    recovery,
    shared::Shared,
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use troupe_domain::Result;
use troupe_proto::checkpoint::v1::PartitionLease;

/// How long a start waits for the journal.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Leases {
    shared: Arc<Shared>,
    owner: String,
    held: HashMap<u32, Held>,
}

struct Held {
    lease: PartitionLease,
    task: JoinHandle<Exit>,
    /// Ends the partition's tasks at once.
    token: CancellationToken,
}

impl Leases {
    pub(crate) fn new(shared: Arc<Shared>, owner: String) -> Self {
        Self { shared, owner, held: HashMap::new() }
    }

    /// Takes all partitions that can be taken, at the start of the process.
    pub(crate) async fn take_all(&mut self) -> Result<()> {
        let (mut backoff, begun) = (Backoff::default(), Instant::now());
        loop {
            match self.acquire_missing(self.shared.config.take_over).await {
                Ok(()) => return Ok(()),
                Err(cause) if begun.elapsed() > PATIENCE => return Err(cause),
                Err(cause) => tracing::info!(%cause, "the journal is not there yet"),
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Renews what is held and takes what is free. Called again and again, well within a lease.
    pub(crate) async fn keep(&mut self) {
        self.reap().await;
        self.renew().await;
        if let Err(cause) = self.acquire_missing(false).await {
            tracing::warn!(%cause, "partitions cannot be acquired");
        }
    }

    /// Lets go of everything: what is in the mailboxes is served first, within `limit`.
    pub(crate) async fn release_all(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        for id in self.held.keys() {
            self.shared.router.set(*id, None);
        }
        let mut leases = Vec::new();
        for (id, held) in self.held.drain() {
            match tokio::time::timeout_at(deadline, held.task).await {
                Ok(Ok(Exit::Drained | Exit::Stopped)) => leases.push(held.lease),
                Ok(Ok(Exit::Stale)) => {}
                Ok(Err(_)) | Err(_) => tracing::warn!(partition = id, "a partition did not drain in time"),
            }
            held.token.cancel();
        }
        let release = self.shared.store.release(&self.owner, leases);
        match tokio::time::timeout(Duration::from_secs(2), release).await {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => tracing::warn!(%cause, "leases were not released; they end by themselves"),
            Err(_) => tracing::warn!("leases were not released in time; they end by themselves"),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.held.values().filter(|held| !held.task.is_finished()).count()
    }

    async fn acquire_missing(&mut self, force: bool) -> Result<()> {
        let missing: Vec<u32> = (0..self.shared.config.partitions).filter(|id| !self.held.contains_key(id)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let leases = self.shared.store.acquire(&self.owner, missing.clone(), self.shared.config.lease_ms, force).await?;
        for lease in leases.into_iter().filter(|lease| missing.contains(&lease.partition)) {
            self.open(lease);
        }
        Ok(())
    }

    /// Starts the tasks of a partition.
    fn open(&mut self, lease: PartitionLease) {
        let (shared, id) = (Arc::clone(&self.shared), lease.partition);
        tracing::info!(partition = id, epoch = lease.epoch, "partition acquired");
        let (mailbox, messages) = mpsc::channel::<Message>(shared.config.mailbox);
        let token = shared.tasks.token().child_token();
        let partition = Partition::new(&lease, Arc::clone(&shared), messages, token.clone());
        let weak = mailbox.downgrade();
        shared.router.set(id, Some(mailbox));
        let serving = {
            let (shared, token) = (Arc::clone(&shared), token.clone());
            async move {
                let exit = partition.serve(token.clone()).await;
                shared.router.close(id, &weak);
                token.cancel();
                tracing::info!(partition = id, ?exit, "partition closed");
                exit
            }
        };
        let task = shared.tasks.spawn("partition", serving);
        shared.tasks.spawn("recovery", recovery::run(Arc::clone(&shared), id, token.clone()));
        self.held.insert(id, Held { lease, task, token });
    }

    /// Forgets partitions whose task has ended: they were lost, or it failed; then they are acquired anew.
    async fn reap(&mut self) {
        let ended: Vec<u32> = self.held.iter().filter(|(_, held)| held.task.is_finished()).map(|(id, _)| *id).collect();
        for id in ended {
            let Some(held) = self.held.remove(&id) else { continue };
            held.token.cancel();
            if let Err(cause) = held.task.await {
                tracing::error!(partition = id, %cause, "a partition failed; it is acquired anew");
                let released = self.shared.store.release(&self.owner, vec![held.lease]).await;
                if let Err(cause) = released {
                    tracing::warn!(partition = id, %cause, "a lease was not released");
                }
            }
        }
    }

    async fn renew(&mut self) {
        let leases: Vec<PartitionLease> = self.held.values().map(|held| held.lease.clone()).collect();
        if leases.is_empty() {
            return;
        }
        match self.shared.store.renew(&self.owner, leases, self.shared.config.lease_ms).await {
            Ok(answer) => {
                for id in answer.lost {
                    tracing::warn!(partition = id, "partition lost");
                    self.shared.router.set(id, None);
                    if let Some(held) = self.held.remove(&id) {
                        held.token.cancel();
                    }
                }
                for lease in answer.held {
                    if let Some(held) = self.held.get_mut(&lease.partition) {
                        held.lease = lease;
                    }
                }
            }
            // The store refuses appends of an older epoch, so going on until it says so is safe.
            Err(cause) => tracing::warn!(%cause, "leases cannot be renewed"),
        }
    }
}
