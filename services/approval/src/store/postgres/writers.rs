//! The tasks that write. Each has its share of the approvals: it takes all changes that wait, makes them in one transaction under the rows'
//! locks, and answers. While one commit is on its way the next group gathers by itself, and the commits of the tasks overlap.

use super::{Change, Key, Update, approval, micros};
use crate::{
    approval::{Approval, Time},
    store::{body, first_delivery},
};
use sqlx::Row as _;
use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use troupe_domain::Error;
use troupe_postgres::{Attempt, Db, Failure, Link};
use troupe_service_kit::Tasks;

/// Changes in one transaction at most: bounds how long the first of them waits.
const GROUP: usize = 512;

/// In the order of `seq`: two transactions lock the same rows in the same order. Arrays are hidden from the planner in selects: it would plan
/// anew for each length that it sees.
const LOCK: &str = "SELECT a.seq, a.deliver_at, a.body FROM approval.approvals a
     JOIN (SELECT DISTINCT namespace, approval_id FROM unnest((SELECT $1::text[]), (SELECT $2::text[])) k(namespace, approval_id)) k
         ON a.namespace = k.namespace AND a.approval_id = k.approval_id
     ORDER BY a.seq FOR UPDATE OF a";
const WRITE: &str = "UPDATE approval.approvals a SET status = x.status, expires_at = x.expires_at, deliver_at = x.deliver_at, body = coalesce(x.body, a.body)
     FROM unnest((SELECT $1::bigint[]), (SELECT $2::text[]), (SELECT $3::bigint[]), (SELECT $4::bigint[]), (SELECT $5::bytea[])) x(seq, status, expires_at, deliver_at, body)
     WHERE a.seq = x.seq";

/// What a job does to its row.
enum Work {
    Change(Change),
    /// Ends a delivery: it is next due then, or never.
    Finish(Option<Time>),
}

struct Job {
    key: Key,
    work: Work,
    reply: oneshot::Sender<Result<Update, Error>>,
}

/// The ways to the tasks. They end when the process does, after what was accepted.
pub(super) struct Writers {
    queues: Vec<mpsc::UnboundedSender<Job>>,
    share: RandomState,
}

impl Writers {
    pub(super) fn start(db: &Arc<Db>, writers: u32, tasks: &Tasks) -> Self {
        let start = |_| {
            let (queue, jobs) = mpsc::unbounded_channel();
            tasks.spawn("approval-writer", run(Arc::clone(db), jobs, tasks.token().clone()));
            queue
        };
        Self { queues: (0..writers.max(1)).map(start).collect(), share: RandomState::new() }
    }

    pub(super) async fn update(&self, key: Key, change: Change) -> Result<Update, Error> {
        self.submit(key, Work::Change(change)).await
    }

    pub(super) async fn finish(&self, key: Key, retry_at: Option<Time>) -> Result<(), Error> {
        self.submit(key, Work::Finish(retry_at)).await.map(drop)
    }

