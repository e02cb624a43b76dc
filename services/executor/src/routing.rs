//! Which executor owns a run's partition, and how messages get there.
//!
//! Partitions that this process owns have a mailbox here; of the others the table knows the peer, as the journal said last. Who finds the
//! table wrong has it read again, all of them at once, and tries again: callers see an error only when nobody owns the run for longer than
//! a take-over lasts.

mod refused;
mod search;

use crate::{
    message::{Answer, Done, Intent, Message, Op, Reply},
    peers::{Item, Peer, Peers},
    run::Key,
    store::Store,
};
pub(crate) use refused::moving;
use refused::{Refused, not_owner, put, unanswered};
pub(crate) use search::Search;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use troupe_domain::{Result, RunId, partition_of};
use troupe_proto::checkpoint::v1::PartitionLease;

/// How long a call waits for room in a mailbox.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much longer than a lease a call waits for its run's owner.
const GRACE: Duration = Duration::from_secs(2);

/// The longest lease that a call waits out; callers have other things to do.
const LONGEST: Duration = Duration::from_secs(15);

/// How long the table is good enough once it was read.
const FRESH: Duration = Duration::from_millis(50);

/// Who was not told no for so long was at the owner.
pub(crate) const OWNED: Duration = Duration::from_secs(1);

/// How long reading the table may take.
const READ: Duration = Duration::from_secs(1);

/// How many ids are made up to find one of a partition of ours.
const TRIES: usize = 64;

/// The reason of errors of those who do not own a run.
pub(crate) const NOT_OWNER: &str = "NOT_OWNER";

#[derive(Default)]
struct Slot {
    mailbox: Option<mpsc::Sender<Message>>,
    peer: Option<Arc<Peer>>,
}

/// Where a run's partition is.
pub(crate) enum Place {
    Here,
    There(Arc<Peer>),
    Nowhere,
}

/// The way to a partition. Not to be kept: a partition drains once nobody can send to it any more.
enum Way {
    Mailbox(mpsc::Sender<Message>),
    Peer(Arc<Peer>),
    None,
}

pub(crate) struct Router {
    slots: Box<[RwLock<Slot>]>,
    pub(crate) peers: Peers,
    lease: Duration,
    born: Instant,
    /// Milliseconds after `born` until which our partitions are ours.
    valid: AtomicU64,
    /// Raised when the table may be wrong.
    doubt: Arc<Notify>,
    /// How often the table was read because of that.
    read: watch::Sender<u64>,
    /// The process stops: the table is not read any more.
    over: AtomicBool,
    /// The newest epoch of each partition that anybody owned, as far as is known.
    epochs: watch::Sender<Epochs>,
}

/// Partitions with their epochs. A new one says that the owner has changed, or lost its memory.
pub(crate) type Epochs = BTreeMap<u32, u64>;

impl Router {
    pub(crate) fn new(partitions: u32, lease: Duration, peers: Peers, doubt: Arc<Notify>) -> Self {
        Self {
            slots: (0..partitions).map(|_| RwLock::default()).collect(),
            peers,
            lease: lease.min(LONGEST),
            born: Instant::now(),
            valid: AtomicU64::new(0),
            doubt,
            read: watch::Sender::new(0),
            over: AtomicBool::new(false),
            epochs: watch::Sender::default(),
        }
    }

    pub(crate) fn partition_of(&self, run: RunId) -> u32 {
        partition_of(run, u32::try_from(self.slots.len()).unwrap_or(u32::MAX))
    }

