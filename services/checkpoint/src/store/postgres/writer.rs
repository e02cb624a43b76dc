//! The tasks that write. Each has its share of the partitions and a connection: it takes everything that waits, commits it in one
//! transaction, and answers. While one commit is on its way, the next group gathers by itself, and the commits of the tasks overlap.

use super::{
    columns::Columns,
    fault::{Abort, Attempt, Verdict, verdict},
    group::{Facts, Plan, plan},
    link::{DOUBTFUL, Db, Link, RACES},
};
use crate::{
    error::{Result, StoreError},
    metrics::BATCH_SIZE,
    model::Batch,
    store::blob::Digests,
};
use futures::future::join_all;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use troupe_domain::{Code, Error};
use troupe_service_kit::Tasks;

/// Limits of one transaction: what comes on top waits for the next one.
const GROUP_BATCHES: usize = 2048;
const GROUP_BYTES: usize = 32 << 20;
/// Bytes that may wait. More is refused: the database does not keep up.
const WAITING_BYTES: usize = 512 << 20;
/// What a batch weighs besides its data.
const BATCH_BYTES: usize = 1024;

/// A batch that waits, with its caller.
struct Queued {
    batch: Batch,
    digests: Digests,
    weight: usize,
    reply: oneshot::Sender<Result<()>>,
}

enum Job {
    Append(Box<Queued>),
    Flush(oneshot::Sender<()>),
}

#[derive(Default)]
struct Gauges {
    waiting: AtomicUsize,
    failing: AtomicBool,
}

/// The ways to the tasks. They end when the process does, after what was accepted.
pub(super) struct Writers {
    queues: Vec<mpsc::UnboundedSender<Job>>,
    gauges: Arc<Gauges>,
}

impl Writers {
    pub(super) fn start(db: &Arc<Db>, writers: u32, snapshots_kept: u32, tasks: &Tasks) -> Self {
        let gauges = Arc::<Gauges>::default();
        let start = |_| {
            let (queue, jobs) = mpsc::unbounded_channel();
            let (db, gauges) = (Arc::clone(db), Arc::clone(&gauges));
            let writer = Writer { db, link: None, used: Instant::now(), snapshots_kept, gauges };
            tasks.spawn("journal-writer", writer.run(jobs, tasks.token().clone()));
            queue
        };
        let queues = (0..writers.max(1)).map(start).collect();
        Self { queues, gauges }
    }

    /// Whether the last transaction was lost.
    pub(super) fn is_failing(&self) -> bool {
        self.gauges.failing.load(Ordering::Relaxed)
    }

    /// The database takes writes again.
    pub(super) fn recovered(&self) {
        self.gauges.failing.store(false, Ordering::Relaxed);
    }

    /// Queues a batch now; the future ends after its transaction has.
    pub(super) fn submit(&self, batch: Batch, digests: Digests) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let weight = batch.weight() + BATCH_BYTES;
        let (reply, answer) = oneshot::channel();
        let waiting = self.gauges.waiting.fetch_add(weight, Ordering::Relaxed);
        // One that is larger than the limit passes when nothing else waits.
        let refused = waiting > 0 && waiting + weight > WAITING_BYTES;
        let queue = &self.queues[batch.partition as usize % self.queues.len()];
        // A task that has ended gives the job back, and with it goes the reply: the answer below says so.
        if refused || queue.send(Job::Append(Box::new(Queued { batch, digests, weight, reply }))).is_err() {
            self.gauges.waiting.fetch_sub(weight, Ordering::Relaxed);
        }
        async move {
            if refused {
                let error = Error::new(Code::ResourceExhausted, "too much waits to be written to the journal");
                return Err(error.with_help("the database does not keep up; try again later").into());
            }
            answer.await.unwrap_or_else(|_| Err(StoreError::Storage("its writer has ended".to_owned())))
        }
    }

    /// Ends when everything that was queued before has been answered.
    pub(super) async fn flush(&self) -> Result<()> {
        let flushed = self.queues.iter().map(|queue| {
            let (reply, answer) = oneshot::channel();
            // A task that has ended has nothing to flush.
            let _ = queue.send(Job::Flush(reply));
            answer
        });
        join_all(flushed.collect::<Vec<_>>()).await;
        Ok(())
    }
}

struct Writer {
    db: Arc<Db>,
    /// Kept from one transaction to the next.
    link: Option<Link>,
    used: Instant,
    snapshots_kept: u32,
    gauges: Arc<Gauges>,
}

