//! What only shows from inside: races, lost connections, values that the database cannot take, plans of hot questions.

#[path = "../../../../../crates/postgres/tests/support/database.rs"]
mod database;

use super::*;
use crate::{
    error::StoreError,
    model::{RunWrite, Status},
};
use bytes::Bytes;
use database::{Database, SERVER};
use futures::future::join_all;
use sqlx::Row as _;
use std::collections::BTreeMap;
use troupe_domain::Code;
use uuid::Uuid;
use ways::Way;

mod ways;

const MINUTE: Duration = Duration::from_secs(60);

async fn open(database: &Database) -> anyhow::Result<Postgres> {
    let config = PostgresConfig { url: database.url(SERVER), ..PostgresConfig::default() };
    Postgres::open(&config, 3, Clock::system(), &Tasks::new()).await
}

/// A journal whose partition 0 is at epoch 1.
async fn owned(database: &Database) -> Postgres {
    let journal = open(database).await.unwrap();
    journal.acquire_partitions("a".into(), vec![0], MINUTE, true).await.unwrap();
    journal
}

fn batch(run: u128, expected_seq: u64, payload: usize) -> Batch {
    let row = RunRow {
        key: key(run),
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

fn key(run: u128) -> RunKey {
    RunKey { namespace: Namespace::parse("acme").unwrap(), id: RunId(Uuid::from_u128(run)) }
}

/// The number that a statement answers.
async fn number(journal: &Postgres, sql: &'static str) -> i64 {
    let mut link = journal.db.link().await.unwrap();
    let row = link.query(sql).fetch_one(link.connection()).await.unwrap();
    link.end(Ok(row.try_get(0).unwrap())).await.unwrap()
}

async fn execute(journal: &Postgres, sql: &'static str) {
    let mut link = journal.db.link().await.unwrap();
    sqlx::raw_sql(sql).execute(link.connection()).await.unwrap();
    link.end(Ok(())).await.unwrap();
}

#[tokio::test]
async fn replicas_that_start_together_migrate_once() {
    let database = Database::new().await;
    for journal in join_all((0..4).map(|_| open(&database))).await {
        journal.unwrap().probe().await.unwrap();
    }
}

#[tokio::test]
async fn a_schema_from_the_future_is_refused() {
    let database = Database::new().await;
    let journal = open(&database).await.unwrap();
    execute(&journal, "UPDATE journal.schema_version SET version = 99").await;
    let error = open(&database).await.err().unwrap().to_string();
    assert!(error.contains("version 99") && error.contains("newer Troupe"), "{error}");
}

#[tokio::test]
async fn leases_go_by_the_databases_clock() {
    let database = Database::new().await;
    let journal = open(&database).await.unwrap();
    let before = number(&journal, "SELECT journal.now_micros()").await;
    let lease = journal.acquire_partitions("a".into(), vec![7], MINUTE, false).await.unwrap().remove(0);
    let after = number(&journal, "SELECT journal.now_micros()").await;
    assert!((before + 60_000_000..=after + 60_000_000).contains(&lease.expires_at.0));
}

#[tokio::test]
async fn equal_payloads_are_stored_once() {
    let database = Database::new().await;
    let journal = owned(&database).await;
    let appends = (1..=3).map(|run| journal.append(batch(run, 0, blob::INLINE_BYTES + 1)));
    join_all(appends).await.into_iter().for_each(|outcome| outcome.unwrap());
    journal.append(batch(4, 0, blob::INLINE_BYTES)).await.unwrap();
    assert_eq!(number(&journal, "SELECT count(*) FROM journal.blobs").await, 1);
    assert_eq!(number(&journal, "SELECT count(*) FROM journal.entries WHERE blob IS NOT NULL").await, 3);
}

#[tokio::test]
async fn one_callers_fault_is_not_the_others() {
    let database = Database::new().await;
    let journal = owned(&database).await;
    // Too long for the pages of an index, and incompressible. Queued together, so that they share a transaction.
    let mut broken = batch(2, 0, 10);
    broken.writes[0].row.workflow = (0..2000).map(|_| Uuid::new_v4().simple().to_string()).collect();
    let outcomes = join_all([journal.append(batch(1, 0, 10)), journal.append(broken), journal.append(batch(3, 0, 10))]).await;
    assert_eq!(
        outcomes.iter().map(|outcome| outcome.as_ref().err().map(StoreError::code)).collect::<Vec<_>>(),
        [None, Some(Code::InvalidArgument), None]
    );
}

#[tokio::test]
async fn texts_that_the_database_cannot_hold_do_not_stop_a_run() {
    let database = Database::new().await;
    let journal = owned(&database).await;
    let mut odd = batch(1, 0, 10);
    odd.writes[0].row.error_message = "zero \0 byte".into();
    odd.writes[0].row.labels = [("long".to_owned(), "ä".repeat(2000)), ("zero\0".to_owned(), "\0".to_owned())].into();
    let labels = odd.writes[0].row.labels.clone();
    journal.append(odd).await.unwrap();
    let found = journal.list_runs(RunQuery { labels: labels.clone(), ..RunQuery::new(key(1).namespace) }).await.unwrap();
    assert_eq!((found.items[0].error_message.as_str(), &found.items[0].labels), ("zero \u{fffd} byte", &labels));
}

#[tokio::test]
async fn a_new_owner_waits_for_what_is_on_its_way() {
    let database = Database::new().await;
    let journal = owned(&database).await;
    // Replicas with the old and the new owner at the same time: what is written is written before the answer to the new owner.
    let other = open(&database).await.unwrap();
    let appends = async {
        let mut seq = 0;
        while journal.append(batch(1, seq, 100)).await.is_ok() {
            seq += 1;
        }
        seq
    };
    let takeover = async {
        while other.load_runs(vec![key(1)], 0).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let lease = other.acquire_partitions("b".into(), vec![0], MINUTE, true).await.unwrap().remove(0);
        (lease.epoch, other.load_runs(vec![key(1)], 0).await.unwrap()[0].row.seq)
    };
    let (written, (epoch, seen)) = tokio::join!(appends, takeover);
    assert_eq!((epoch, seen), (2, written));
    let refused = journal.append(batch(1, written, 1)).await.unwrap_err();
    assert!(matches!(refused, StoreError::StaleEpoch { newest: 2, .. }), "{refused}");
}

#[tokio::test]
async fn whoever_waited_for_a_lock_sees_what_was_written_meanwhile_whatever_the_databases_default_is() {
    let database = Database::new().await;
    let before = owned(&database).await;
    let name = database.url(SERVER).rsplit_once('/').unwrap().1.to_owned();
    let mut rival = before.db.link().await.unwrap();
    let stricter = format!("ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'");
    sqlx::raw_sql(sqlx::AssertSqlSafe(stricter)).execute(rival.connection()).await.unwrap();
    let cases = [(false, Way::Alone), (false, Way::AmongOthers), (true, Way::Alone), (true, Way::AmongOthers)];
    for (epoch, (pooler, way)) in (1..).zip(cases) {
        // Connections that have the new default.
        let config = PostgresConfig { url: database.url(SERVER), pooler, ..PostgresConfig::default() };
        let journal = Postgres::open(&config, 3, Clock::system(), &Tasks::new()).await.unwrap();
        sqlx::raw_sql("BEGIN; SELECT pg_advisory_xact_lock(1920103730::bigint << 32)").execute(rival.connection()).await.unwrap();
        let append = journal.append(way.batch(Batch { epoch, ..batch(1, 0, 10) }));
        let takeover = async {
            let waiting = "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
                WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()";
            while number(&before, waiting).await == 0 {
                tokio::task::yield_now().await;
            }
            let next = "UPDATE journal.partitions SET epoch = epoch + 1; COMMIT";
            sqlx::raw_sql(next).execute(rival.connection()).await.unwrap();
        };
        let (outcome, ()) = tokio::join!(append, takeover);
        assert!(matches!(outcome, Err(StoreError::StaleEpoch { .. })), "pooler: {pooler}, {way:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn renewals_do_not_wait_for_those_who_read_or_acquire() {
    let database = Database::new().await;
    let journal = owned(&database).await;
    let rival = open(&database).await.unwrap();
    let mut holder = rival.db.link().await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT pg_advisory_xact_lock(1920103730::bigint << 32)").execute(holder.connection()).await.unwrap();
    let connections = usize::try_from(PostgresConfig::default().connections).unwrap();
    let acquires = join_all((0..connections).map(|_| journal.acquire_partitions("b".into(), vec![0], MINUTE, true)));
    let renewals = async {
        for _ in 0..20 {
            let claim = Claim { partition: 0, epoch: 1 };
            assert_eq!(journal.renew_partitions("a".into(), vec![claim], MINUTE).await.unwrap().held.len(), 1);
        }
        sqlx::raw_sql("COMMIT").execute(holder.connection()).await.unwrap();
    };
    let (acquired, ()) = tokio::join!(acquires, renewals);
    assert!(acquired.into_iter().all(|leases| leases.is_ok()));
}

#[tokio::test]
async fn two_replicas_cannot_write_the_same_entry() {
    let database = Database::new().await;
    let (one, two) = (owned(&database).await, open(&database).await.unwrap());
    for seq in 0..20 {
        let (first, second) = tokio::join!(one.append(batch(1, seq, 10)), two.append(batch(1, seq, 10)));
        let refused = if first.is_ok() { second.unwrap_err() } else { second.and(first).unwrap_err() };
        assert!(matches!(refused, StoreError::Sequence { actual, .. } if actual == seq + 1), "{refused}");
    }
    assert_eq!(number(&one, "SELECT count(*) FROM journal.entries").await, 20);
}

#[tokio::test]
async fn a_lost_connection_is_replaced_and_nothing_is_written_twice() {
    let database = Database::new().await;
    let journal = owned(&database).await;
    let killer = open(&database).await.unwrap();
    let mut seq = 0;
    for round in 0..10 {
        journal.append(batch(1, seq, 10)).await.unwrap();
        seq += 1;
        let append = journal.append(batch(1, seq, 1000 * round));
        let kill = execute(
            &killer,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
        let (outcome, ()) = tokio::join!(append, kill);
        let stored = loop {
            // Connections of the pool that were killed show themselves one by one.
            if let Ok(runs) = journal.load_runs(vec![key(1)], 0).await {
                break runs[0].row.seq;
            }
        };
        match outcome {
            Ok(()) => assert_eq!(stored, seq + 1),
            Err(StoreError::Unknown(_)) => {}
            Err(StoreError::Storage(_)) => assert_eq!(stored, seq),
            Err(other) => panic!("{other}"),
        }
        // The same again says whether it was written, as soon as it is answered.
        loop {
            match journal.append(batch(1, seq, 1000 * round)).await {
                Ok(()) => break assert_eq!(stored, seq),
                Err(StoreError::Sequence { actual, .. }) => break assert_eq!(actual, seq + 1),
                Err(StoreError::Unknown(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
        let entries = journal.read_entries(key(1), 1, 100).await.unwrap();
        assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), (1..=seq + 1).collect::<Vec<_>>());
        seq += 1;
    }
    journal.probe().await.unwrap();
}

#[tokio::test]
async fn a_removal_that_was_cut_short_is_finished_by_the_next() {
    let database = Database::new().await;
    let journal = owned(&database).await;
    let mut done = batch(1, 0, blob::INLINE_BYTES + 1);
    done.writes[0].row.status = Status::Succeeded;
    done.writes[0].row.ended_at = Some(Micros(5));
    journal.append(done).await.unwrap();
    // As if the process had ended after the first of the two steps.
    execute(&journal, "WITH gone AS (DELETE FROM journal.runs RETURNING id) INSERT INTO journal.removed_runs SELECT id FROM gone").await;
    journal.append(batch(2, 0, 10)).await.unwrap();
    let pruned = open(&database).await.unwrap().prune(Retention { ended_before: Some(Micros(6)), keep: None }).await.unwrap();
    assert_eq!(pruned, Pruned { runs: 0, blobs: 1 });
    assert_eq!(number(&journal, "SELECT count(*) FROM journal.entries").await, 1);
    assert_eq!(number(&journal, "SELECT count(*) FROM journal.removed_runs").await, 0);
}

/// The steps by which the database would answer, with as many runs as make indexes worth while.
async fn plan(journal: &Postgres, query: &RunQuery) -> String {
    let text = list::statement(query, Some((1_500_000, 5))).sql();
    // The values do not matter to what is asked here, except that they have the types they have.
    let explained = sqlx::AssertSqlSafe(format!("EXPLAIN {}", text.as_str()));
    let mut link = journal.db.link().await.unwrap();
    let mut builder = list::statement(query, Some((1_500_000, 5)));
    let arguments = sqlx::Execute::take_arguments(&mut builder.build()).unwrap().unwrap();
    let rows = sqlx::query_with(explained, arguments).fetch_all(link.connection()).await.unwrap();
    let lines: Vec<String> = rows.iter().map(|row| row.try_get(0).unwrap()).collect();
    link.end(Ok(lines.join("\n"))).await.unwrap()
}

#[tokio::test]
async fn every_filter_has_an_index_in_the_order_of_the_listing() {
    let database = Database::new().await;
    let journal = open(&database).await.unwrap();
    execute(
        &journal,
        "INSERT INTO journal.runs SELECT n, 'a', gen_random_uuid(), n % 8, 1, n % 7, 0, n * 100, 0, NULL, NULL,
             CASE WHEN n % 100 = 0 THEN '00000000-0000-0000-0000-000000000001'::uuid END, CASE WHEN n % 100 = 0 THEN 'q' END,
             'w' || n % 50, '1', 'h', NULL, NULL, NULL FROM generate_series(1, 20000) n;
         INSERT INTO journal.run_labels SELECT n, 'k', 'v' || n % 500, 'a', n * 100 FROM generate_series(1, 20000) n; ANALYZE",
    )
    .await;
    let all = RunQuery::new(Namespace::parse("a").unwrap());
    let parent = Some(RunId(Uuid::from_u128(1)));
    let cases = [
        ("runs_by_created", all.clone()),
        ("runs_by_created", RunQuery { since: Some(Micros(1000)), ..all.clone() }),
        ("runs_by_workflow", RunQuery { workflow: "w7".into(), ..all.clone() }),
        ("runs_by_status", RunQuery { statuses: vec![Status::Failed, Status::Running], ..all.clone() }),
        ("runs_by_parent", RunQuery { parent, ..all.clone() }),
        ("runs_by_dead_queue", RunQuery { dead_queue: "q".into(), ..all.clone() }),
        ("run_labels_by_value", RunQuery { labels: [("k".to_owned(), "v9".to_owned())].into(), ..all }),
    ];
    for (index, query) in cases {
        let plan = plan(&journal, &query).await;
        assert!(plan.contains(index) && !plan.contains("Seq Scan on runs"), "{index}:\n{plan}");
    }
}