    fn change(&self, partition: u32, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.get(partition as usize) {
            change(&mut slot.write().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Opens a partition's mailbox, or closes it (`None`): messages already in it are still served.
    pub(crate) fn set(&self, partition: u32, mailbox: Option<mpsc::Sender<Message>>) {
        self.change(partition, |slot| slot.mailbox = mailbox);
    }

    /// Closes a mailbox unless it was opened anew meanwhile.
    pub(crate) fn close(&self, partition: u32, mailbox: &mpsc::WeakSender<Message>) {
        let Some(ours) = mailbox.upgrade() else { return };
        self.change(partition, |slot| {
            if slot.mailbox.as_ref().is_some_and(|current| current.same_channel(&ours)) {
                slot.mailbox = None;
            }
        });
    }

    /// Our partitions are ours until then; `None`: for as long as this process lives.
    pub(crate) fn hold_until(&self, moment: Option<Instant>) {
        let millis = |moment: Instant| u64::try_from(moment.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX);
        self.valid.store(moment.map_or(u64::MAX, millis), Ordering::Release);
    }

    /// Whether the leases of what we hold have not ended, as far as we can tell.
    pub(crate) fn is_valid(&self) -> bool {
        u128::from(self.valid.load(Ordering::Acquire)) > self.born.elapsed().as_millis()
    }

    /// Partitions that have changed hands raise this.
    pub(crate) fn epochs(&self) -> watch::Receiver<Epochs> {
        self.epochs.subscribe()
    }

    /// Notes under which epochs partitions are owned.
    pub(crate) fn note(&self, leases: &[PartitionLease]) {
        self.epochs.send_if_modified(|epochs| {
            let mut is_newer = false;
            for lease in leases {
                let epoch = epochs.entry(lease.partition).or_default();
                is_newer |= lease.epoch > *epoch;
                *epoch = lease.epoch.max(*epoch);
            }
            is_newer
        });
    }

    /// Takes over what the journal says of the partitions.
    pub(crate) fn learn(&self, leases: &[PartitionLease]) {
        self.note(leases);
        for lease in leases {
            let peer = (lease.remaining_ms > 0).then(|| self.peers.get(&lease.owner)).flatten();
            self.change(lease.partition, |slot| slot.peer = peer);
        }
    }

    pub(crate) fn place(&self, run: RunId) -> Place {
        match self.way(self.partition_of(run)) {
            Way::Mailbox(_) => Place::Here,
            Way::Peer(peer) => Place::There(peer),
            Way::None => Place::Nowhere,
        }
    }

    fn way(&self, partition: u32) -> Way {
        let Some(slot) = self.slots.get(partition as usize) else { return Way::None };
        let slot = slot.read().unwrap_or_else(PoisonError::into_inner);
        match (&slot.mailbox, &slot.peer) {
            // A process that was stopped for longer than its lease may find itself here before it knows.
            (Some(mailbox), _) if self.is_valid() => Way::Mailbox(mailbox.clone()),
            (_, Some(peer)) => Way::Peer(Arc::clone(peer)),
            _ => Way::None,
        }
    }

    pub(crate) fn mailbox(&self, partition: u32) -> Result<mpsc::Sender<Message>> {
        match self.way(partition) {
            Way::Mailbox(mailbox) => Ok(mailbox),
            Way::Peer(_) | Way::None => Err(not_owner(partition)),
        }
    }

    /// Whether a run is one of our partitions'.
    pub(crate) fn owns(&self, run: RunId) -> bool {
        matches!(self.place(run), Place::Here)
    }

    /// Whether a run's partition is served here, whatever its lease: what the run has led to is ours to see to.
    pub(crate) fn serves(&self, run: RunId) -> bool {
        let slot = self.slots.get(self.partition_of(run) as usize);
        slot.is_some_and(|slot| slot.read().unwrap_or_else(PoisonError::into_inner).mailbox.is_some())
    }

    /// An id for a new run: of a partition of ours, where there is one.
    pub(crate) fn fresh_id(&self) -> RunId {
        let ids = std::iter::repeat_with(RunId::generate).take(TRIES);
        let mut last = None;
        for id in ids {
            if self.owns(id) {
                return id;
            }
            last = Some(id);
        }
        last.unwrap_or_else(RunId::generate)
    }

    /// Sends to a partition of ours.
    pub(crate) async fn deliver(&self, key: Key, op: Op, traceparent: String) -> Result<()> {
        let partition = self.partition_of(key.run);
        let mailbox = self.mailbox(partition)?;
        let message = Message::Run { key, op, traceparent };
        put(&mailbox, message).await.map_err(|refused| refused.error(partition))
    }

    /// Sends to whoever owns the run. Where it cannot be sent the reply is dropped with it.
    pub(crate) async fn post(&self, key: Key, intent: Intent, traceparent: String, reply: Reply) -> Result<()> {
        let partition = self.partition_of(key.run);
        let sent = match self.way(partition) {
            Way::Mailbox(mailbox) => put(&mailbox, Message::Run { key, op: intent.op(reply), traceparent }).await,
            Way::Peer(peer) => put(&peer.items, Item { key, intent, traceparent, reply }).await,
            Way::None => Err(Refused::Closed),
        };
        sent.map_err(|refused| {
            self.doubt.notify_one();
            refused.error(partition)
        })
    }

    /// Sends and waits for the durable answer, wherever the run lives and wherever it moves meanwhile. What was sent is sent again when it
    /// is not known what became of it: it changes a run once.
    pub(crate) async fn call(&self, key: Key, traceparent: String, mut intent: Intent) -> Result<Answer> {
        let made_up = matches!(intent, Intent::Start { fresh: true, .. });
        let (mut search, mut repeated) = (self.search(), false);
        loop {
            let asked = Instant::now();
            let (reply, answer) = Reply::call();
            let sent = self.post(key.clone(), intent.clone(), traceparent.clone(), reply).await;
            let outcome = match sent {
                Ok(()) => answer.await.unwrap_or_else(|_| {
                    repeated = true;
                    if asked.elapsed() > OWNED {
                        search.found();
                    }
                    Err(unanswered())
                }),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(mut answer) => {
                    answer.repeated = repeated;
                    if made_up && matches!(answer.done, Done::Existed) {
                        // Nobody else knows the id.
                        answer.done = Done::Created;
                    }
                    return Ok(answer);
                }
                Err(error) if error.reason == NOT_OWNER => search.again(error).await?,
                Err(error) => return Err(error),
            }
            if let Intent::Start { fresh, .. } = &mut intent {
                *fresh &= !repeated;
            }
        }
    }

    /// Asks a partition of ours what only memory knows.
    pub(crate) async fn ask<T>(&self, key: Key, op: impl FnOnce(oneshot::Sender<T>) -> Op) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.deliver(key, op(reply), String::new()).await?;
        answer.await.map_err(|_| unanswered())
    }

    /// The search for a run's owner, which begins now.
    pub(crate) fn search(&self) -> Search<'_> {
        Search::begin(self)
    }

    /// Reads the table again whenever somebody doubts it, until the process stops.
    pub(crate) async fn keep_table(&self, store: &Store, token: &CancellationToken) {
        loop {
            tokio::select! {
                () = token.cancelled() => {
                    self.over.store(true, Ordering::Release);
                    // Who waits for the table is not to keep the process.
                    self.read.send_modify(|times| *times += 1);
                    return;
                }
                () = self.doubt.notified() => {}
            }
            match tokio::time::timeout(READ, store.partitions()).await {
                Ok(Ok(leases)) => self.learn(&leases),
                Ok(Err(cause)) => tracing::debug!(%cause, "who owns which partition cannot be read"),
                Err(_) => tracing::debug!("who owns which partition is not answered in time"),
            }
            self.read.send_modify(|times| *times += 1);
            tokio::time::sleep(FRESH).await;
        }
    }
}
