//! The thread that writes. It takes everything that waits, runs it in one transaction and syncs once: while one commit is on its way to
//! the disk, the next group gathers by itself. Nobody waits for company.

use crate::{
    error::{Result, StoreError},
    metrics::BATCH_SIZE,
};
use rusqlite::{Connection, ErrorCode};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
};
use tokio::sync::oneshot;
use troupe_domain::{Error, Namespace};

/// Limits of one transaction: what comes on top waits for the next one.
const GROUP_JOBS: usize = 2048;
const GROUP_BYTES: usize = 32 << 20;
/// Bytes that may wait. More is refused: the disk does not keep up.
const WAITING_BYTES: usize = 512 << 20;
/// What a job weighs besides its data.
const JOB_BYTES: usize = 1024;

/// Why a piece of work did not do what was asked.
pub(super) enum Abort {
    /// Refused. Only before the work has written anything: the rest of the transaction goes on.
    Refused(StoreError),
    /// The database failed: the whole transaction is rolled back.
    Lost(rusqlite::Error),
}

impl From<rusqlite::Error> for Abort {
    fn from(error: rusqlite::Error) -> Self {
        Self::Lost(error)
    }
}

impl From<StoreError> for Abort {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl From<Error> for Abort {
    fn from(error: Error) -> Self {
        Self::Refused(error.into())
    }
}

pub(super) type Attempt<T> = std::result::Result<T, Abort>;

/// What the work runs on.
pub(super) struct Session {
    pub(super) connection: Connection,
    /// Numbers of namespaces. Forgotten at a rollback, which may have taken some back.
    pub(super) namespaces: HashMap<Namespace, i64>,
    pub(super) snapshots_kept: u32,
}

/// Work that waits, with its caller. It may be run more than once: after a rollback.
trait Job: Send {
    fn attempt(&mut self, session: &mut Session) -> rusqlite::Result<()>;
    /// Answers the caller: with the outcome of the last attempt, or with why the transaction was lost.
    fn finish(self: Box<Self>, lost: Option<&StoreError>);
}

struct Call<T, F> {
    work: F,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Job for Call<T, F>
where
    T: Send,
    F: FnMut(&mut Session) -> Attempt<T> + Send,
{
    fn attempt(&mut self, session: &mut Session) -> rusqlite::Result<()> {
        self.outcome = Some(match (self.work)(session) {
            Ok(value) => Ok(value),
            Err(Abort::Refused(error)) => Err(error),
            Err(Abort::Lost(error)) => return Err(error),
        });
        Ok(())
    }

    fn finish(self: Box<Self>, lost: Option<&StoreError>) {
        let outcome = match (lost, self.outcome) {
            (None, Some(outcome)) => outcome,
            (Some(error), _) => Err(error.clone()),
            (None, None) => Err(ended()),
        };
        // A caller that went away does not need the answer; what it asked for is done all the same.
        let _ = self.reply.send(outcome);
    }
}

fn ended() -> StoreError {
    StoreError::Storage("its writer has ended".to_owned())
}

struct Queued {
    job: Box<dyn Job>,
    weight: usize,
    writes: usize,
}

#[derive(Default)]
struct Gauges {
    waiting: AtomicUsize,
    failing: AtomicBool,
}

/// The way to the thread. It ends when the last clone is gone.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Queued>,
    gauges: Arc<Gauges>,
}

impl Writer {
    pub(super) fn start(connection: Connection, snapshots_kept: u32) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel();
        let gauges = Arc::<Gauges>::default();
        let shared = Arc::clone(&gauges);
        let session = Session { connection, namespaces: HashMap::new(), snapshots_kept };
        std::thread::Builder::new().name("journal-writer".to_owned()).spawn(move || write(session, &jobs, &shared))?;
        Ok(Self { queue, gauges })
    }

    /// Whether the last transaction was lost.
    pub(super) fn is_failing(&self) -> bool {
        self.gauges.failing.load(Ordering::Relaxed)
    }

