//! Which partitions are ours: acquired under a growing epoch, renewed while we live, handed over when others are to have them.
//!
//! Every executor renews what it serves, and with it its membership, several times in each lease; the answer tells who else is live and
//! who owns what, and from that each one comes to the same even shares (`plan`). Who has too many closes some, serves what is in their
//! mailboxes, gives them back and tells the others; who has too few takes what is free. Who cannot renew for a whole lease forgets all it
//! has: others may have it by then.

mod join;
mod plan;

use crate::{
    message::Message,
    metrics::{HANDOVERS, PARTITIONS, TAKEOVERS},
    partition::{Exit, Partition},
    recovery,
    shared::Shared,
};
use plan::{View, plan, soon};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use troupe_domain::{Error, Result};
use troupe_proto::checkpoint::v1::{PartitionLease, RenewPartitionsResponse};

/// How long a lost partition may try to write what it has: who waits for its runs is to look for their owner.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The shortest pause between two rounds.
const SHORTEST: Duration = Duration::from_millis(10);

/// How long the journal may take to answer when a process ends.
const FAREWELL: Duration = Duration::from_secs(2);

pub(crate) struct Leases {
    shared: Arc<Shared>,
    owner: String,
    lease: Duration,
    place: Place,
    held: HashMap<u32, Held>,
    /// Drained, and not given back yet: the journal has not taken note.
    returning: Vec<PartitionLease>,
    /// When the leases end, by the clock of this machine, which runs on while the process is stopped.
    valid_until: Instant,
}

/// How this executor stands to others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// This process alone has the journal: nobody else takes what it holds, however long a renewal takes.
    Alone,
    /// Others may come to the journal, and cannot reach this one: it has all partitions, or none.
    Secluded,
    /// Each has its share, and passes on what is another's.
    Among,
}

struct Held {
    lease: PartitionLease,
    task: JoinHandle<Exit>,
    /// Ends the partition's tasks at once.
    token: CancellationToken,
    /// Its mailbox is closed; it is given back once its task has ended.
    closing: bool,
}

impl Leases {
    pub(crate) fn new(shared: Arc<Shared>, owner: String, alone: bool) -> Self {
        let lease = Duration::from_millis(shared.config.lease_ms);
        let place = match alone {
            true => Place::Alone,
            false if shared.config.address.is_empty() => Place::Secluded,
            false => Place::Among,
        };
        Self { shared, owner, lease, place, held: HashMap::new(), returning: Vec::new(), valid_until: Instant::now() }
    }

    /// One round: renews what is held, hands over what is too much and takes what is missing. Answers when the next one is due.
    pub(crate) async fn keep(&mut self) -> Duration {
        self.forget_when_over();
        self.reap().await;
        let known = match self.renew().await {
            Ok(known) => known,
            Err(cause) => {
                tracing::warn!(%cause, "leases cannot be renewed");
                return soon(self.lease).min(self.valid_until.saturating_duration_since(Instant::now())).max(SHORTEST);
            }
        };
        let plan = self.plan(&known);
        for id in plan.hand_over {
            self.close(id);
        }
        let mut look_in = plan.look_in;
        if !self.returning.is_empty() {
            look_in = look_in.min(soon(self.lease));
        }
        if let Err(cause) = self.acquire(plan.acquire, &known.leases, false).await {
            tracing::warn!(%cause, "partitions cannot be acquired");
            look_in = look_in.min(soon(self.lease));
        }
        // What came after the renewal took its time: the next one is due a third of a lease after the last, not after this moment.
        let due = self.valid_until - self.lease + self.lease / 3;
        look_in.min(due.saturating_duration_since(Instant::now())).max(SHORTEST)
    }

    /// Lets go of everything and leaves: what is in the mailboxes is served first, within `limit`.
    pub(crate) async fn release_all(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        for id in self.held.keys() {
            self.shared.router.set(*id, None);
        }
        let mut leases = std::mem::take(&mut self.returning);
        for (id, held) in self.held.drain() {
            match tokio::time::timeout_at(deadline, held.task).await {
                Ok(Ok(Exit::Drained | Exit::Stopped)) => leases.push(held.lease),
                Ok(Ok(Exit::Stale)) => {}
                Ok(Err(_)) | Err(_) => tracing::warn!(partition = id, "a partition did not drain in time"),
            }
            held.token.cancel();
        }
        metrics::counter!(HANDOVERS).increment(leases.len() as u64);
        metrics::gauge!(PARTITIONS).set(0.0);
        let release = self.shared.store.release(&self.owner, leases, true);
        match tokio::time::timeout(FAREWELL, release).await {
            Ok(Ok(())) => self.shared.router.peers.nudge().await,
            Ok(Err(cause)) => tracing::warn!(%cause, "leases were not released; they end by themselves"),
            Err(_) => tracing::warn!("leases were not released in time; they end by themselves"),
        }
    }

    fn plan(&self, known: &RenewPartitionsResponse) -> plan::Plan {
        let of = |closing: bool| self.held.iter().filter(|(_, held)| held.closing == closing).map(|(id, _)| *id).collect();
        let (serving, closing): (BTreeSet<u32>, BTreeSet<u32>) = (of(false), of(true));
        plan(&View {
            me: &self.owner,
            executors: if self.place == Place::Among { &known.executors } else { &[] },
            partitions: self.shared.config.partitions,
            leases: &known.leases,
            serving: &serving,
            closing: &closing,
            lease: self.lease,
        })
    }

