//! A process that appends is killed at any moment: what it was told to be durable is there.
#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use bytes::Bytes;
use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use troupe_checkpoint::{
    Clock, Config, Journal as _, Sqlite,
    model::{Batch, Entry, Micros, RunKey, RunRow, RunWrite, Snapshot, Status},
};
use troupe_domain::{Namespace, RunId};
use uuid::Uuid;

/// Set in the process that is killed: the file to append to.
const FILE: &str = "TROUPE_TEST_APPEND_TO";
const PARTITIONS: u32 = 4;
const RUNS: u128 = 8;

fn open(path: &Path) -> Sqlite {
    // A small log: it is folded into the file all the time, so that kills hit that too.
    let config = Config { wal_kib: 256, ..Config::default() };
    Sqlite::open(path, &config, Clock::system()).unwrap()
}

fn key(partition: u32, run: u128) -> RunKey {
    RunKey { namespace: Namespace::parse("acme").unwrap(), id: RunId(Uuid::from_u128(u128::from(partition) * 1000 + run)) }
}

fn write(key: RunKey, partition: u32, expected_seq: u64) -> RunWrite {
    let seq = expected_seq + 1;
    let row = RunRow {
        key,
        partition,
        workflow: "flow".into(),
        version: "1".into(),
        definition_hash: "h".into(),
        status: Status::Running,
        labels: BTreeMap::new(),
        created_at: Micros(1),
        updated_at: Micros(1),
        ended_at: None,
        seq,
        wake_at: Some(Micros(i64::try_from(seq).unwrap())),
        parent: None,
        error_code: String::new(),
        error_message: String::new(),
        dead_queue: String::new(),
        priority: 0,
    };
    let entry = Entry {
        seq,
        at: Micros(1),
        kind: "task_completed".into(),
        event: Bytes::from_static(b"{}"),
        // Every tenth is stored apart.
        payload: Bytes::from(vec![b'x'; if seq.is_multiple_of(10) { 300 * 1024 } else { 700 }]),
        changes: Bytes::new(),
        traceparent: String::new(),
    };
    let snapshot = seq.is_multiple_of(7).then(|| Snapshot { seq, state: Bytes::from_static(b"{}") });
    RunWrite { row, expected_seq, entries: vec![entry], snapshot }
}

/// Not a test by itself: the process that the test below starts and kills.
#[tokio::test]
async fn appender() {
    let Ok(path) = std::env::var(FILE) else { return };
    let journal = open(Path::new(&path));
    let partitions = (0..PARTITIONS).collect();
    let leases = journal.acquire_partitions("appender".into(), partitions, Duration::from_secs(60), true).await.unwrap();
    let work = leases.into_iter().map(|lease| append_for_ever(journal.clone(), lease.partition, lease.epoch));
    futures::future::join_all(work).await;
}

async fn append_for_ever(journal: Sqlite, partition: u32, epoch: u64) {
    let keys: Vec<_> = (0..RUNS).map(|run| key(partition, run)).collect();
    let stored = journal.load_runs(keys.clone(), 0).await.unwrap();
    let mut last: HashMap<RunKey, u64> = stored.into_iter().map(|run| (run.row.key, run.row.seq)).collect();
    loop {
        let writes: Vec<_> = keys.iter().map(|key| write(key.clone(), partition, last.get(key).copied().unwrap_or(0))).collect();
        let told: Vec<_> = writes.iter().map(|write| (write.row.key.clone(), write.row.seq)).collect();
        journal.append(Batch { partition, epoch, writes }).await.unwrap();
        let mut out = std::io::stdout().lock();
        for (key, seq) in told {
            writeln!(out, "durable {} {seq}", key.id).unwrap();
            last.insert(key, seq);
        }
        out.flush().unwrap();
    }
}

/// Starts the appender, lets it get so far, kills it; answers the last durable number of each run.
fn append_and_kill(path: &Path, lines: usize) -> HashMap<RunId, u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "appender", "--nocapture"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut durable = HashMap::new();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut note = |line: &str| {
        // A line that the kill cut short counts for nothing: its number could be cut too.
        let mut words = line.split(' ').skip_while(|word| !word.ends_with("durable")).skip(1);
        if let (Some(run), Some(seq)) = (words.next(), words.next()) {
            durable.insert(run.parse::<RunId>().unwrap(), seq.parse::<u64>().unwrap());
        }
    };
    out.by_ref().map_while(Result::ok).filter(|line| line.contains("durable")).take(lines).for_each(|line| note(&line));
    child.kill().unwrap();
    let rest: Vec<_> = out.map_while(Result::ok).collect();
    child.wait().unwrap();
    // The last line may be cut.
    rest.iter().rev().skip(1).rev().for_each(|line| note(line));
    durable
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let mut durable: HashMap<RunId, u64> = HashMap::new();
    for (round, lines) in [1, 40, 333, 800, 1200].into_iter().enumerate() {
        durable.extend(append_and_kill(&path, lines));
        let journal = open(&path);
        let epochs: Vec<_> = journal.list_partitions().await.unwrap().into_iter().map(|lease| lease.epoch).collect();
        assert_eq!(epochs, vec![round as u64 + 1; PARTITIONS as usize]);
        for partition in 0..PARTITIONS {
            check_partition(&journal, partition, &durable).await;
        }
    }
    assert_eq!(durable.len(), PARTITIONS as usize * usize::try_from(RUNS).unwrap());
    assert!(durable.values().sum::<u64>() >= 1200);
}

async fn check_partition(journal: &Sqlite, partition: u32, durable: &HashMap<RunId, u64>) {
    let keys = (0..RUNS).map(|run| key(partition, run)).collect();
    let runs = journal.load_runs(keys, 0).await.unwrap();
    for run in &runs {
        let told = durable.get(&run.row.key.id).copied().unwrap_or(0);
        assert!(run.row.seq >= told, "run {} is at {}, and {told} was acknowledged", run.row.key.id, run.row.seq);
        assert_eq!(run.snapshot.as_ref().map_or(0, |snapshot| snapshot.seq), run.row.seq / 7 * 7);
        let entries = all_entries(journal, &run.row.key).await;
        assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), (1..=run.row.seq).collect::<Vec<_>>());
        assert!(entries.iter().all(|entry| entry.payload.len() == if entry.seq.is_multiple_of(10) { 300 * 1024 } else { 700 }));
    }
    // A batch has all runs of its partition: they are all as far.
    assert!(runs.windows(2).all(|pair| pair[0].row.seq == pair[1].row.seq), "a batch was torn");
}

async fn all_entries(journal: &Sqlite, key: &RunKey) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let from = entries.last().map_or(1, |entry| entry.seq + 1);
        let page = journal.read_entries(key.clone(), from, 1000).await.unwrap();
        if page.is_empty() {
            return entries;
        }
        entries.extend(page);
    }
}