    /// The same approval goes to the same task: its changes keep their order.
    async fn submit(&self, key: Key, work: Work) -> Result<Update, Error> {
        let queues = u64::try_from(self.queues.len()).unwrap_or(1);
        let place = usize::try_from(self.share.hash_one(&key) % queues).unwrap_or(0);
        let (reply, answer) = oneshot::channel();
        let ended = || Error::unavailable("the approval service is stopping; try again");
        self.queues[place].send(Job { key, work, reply }).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

async fn run(db: Arc<Db>, mut jobs: mpsc::UnboundedReceiver<Job>, stop: CancellationToken) {
    let mut group = Vec::with_capacity(GROUP);
    loop {
        let taken = tokio::select! {
            biased;
            taken = jobs.recv_many(&mut group, GROUP) => taken,
            () = stop.cancelled(), if !jobs.is_closed() => {
                jobs.close();
                continue;
            }
        };
        if taken == 0 {
            return;
        }
        commit(&db, std::mem::take(&mut group)).await;
    }
}

async fn commit(db: &Db, group: Vec<Job>) {
    let outcome = transaction(db, &group).await;
    match outcome {
        Ok(updates) => group.into_iter().zip(updates).for_each(|(job, update)| answer(job, update)),
        // One caller's own fault must not become the others': each gets a transaction for itself.
        Err(Failure::Refused(_)) if group.len() > 1 => {
            for job in group {
                let alone = [job];
                let outcome = transaction(db, &alone).await;
                let [job] = alone;
                let update = outcome.map_err(Error::from).and_then(|mut updates| updates.pop().unwrap_or(Ok(Update::Missing)));
                answer(job, update);
            }
        }
        Err(failure) => group.into_iter().for_each(|job| answer(job, Err(failure.clone().into()))),
    }
}

fn answer(job: Job, update: Result<Update, Error>) {
    // A caller that went away does not need the answer; what it asked for is done all the same.
    let _ = job.reply.send(update);
}

async fn transaction(db: &Db, group: &[Job]) -> Result<Vec<Result<Update, Error>>, Failure> {
    db.work(true, |mut link| async move { (change_all(&mut link, group).await, link) }).await
}

/// A locked row, and what the group has made of it so far.
struct Row {
    seq: i64,
    deliver_at: Option<i64>,
    approval: Approval,
    is_changed: bool,
    /// Whether the approval itself is another one.
    is_rewritten: bool,
}

async fn change_all(link: &mut Link, group: &[Job]) -> Attempt<Vec<Result<Update, Error>>> {
    link.transaction().await?;
    let mut rows = locked(link, group).await?;
    let updates: Vec<_> = group.iter().map(|job| change_one(&mut rows, job)).collect();
    let changed: Vec<&Row> = rows.values().filter(|row| row.is_changed).collect();
    if !changed.is_empty() {
        let query = link.query(WRITE).bind(changed.iter().map(|row| row.seq).collect::<Vec<_>>());
        let query = query.bind(changed.iter().map(|row| row.approval.status.name()).collect::<Vec<_>>());
        let query = query.bind(changed.iter().map(|row| micros(row.approval.expires_at)).collect::<Vec<_>>());
        let query = query.bind(changed.iter().map(|row| row.deliver_at).collect::<Vec<_>>());
        let bodies = changed.iter().map(|row| row.is_rewritten.then(|| body::encode(&row.approval)));
        let query = query.bind(bodies.collect::<Vec<_>>());
        query.execute(link.connection()).await?;
    }
    Ok(updates)
}

async fn locked(link: &mut Link, group: &[Job]) -> Attempt<HashMap<Key, Row>> {
    let namespaces: Vec<&str> = group.iter().map(|job| job.key.namespace.as_str()).collect();
    let ids: Vec<&str> = group.iter().map(|job| job.key.id.as_str()).collect();
    let found = link.query(LOCK).bind(namespaces).bind(ids).fetch_all(link.connection()).await?;
    let mut rows = HashMap::with_capacity(found.len());
    for row in &found {
        let approval = approval(row, 2)?;
        let (seq, deliver_at) = (row.try_get(0)?, row.try_get(1)?);
        rows.insert(approval.key.clone(), Row { seq, deliver_at, approval, is_changed: false, is_rewritten: false });
    }
    Ok(rows)
}

fn change_one(rows: &mut HashMap<Key, Row>, job: &Job) -> Result<Update, Error> {
    let Some(row) = rows.get_mut(&job.key) else { return Ok(Update::Missing) };
    match &job.work {
        Work::Finish(retry_at) => {
            row.deliver_at = micros(*retry_at);
            row.is_changed = true;
            Ok(Update::Unchanged)
        }
        Work::Change(change) => {
            let Some(after) = change(&row.approval)? else { return Ok(Update::Unchanged) };
            row.deliver_at = micros(first_delivery(&row.approval, &after)).or(row.deliver_at);
            row.approval = after.clone();
            (row.is_changed, row.is_rewritten) = (true, true);
            Ok(Update::Changed(Box::new(after)))
        }
    }
}
