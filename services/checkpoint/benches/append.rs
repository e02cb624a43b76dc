//! Appends a second, and how long one takes. `cargo bench -p troupe-checkpoint`; the file is made in the folder that
//! `TROUPE_BENCH_DIR` names (default: the system's folder for temporary files, which should be on the disk that is to be measured).
//! With `TROUPE_TEST_POSTGRES` also in a database of its own on that server: `TROUPE_TEST_FSYNC=on scripts/services.sh` starts one.
#![expect(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a benchmark ends at its first surprise, and prints rounded numbers")]

#[path = "../../../crates/postgres/tests/support/database.rs"]
mod database;

use bytes::Bytes;
use database::{Database, SERVER};
use sqlx::{Connection as _, PgConnection, Row as _};
use std::{
    collections::BTreeMap,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};
use troupe_checkpoint::{
    Clock, Config, Journal, Memory, Postgres, PostgresConfig, Sqlite,
    model::{Batch, Entry, Micros, RunKey, RunRow, RunWrite, Status},
};
use troupe_domain::{Namespace, RunId};
use troupe_service_kit::Tasks;
use uuid::Uuid;

const TIME: Duration = Duration::from_secs(3);
/// Entries after which a run ends and the next one begins.
const RUN_LENGTH: u64 = 12;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let folder = std::env::var("TROUPE_BENCH_DIR").map_or_else(|_| tempfile::tempdir(), tempfile::tempdir_in).unwrap();
    let (half, most) = sync_time(folder.path());
    println!("disk sync of 4 KiB          p50 {half:>9.1?}   p95 {most:>9.1?}");
    let journal = Sqlite::open(&folder.path().join("journal.db"), &Config::default(), Clock::system()).unwrap();
    measure("sqlite", &journal).await;
    measure("memory", &Memory::new(3, Clock::system())).await;
    if std::env::var_os(SERVER).is_some() {
        let database = Database::new().await;
        print_commit_time(&database.url(SERVER)).await;
        let config = PostgresConfig { url: database.url(SERVER), ..PostgresConfig::default() };
        let journal = Postgres::open(&config, 3, Clock::system(), &Tasks::new()).await.unwrap();
        measure("postgres", &journal).await;
    }
}

/// One row inserted and committed, as a measure of the server, with the settings that matter to it.
async fn print_commit_time(url: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let settings = sqlx::query("SELECT current_setting('fsync'), current_setting('synchronous_commit')").fetch_one(&mut connection);
    let settings = settings.await.unwrap();
    let (fsync, synchronous): (&str, &str) = (settings.get(0), settings.get(1));
    sqlx::raw_sql("CREATE TABLE public.probe (n bigint)").execute(&mut connection).await.unwrap();
    let mut times = Vec::new();
    for n in 0..200_i64 {
        let start = Instant::now();
        sqlx::query("INSERT INTO public.probe VALUES ($1)").bind(n).execute(&mut connection).await.unwrap();
        times.push(start.elapsed());
    }
    let (half, most) = percentiles(times);
    println!("commit of one row           p50 {half:>9.1?}   p95 {most:>9.1?}   (fsync {fsync}, synchronous_commit {synchronous})");
}

fn sync_time(folder: &Path) -> (Duration, Duration) {
    let mut file = std::fs::File::create(folder.join("sync")).unwrap();
    let once = |_| {
        let start = Instant::now();
        file.write_all(&[7; 4096]).unwrap();
        file.sync_data().unwrap();
        start.elapsed()
    };
    percentiles((0..200).map(once).collect())
}

fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 95 / 100])
}

async fn measure<J: Journal + Clone>(name: &str, journal: &J) {
    for (partitions, size) in [(1, 1), (8, 1), (8, 10), (8, 100)] {
        let leases = journal.acquire_partitions("bench".into(), (0..partitions).collect(), TIME, true).await.unwrap();
        let start = Instant::now();
        let owners = leases.iter().map(|lease| own(journal.clone(), lease.partition, lease.epoch, size, start));
        let times: Vec<Duration> = futures::future::join_all(owners).await.into_iter().flatten().collect();
        let seconds = start.elapsed().as_secs_f64();
        let batches = times.len() as f64 / seconds;
        let (half, most) = percentiles(times);
        println!(
            "{name}: {partitions} partitions, batches of {size:>3}   {:>8.0} entries/s {batches:>8.0} batches/s   p50 {half:>9.1?}   p95 {most:>9.1?}",
            batches * size as f64,
        );
    }
}

/// One partition's owner: it appends one entry to each of `size` runs, waits, and goes on.
async fn own(journal: impl Journal, partition: u32, epoch: u64, size: u64, start: Instant) -> Vec<Duration> {
    let mut runs: Vec<RunRow> = (0..size).map(|_| new_run(partition)).collect();
    let mut times = Vec::new();
    while start.elapsed() < TIME {
        let writes = runs.iter_mut().map(next_write).collect();
        let sent = Instant::now();
        journal.append(Batch { partition, epoch, writes }).await.unwrap();
        times.push(sent.elapsed());
    }
    times
}

fn next_write(run: &mut RunRow) -> RunWrite {
    if run.ended_at.is_some() {
        *run = new_run(run.partition);
    }
    let expected_seq = run.seq;
    run.seq += 1;
    run.updated_at = Micros(run.updated_at.0 + 1);
    if run.seq == RUN_LENGTH {
        (run.status, run.ended_at) = (Status::Succeeded, Some(run.updated_at));
    }
    let entry = Entry {
        seq: run.seq,
        at: run.updated_at,
        kind: "task_completed".into(),
        event: Bytes::from(vec![b' '; 120]),
        payload: Bytes::from(vec![b' '; 200]),
        changes: Bytes::from(vec![b' '; 80]),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
    };
    RunWrite { row: run.clone(), expected_seq, entries: vec![entry], snapshot: None }
}

fn new_run(partition: u32) -> RunRow {
    let now = Micros(chrono::Utc::now().timestamp_micros());
    RunRow {
        key: RunKey { namespace: Namespace::parse("bench").unwrap(), id: RunId(Uuid::now_v7()) },
        partition,
        workflow: "flow".into(),
        version: "1".into(),
        definition_hash: "0".repeat(64),
        status: Status::Running,
        labels: BTreeMap::new(),
        created_at: now,
        updated_at: now,
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
