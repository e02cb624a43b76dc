//! What only shows from inside: failing disks, plans of hot questions, sharing of payloads.

use super::*;
use crate::{
    error::StoreError,
    model::{RunWrite, Status},
};
use bytes::Bytes;
use futures::future::join_all;
use std::collections::BTreeMap;
use troupe_domain::Code;
use uuid::Uuid;

fn open(folder: &tempfile::TempDir) -> Sqlite {
    Sqlite::open(&folder.path().join("journal.db"), &Config::default(), Clock::system()).unwrap()
}

async fn owned(folder: &tempfile::TempDir) -> Sqlite {
    let journal = open(folder);
    journal.acquire_partitions("a".into(), vec![0], Duration::from_secs(60), true).await.unwrap();
    journal
}

fn batch(run: u128, expected_seq: u64, payload: usize) -> Batch {
    let row = RunRow {
        key: RunKey { namespace: Namespace::parse("acme").unwrap(), id: RunId(Uuid::from_u128(run)) },
        partition: 0,
        workflow: "flow".into(),
        version: "1".into(),
        definition_hash: "h".into(),
        status: Status::Running,
        labels: BTreeMap::new(),
        created_at: Micros(1),
        updated_at: Micros(1),
        ended_at: None,
        seq: expected_seq + 1,
        wake_at: None,
        parent: None,
        error_code: String::new(),
        error_message: String::new(),
        dead_queue: String::new(),
        priority: 0,
    };
    let entry = Entry {
        seq: expected_seq + 1,
        at: Micros(1),
        kind: "started".into(),
        event: Bytes::from_static(b"{}"),
        payload: Bytes::from(vec![b'x'; payload]),
        changes: Bytes::new(),
        traceparent: String::new(),
    };
    Batch { partition: 0, epoch: 1, writes: vec![RunWrite { row, expected_seq, entries: vec![entry], snapshot: None }] }
}

fn sql(journal: &Sqlite, text: &'static str) -> impl Future<Output = Result<i64>> + use<> {
    journal.writer.submit(0, 0, move |session| Ok(session.connection.query_row(text, [], |row| row.get(0))?))
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let journal = owned(&folder).await;
    journal.append(batch(1, 0, 100)).await.unwrap();
    // The limit on pages makes SQLite say what it says when the disk is full. It is rounded up to the pages there are.
    sql(&journal, "PRAGMA max_page_count = 1").await.unwrap();
    let refused = journal.append(batch(2, 0, 200_000)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.to_string().contains("the disk is full"), "{refused}");
    assert!(journal.writer.is_failing());

    // Reading goes on, nothing of the refused batch is there, and the same batch is accepted when there is room.
    assert_eq!(journal.list_runs(RunQuery::new(Namespace::parse("acme").unwrap())).await.unwrap().items.len(), 1);
    sql(&journal, "PRAGMA max_page_count = 100000").await.unwrap();
    journal.probe().await.unwrap();
    assert!(!journal.writer.is_failing());
    journal.append(batch(2, 0, 200_000)).await.unwrap();
}

#[tokio::test]
async fn one_callers_fault_is_not_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let journal = owned(&folder).await;
    // Queued together, so that they share a transaction as far as the thread lets them.
    let first = journal.append(batch(1, 0, 10));
    let broken = sql(&journal, "SELECT nonsense FROM nowhere");
    let last = journal.append(batch(2, 0, 10));
    let (first, broken, last) = futures::join!(first, broken, last);
    assert!(matches!(broken, Err(StoreError::Storage(_))));
    first.unwrap();
    last.unwrap();
    assert_eq!(journal.list_runs(RunQuery::new(Namespace::parse("acme").unwrap())).await.unwrap().items.len(), 2);
}

#[tokio::test]
async fn a_lost_transaction_takes_new_namespaces_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let journal = owned(&folder).await;
    // The first attempt at the group fails after the namespace was numbered: the second attempt numbers it again.
    let mut attempts = 0;
    let append = journal.append(batch(1, 0, 10));
    let once = journal.writer.submit(0, 0, move |_| {
        attempts += 1;
        if attempts == 1 { Err(rusqlite::Error::InvalidQuery.into()) } else { Ok(()) }
    });
    let (appended, _) = futures::join!(append, once);
    appended.unwrap();
    assert_eq!(sql(&journal, "SELECT count(*) FROM runs JOIN namespaces n ON n.id = namespace").await.unwrap(), 1);
}