impl Writer {
    async fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>, stop: CancellationToken) {
        let mut group = VecDeque::new();
        let mut flushes = Vec::new();
        loop {
            let first = tokio::select! {
                biased;
                first = jobs.recv() => first,
                () = stop.cancelled(), if !jobs.is_closed() => {
                    jobs.close();
                    continue;
                }
            };
            let Some(first) = first else { return };
            let mut weight = 0;
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Append(queued) => {
                        weight += queued.weight;
                        group.push_back(*queued);
                    }
                    Job::Flush(reply) => flushes.push(reply),
                }
                let full = group.len() >= GROUP_BATCHES || weight >= GROUP_BYTES || !flushes.is_empty();
                next = if full { None } else { jobs.try_recv().ok() };
            }
            while !group.is_empty() {
                self.commit(&mut group).await;
            }
            self.gauges.waiting.fetch_sub(weight, Ordering::Relaxed);
            // Who asked and went away does not need the answer.
            for reply in flushes.drain(..) {
                let _ = reply.send(());
            }
        }
    }

    /// Writes a stretch from the front of the group and answers its callers.
    async fn commit(&mut self, group: &mut VecDeque<Queued>) {
        let mut facts = Facts::default();
        let mut races = 0;
        while !group.is_empty() {
            let Plan { accepted, refused, until } = plan(&group.iter().map(|queued| &queued.batch).collect::<Vec<_>>(), &facts);
            // Refused ones go first, so that the places of the accepted ones have to be counted anew.
            if !refused.is_empty() {
                for (place, error) in refused.into_iter().rev() {
                    if let Some(queued) = group.remove(place) {
                        answer(queued, Err(error));
                    }
                }
                continue;
            }
            let stretch: Vec<&Queued> = accepted.iter().filter_map(|place| group.get(*place)).collect();
            match self.transaction(&stretch).await {
                Ok(found) if found.epochs.is_empty() && found.runs.is_empty() => {
                    self.gauges.failing.store(false, Ordering::Relaxed);
                    group.drain(..until).for_each(|queued| answer(queued, Ok(())));
                    return;
                }
                Ok(found) => {
                    facts.epochs.extend(found.epochs);
                    facts.runs.extend(found.runs);
                }
                Err(abort) => match verdict(abort, true) {
                    Verdict::Again if races < RACES => races += 1,
                    Verdict::Own(_) if until > 1 => {
                        // One caller's own fault must not become the others': each gets a transaction for itself.
                        self.one_by_one(group, until).await;
                        return;
                    }
                    verdict @ Verdict::Everybody(_) => {
                        self.gauges.failing.store(true, Ordering::Relaxed);
                        let error = StoreError::from(verdict.into_error());
                        group.drain(..until).for_each(|queued| answer(queued, Err(error.clone())));
                        return;
                    }
                    verdict => {
                        let error = StoreError::from(verdict.into_error());
                        group.drain(..until).for_each(|queued| answer(queued, Err(error.clone())));
                        return;
                    }
                },
            }
        }
    }

    async fn one_by_one(&mut self, group: &mut VecDeque<Queued>, until: usize) {
        for queued in group.drain(..until).collect::<Vec<_>>() {
            let mut alone = VecDeque::from([queued]);
            Box::pin(self.commit(&mut alone)).await;
        }
    }

    async fn transaction(&mut self, stretch: &[&Queued]) -> Attempt<Facts> {
        let mut link = self.connected().await?;
        let columns = Columns::new(stretch.iter().map(|queued| (&queued.batch, &queued.digests)));
        let writes: usize = stretch.iter().map(|queued| queued.batch.writes.len()).sum();
        #[expect(clippy::cast_precision_loss, reason = "a histogram takes floats")]
        metrics::histogram!(BATCH_SIZE).record(writes as f64);
        let outcome = self.db.limit(columns.write(&mut link, self.snapshots_kept)).await;
        // What was refused wrote nothing: it makes no difference whether it is committed.
        let outcome = link.finish(outcome).await;
        if !link.is_outdated() {
            self.used = Instant::now();
            self.link = Some(link);
        }
        outcome
    }

    /// The connection of the last transaction if it still works, else a new one. Nothing is written here: a failure is no open question.
    async fn connected(&mut self) -> Attempt<Link> {
        if let Some(mut link) = self.link.take()
            && (self.used.elapsed() < DOUBTFUL || self.db.limit(async { Ok(link.works().await) }).await.unwrap_or(false))
            && self.db.limit(link.begin()).await.is_ok()
        {
            return Ok(link);
        }
        self.db.begin().await.map_err(|abort| Abort::Down(verdict(abort, false).into_error()))
    }
}

fn answer(queued: Queued, outcome: Result<()>) {
    // A caller that went away does not need the answer; what it asked for is done all the same.
    let _ = queued.reply.send(outcome);
}