    /// Queues work now; the future ends after its transaction has. `weight` is the bytes it holds, `writes` the runs it writes.
    pub(super) fn submit<T, F>(&self, weight: usize, writes: usize, work: F) -> impl Future<Output = Result<T>> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: FnMut(&mut Session) -> Attempt<T> + Send + 'static,
    {
        let weight = weight + JOB_BYTES;
        let (reply, answer) = oneshot::channel();
        let waiting = self.gauges.waiting.fetch_add(weight, Ordering::Relaxed);
        // One that is larger than the limit passes when nothing else waits.
        let refused = waiting > 0 && waiting + weight > WAITING_BYTES;
        if refused {
            self.gauges.waiting.fetch_sub(weight, Ordering::Relaxed);
        } else {
            let job = Box::new(Call { work, outcome: None, reply });
            // A thread that has ended gives the job back, and with it goes the reply: the answer below says so.
            if self.queue.send(Queued { job, weight, writes }).is_err() {
                self.gauges.failing.store(true, Ordering::Relaxed);
            }
        }
        async move {
            if refused {
                let error = Error::new(troupe_domain::Code::ResourceExhausted, "too much waits to be written to the journal");
                return Err(error.with_help("the disk does not keep up; try again later").into());
            }
            answer.await.unwrap_or_else(|_| Err(ended()))
        }
    }
}

fn write(mut session: Session, jobs: &mpsc::Receiver<Queued>, gauges: &Gauges) {
    let mut group = Vec::new();
    while let Ok(first) = jobs.recv() {
        let mut weight = first.weight;
        group.push(first);
        while group.len() < GROUP_JOBS && weight < GROUP_BYTES {
            let Ok(next) = jobs.try_recv() else { break };
            weight += next.weight;
            group.push(next);
        }
        let writes: usize = group.iter().map(|queued| queued.writes).sum();
        if writes > 0 {
            #[expect(clippy::cast_precision_loss, reason = "a histogram takes floats")]
            metrics::histogram!(BATCH_SIZE).record(writes as f64);
        }
        commit(&mut session, &mut group, gauges);
        gauges.waiting.fetch_sub(weight, Ordering::Relaxed);
    }
    if let Err(error) = session.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
        tracing::warn!(%error, "journal log not folded into the file at the end; the next start does it");
    }
}

/// Commits the group and answers its callers. Empties it.
fn commit(session: &mut Session, group: &mut Vec<Queued>, gauges: &Gauges) {
    let Err(error) = transaction(session, group) else {
        gauges.failing.store(false, Ordering::Relaxed);
        group.drain(..).for_each(|queued| queued.job.finish(None));
        return;
    };
    roll_back(session);
    if group.len() > 1 && !is_environment(&error) {
        // One job's own fault must not become the others': each gets a transaction for itself.
        for queued in std::mem::take(group) {
            commit(session, &mut vec![queued], gauges);
        }
        return;
    }
    tracing::error!(%error, jobs = group.len(), "journal transaction lost");
    gauges.failing.store(true, Ordering::Relaxed);
    let lost = StoreError::Storage(describe(&error));
    group.drain(..).for_each(|queued| queued.job.finish(Some(&lost)));
}

fn transaction(session: &mut Session, group: &mut [Queued]) -> rusqlite::Result<()> {
    session.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    for queued in group {
        queued.job.attempt(session)?;
    }
    session.connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}

fn roll_back(session: &mut Session) {
    session.namespaces.clear();
    if !session.connection.is_autocommit()
        && let Err(error) = session.connection.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "journal rollback failed");
    }
}

/// Whether the disk, the file or memory failed: then every job would fail the same way.
fn is_environment(error: &rusqlite::Error) -> bool {
    let codes = [
        ErrorCode::DiskFull,
        ErrorCode::SystemIoFailure,
        ErrorCode::CannotOpen,
        ErrorCode::DatabaseCorrupt,
        ErrorCode::NotADatabase,
        ErrorCode::DatabaseBusy,
        ErrorCode::DatabaseLocked,
        ErrorCode::ReadOnly,
        ErrorCode::OutOfMemory,
        ErrorCode::PermissionDenied,
    ];
    error.sqlite_error_code().is_some_and(|code| codes.contains(&code))
}

/// What an operator reads: no statement texts, no paths.
pub(super) fn describe(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full".to_owned(),
        Some(ErrorCode::SystemIoFailure) => "the disk reported an I/O error".to_owned(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "another process holds the file's lock".to_owned(),
        Some(ErrorCode::ReadOnly) => "the file is read-only".to_owned(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => "the file is damaged; restore it from a backup".to_owned(),
        _ => "the database failed; the log has the cause".to_owned(),
    }
}