    async fn acquire(&mut self, wanted: Vec<u32>, known: &[PartitionLease], force: bool) -> Result<()> {
        if !wanted.is_empty() {
            let acquire = self.shared.store.acquire(&self.owner, wanted.clone(), self.shared.config.lease_ms, force);
            let leases = self.in_time(acquire).await?;
            self.shared.router.note(&leases);
            for lease in leases.into_iter().filter(|lease| wanted.contains(&lease.partition)) {
                let lost = |before: &&PartitionLease| before.partition == lease.partition && before.epoch + 1 == lease.epoch;
                if known.iter().find(lost).is_some_and(|before| !before.owner.is_empty()) {
                    metrics::counter!(TAKEOVERS).increment(1);
                }
                self.open(lease);
            }
        }
        metrics::gauge!(PARTITIONS).set(f64::from(u32::try_from(self.held.len()).unwrap_or(u32::MAX)));
        Ok(())
    }

    /// A journal that does not answer must not keep us from noticing that a lease has ended.
    async fn in_time<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| Error::unavailable("the journal does not answer in time");
        match self.place {
            Place::Alone => call.await,
            Place::Secluded | Place::Among => tokio::time::timeout(self.lease / 3, call).await.map_err(late)?,
        }
    }

    /// Starts the tasks of a partition.
    fn open(&mut self, lease: PartitionLease) {
        let (shared, id) = (Arc::clone(&self.shared), lease.partition);
        tracing::info!(partition = id, epoch = lease.epoch, "partition acquired");
        let (mailbox, messages) = mpsc::channel::<Message>(shared.config.mailbox);
        let token = shared.tasks.token().child_token();
        let partition = Partition::new(&lease, Arc::clone(&shared), messages, token.clone());
        let weak = mailbox.downgrade();
        let inbox = weak.clone();
        shared.router.set(id, Some(mailbox));
        let serving = {
            let (shared, token) = (Arc::clone(&shared), token.clone());
            async move {
                let exit = partition.serve(token.clone()).await;
                shared.router.close(id, &weak);
                token.cancel();
                tracing::info!(partition = id, ?exit, "partition closed");
                // What is closed is to be given back, what is lost may have to be acquired anew.
                shared.look.notify_one();
                exit
            }
        };
        let task = shared.tasks.spawn("partition", serving);
        shared.tasks.spawn("recovery", recovery::run(Arc::clone(&shared), id, inbox, token.clone()));
        self.held.insert(id, Held { lease, task, token, closing: false });
    }

    /// Takes nothing more for a partition. What is in its mailbox is served; then its task ends.
    fn close(&mut self, id: u32) {
        if let Some(held) = self.held.get_mut(&id) {
            tracing::info!(partition = id, "partition handed over");
            held.closing = true;
            self.shared.router.set(id, None);
        }
    }

    /// Lets go of a partition that is another's, or may be. What is on its way to the journal is refused there, if it is.
    fn lose(&mut self, id: u32) {
        self.shared.router.set(id, None);
        if let Some(Held { task, token, .. }) = self.held.remove(&id) {
            self.shared.tasks.spawn("lost partition", async move {
                let _ = tokio::time::timeout(LAST_WORDS, task).await;
                token.cancel();
            });
        }
    }

    /// Forgets everything when no renewal has come through for a whole lease.
    fn forget_when_over(&mut self) {
        if self.place == Place::Alone || self.held.is_empty() || Instant::now() < self.valid_until {
            return;
        }
        tracing::warn!(partitions = self.held.len(), "the leases have ended without a renewal; all partitions are let go");
        let ids: Vec<u32> = self.held.keys().copied().collect();
        for id in ids {
            self.lose(id);
        }
        metrics::gauge!(PARTITIONS).set(0.0);
    }

    /// Gives back what has drained, and forgets partitions whose task has ended otherwise: they were lost, or it failed.
    async fn reap(&mut self) {
        let ended: Vec<u32> = self.held.iter().filter(|(_, held)| held.task.is_finished()).map(|(id, _)| *id).collect();
        let mut leases = std::mem::take(&mut self.returning);
        for id in ended {
            let Some(held) = self.held.remove(&id) else { continue };
            held.token.cancel();
            match held.task.await {
                Ok(Exit::Drained) => {
                    metrics::counter!(HANDOVERS).increment(1);
                    leases.push(held.lease);
                }
                Ok(Exit::Stale | Exit::Stopped) => {}
                Err(cause) => {
                    tracing::error!(partition = id, %cause, "a partition failed; it is acquired anew");
                    leases.push(held.lease);
                }
            }
        }
        if leases.is_empty() {
            return;
        }
        let release = self.shared.store.release(&self.owner, leases.clone(), false);
        match self.in_time(release).await {
            Ok(()) => self.nudge(),
            Err(cause) => {
                tracing::warn!(%cause, "leases were not released");
                // Others wait for them, at most until they end by themselves.
                self.returning = leases;
            }
        }
    }

    /// Tells the other executors to look, without waiting until they have.
    pub(crate) fn nudge(&self) {
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn("nudge", async move { shared.router.peers.nudge().await });
    }

    async fn renew(&mut self) -> Result<RenewPartitionsResponse> {
        let leases: Vec<PartitionLease> = self.held.values().map(|held| held.lease.clone()).collect();
        let sent = Instant::now();
        let renew = self.shared.store.renew(&self.owner, leases, self.shared.config.lease_ms);
        let mut known = self.in_time(renew).await?;
        for id in std::mem::take(&mut known.lost) {
            tracing::warn!(partition = id, "partition lost");
            self.lose(id);
        }
        for lease in std::mem::take(&mut known.held) {
            if let Some(held) = self.held.get_mut(&lease.partition) {
                held.lease = lease;
            }
        }
        self.valid_until = sent + self.lease;
        self.shared.router.hold_until((self.place != Place::Alone).then_some(self.valid_until));
        self.shared.router.peers.keep(&known.executors);
        self.shared.router.learn(&known.leases);
        Ok(known)
    }
}
