//! Journals to test, and what to write into them.

use crate::{
    database::{Database, SERVER},
    remote::Remote,
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use troupe_checkpoint::{
    Backend, Clock, Config, Journal, Memory, Postgres, PostgresConfig, Service, Sqlite,
    model::{Batch, Entry, Micros, RunKey, RunRow, RunWrite, Snapshot, Status},
};
use troupe_domain::{Code, Namespace, RunId};
use troupe_service_kit::Tasks;
use troupe_wire::Transport;
use uuid::Uuid;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// A journal with a clock that the test turns. The folder and the database go at the end.
pub(crate) struct Fixture {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) is_remote: bool,
    now: Arc<AtomicI64>,
    _folder: Option<tempfile::TempDir>,
    _database: Option<Database>,
}

fn clock() -> (Clock, Arc<AtomicI64>) {
    let now = Arc::new(AtomicI64::new(1_000_000_000));
    let hand = Arc::clone(&now);
    (Clock::new(move || Micros(hand.load(Ordering::SeqCst))), now)
}

pub(crate) fn memory() -> Fixture {
    let (clock, now) = clock();
    Fixture { journal: Arc::new(Memory::new(3, clock)), is_remote: false, now, _folder: None, _database: None }
}

pub(crate) fn file() -> Fixture {
    let (clock, now) = clock();
    let folder = tempfile::tempdir().unwrap();
    let journal = Sqlite::open(&folder.path().join("data/journal.db"), &Config::default(), clock).unwrap();
    Fixture { journal: Arc::new(journal), is_remote: false, now, _folder: Some(folder), _database: None }
}

/// Retention over gRPC goes by the service's settings: one day, two runs.
pub(crate) async fn remote() -> Fixture {
    let (clock, now) = clock();
    let folder = tempfile::tempdir().unwrap();
    let config = Config { retention_days: 1, retention_runs: 2, prune_interval_seconds: 0, ..Config::default() };
    let backend = Backend::Sqlite(folder.path().join("journal.db"));
    let service = Service::start_at(config, backend, clock, &Tasks::new()).await.unwrap();
    let journal = Arc::new(Remote::new(Transport::embedded(service.routes())));
    Fixture { journal, is_remote: true, now, _folder: Some(folder), _database: None }
}

pub(crate) async fn database() -> Fixture {
    let database = Database::new().await;
    let config = PostgresConfig { url: database.url(SERVER), ..PostgresConfig::default() };
    in_database(database, config).await
}

/// The same through a pooler that gives each transaction any of its connections.
pub(crate) async fn pooled() -> Fixture {
    let database = Database::new().await;
    let config = PostgresConfig { url: database.url("TROUPE_TEST_PGBOUNCER"), pooler: true, ..PostgresConfig::default() };
    in_database(database, config).await
}

async fn in_database(database: Database, config: PostgresConfig) -> Fixture {
    let (clock, now) = clock();
    let journal = Postgres::open(&config, 3, clock, &Tasks::new()).await.unwrap();
    Fixture { journal: Arc::new(journal), is_remote: false, now, _folder: None, _database: Some(database) }
}

impl Fixture {
    pub(crate) fn now(&self) -> Micros {
        Micros(self.now.load(Ordering::SeqCst))
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.now.fetch_add(i64::try_from(time.as_micros()).unwrap(), Ordering::SeqCst);
    }

    /// Acquires partition 0 as epoch 1.
    pub(crate) async fn own(&self) {
        let leases = self.journal.acquire_partitions("a".into(), vec![0], MINUTE, false).await.unwrap();
        assert_eq!(leases[0].epoch, 1);
    }

    pub(crate) async fn append(&self, writes: Vec<RunWrite>) -> Result<(), (Code, String)> {
        self.append_as(1, writes).await
    }

    pub(crate) async fn append_as(&self, epoch: u64, writes: Vec<RunWrite>) -> Result<(), (Code, String)> {
        self.journal.append(Batch { partition: 0, epoch, writes }).await.map_err(|error| (error.code(), error.reason().to_owned()))
    }

    /// The stored row.
    pub(crate) async fn row(&self, key: &RunKey) -> RunRow {
        self.journal.load_runs(vec![key.clone()], 0).await.unwrap().remove(0).row
    }
}

pub(crate) fn namespace(name: &str) -> Namespace {
    Namespace::parse(name).unwrap()
}

/// The run with this number; ids are in the order of the numbers.
pub(crate) fn key(number: u128) -> RunKey {
    RunKey { namespace: namespace("acme"), id: RunId(Uuid::from_u128(number)) }
}

pub(crate) fn row(number: u128) -> RunRow {
    RunRow {
        key: key(number),
        partition: 0,
        workflow: "flow".into(),
        version: "1".into(),
        definition_hash: "h".into(),
        status: Status::Running,
        labels: BTreeMap::new(),
        created_at: Micros(i64::try_from(number).unwrap()),
        updated_at: Micros(7),
        ended_at: None,
        seq: 0,
        wake_at: None,
        parent: None,
        error_code: String::new(),
        error_message: String::new(),
        dead_queue: String::new(),
        priority: 5,
    }
}

pub(crate) fn entry(seq: u64) -> Entry {
    Entry {
        seq,
        at: Micros(1000 + i64::try_from(seq).unwrap()),
        kind: "task_completed".into(),
        event: Bytes::from(format!("{{\"n\":{seq}}}")),
        payload: Bytes::from(format!("\"payload {seq}\"")),
        changes: Bytes::from_static(b"[]"),
        traceparent: String::new(),
    }
}

/// The next `count` entries of a run.
pub(crate) fn write(mut row: RunRow, expected_seq: u64, count: u64) -> RunWrite {
    row.seq = expected_seq + count;
    let entries = (expected_seq + 1..=row.seq).map(entry).collect();
    RunWrite { row, expected_seq, entries, snapshot: None }
}

pub(crate) fn snapshot(seq: u64) -> Option<Snapshot> {
    Some(Snapshot { seq, state: Bytes::from(format!("{{\"seq\":{seq}}}")) })
}

/// A run of one entry that ends at once.
pub(crate) fn ended(number: u128, at: Micros) -> RunWrite {
    write(RunRow { status: Status::Succeeded, ended_at: Some(at), ..row(number) }, 0, 1)
}

pub(crate) fn refused(code: Code, reason: &str) -> Result<(), (Code, String)> {
    Err((code, reason.to_owned()))
}