#[tokio::test]
async fn equal_payloads_are_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let journal = owned(&folder).await;
    let appends = (1..=3).map(|run| journal.append(batch(run, 0, blob::INLINE_BYTES + 1)));
    join_all(appends).await.into_iter().for_each(|outcome| outcome.unwrap());
    journal.append(batch(4, 0, blob::INLINE_BYTES)).await.unwrap();
    assert_eq!(sql(&journal, "SELECT count(*) FROM blobs").await.unwrap(), 1);
    assert_eq!(sql(&journal, "SELECT count(*) FROM blob_uses").await.unwrap(), 3);
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let journal = owned(&folder).await;
    journal.append(batch(1, 0, 10)).await.unwrap();
    drop(journal);
    let journal = open(&folder);
    assert_eq!(journal.list_partitions().await.unwrap()[0].epoch, 1);
    journal.append(batch(1, 1, 10)).await.unwrap();
}

#[tokio::test]
async fn a_removal_that_was_cut_short_is_finished_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let journal = owned(&folder).await;
    let mut done = batch(1, 0, blob::INLINE_BYTES + 1);
    done.writes[0].row.status = Status::Succeeded;
    done.writes[0].row.ended_at = Some(Micros(5));
    journal.append(done).await.unwrap();
    let group = journal.readers.read(prune::groups).await.unwrap().remove(0);
    let rules = Retention { ended_before: Some(Micros(6)), keep: None };
    let candidates = journal.readers.read(move |connection| prune::candidates(connection, &group, rules)).await.unwrap();
    journal.writer.submit(0, 0, move |session| prune::remove(session, &candidates)).await.unwrap();
    // The process ends here. A new run does not get the number of the old one while its entries are there.
    drop(journal);
    let journal = open(&folder);
    journal.append(batch(2, 0, 10)).await.unwrap();
    let pruned = journal.prune(rules).await.unwrap();
    assert_eq!(pruned, Pruned { runs: 0, blobs: 1 });
    for (table, left) in
        [("SELECT count(*) FROM entries", 1), ("SELECT count(*) FROM removed_runs", 0), ("SELECT count(*) FROM blob_uses", 0)]
    {
        assert_eq!(sql(&journal, table).await.unwrap(), left, "{table}");
    }
}

#[tokio::test]
async fn hot_questions_use_their_indexes() {
    let folder = tempfile::tempdir().unwrap();
    let journal = owned(&folder).await;
    let questions = [
        ("runs_by_run_id", "SELECT id FROM runs WHERE namespace = 1 AND run_id = x'00'"),
        ("runs_open", "SELECT id FROM runs WHERE partition = 1 AND ended_at IS NULL AND run_id > x'00' ORDER BY run_id, namespace"),
        ("runs_due", "SELECT id FROM runs WHERE partition = 1 AND wake_at <= 5 ORDER BY wake_at, id"),
        ("runs_ended", "SELECT id FROM runs WHERE namespace = 1 AND workflow = 'w' AND ended_at < 5 ORDER BY ended_at"),
        ("entries_by_run", "SELECT id FROM entries WHERE run = 1 AND seq >= 5 ORDER BY seq"),
        ("snapshots_by_run", "SELECT id FROM snapshots WHERE run = 1 AND seq <= 5 ORDER BY seq DESC"),
        ("sqlite_autoindex_blobs_1", "SELECT id FROM blobs WHERE hash = x'00'"),
    ];
    for (index, question) in questions {
        let text = format!("EXPLAIN QUERY PLAN {question}");
        let ask = move |connection: &rusqlite::Connection| Ok(connection.query_row(&text, [], |row| row.get::<_, String>(3))?);
        let plan = journal.readers.read(ask).await.unwrap();
        assert!(plan.starts_with("SEARCH") && plan.contains(index), "{question}: {plan}");
    }
}
