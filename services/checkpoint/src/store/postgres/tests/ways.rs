//! One run alone is written by a function of its own, several by the general one. What they check and what they leave must be the same.

use super::{MINUTE, batch, database::Database, execute, key, number, owned};
use crate::{
    error::StoreError,
    model::{Batch, Entry, Micros, RunKey, RunRow, RunWrite, Snapshot, Status},
    store::{
        Journal as _,
        blob::Digests,
        postgres::{Postgres, columns::Columns, link::Link},
    },
};
use bytes::Bytes;
use futures::future::join_all;
use sqlx::Row as _;
use troupe_domain::{Namespace, RunId};
use uuid::Uuid;

/// How a run is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Alone,
    AmongOthers,
}

impl Way {
    const BOTH: [Self; 2] = [Self::Alone, Self::AmongOthers];

    /// A journal that can write only in this way.
    async fn journal(self, database: &Database) -> Postgres {
        let journal = owned(database).await;
        let other = match self {
            Self::Alone => "DROP FUNCTION journal.append",
            Self::AmongOthers => "DROP FUNCTION journal.append_one",
        };
        execute(&journal, other).await;
        journal
    }

    /// The batch, with a new run of another namespace if this way takes several.
    pub(super) fn batch(self, mut batch: Batch) -> Batch {
        if matches!(self, Self::AmongOthers) {
            let mut other = super::batch(1, 0, 1).writes.remove(0);
            other.row.key = RunKey { namespace: Namespace::parse("others").unwrap(), id: RunId(Uuid::new_v4()) };
            other.row.partition = batch.partition;
            batch.writes.insert(0, other);
        }
        batch
    }
}

/// How many rows the tables have.
const ROWS: &str = "SELECT (SELECT count(*) FROM journal.runs) + (SELECT count(*) FROM journal.entries)";

#[tokio::test]
async fn every_fault_is_found_and_nothing_is_written_either_way() {
    for way in Way::BOTH {
        let database = Database::new().await;
        let journal = way.journal(&database).await;
        journal.acquire_partitions("a".into(), vec![1], MINUTE, true).await.unwrap();
        journal.append(way.batch(batch(1, 0, 10))).await.unwrap();
        let before = number(&journal, ROWS).await;
        let refusal = async |batch| journal.append(way.batch(batch)).await.unwrap_err();
        let in_partition = |partition, mut batch: Batch| {
            batch.writes[0].row.partition = partition;
            Batch { partition, ..batch }
        };

        let ahead = refusal(Batch { epoch: 7, ..batch(1, 1, 10) }).await;
        assert!(matches!(ahead, StoreError::StaleEpoch { partition: 0, given: 7, newest: 1 }), "{way:?}: {ahead}");
        let nobodys = refusal(in_partition(5, batch(2, 0, 10))).await;
        assert!(matches!(nobodys, StoreError::StaleEpoch { partition: 5, given: 1, newest: 0 }), "{way:?}: {nobodys}");
        for expected in [0, 2] {
            let wrong = refusal(batch(1, expected, 10)).await;
            assert!(matches!(wrong, StoreError::Sequence { actual: 1, .. }), "{way:?}: {wrong}");
        }
        let missing = refusal(batch(2, 3, 10)).await;
        assert!(matches!(missing, StoreError::Sequence { expected: 3, actual: 0, .. }), "{way:?}: {missing}");
        // The partition is what is wrong, whatever the sequence number.
        for expected in [0, 1] {
            let moved = refusal(in_partition(1, batch(1, expected, 10))).await;
            assert!(moved.reason() == "PARTITION" && moved.to_string().contains("is in partition 0, not 1"), "{way:?}: {moved}");
        }

        assert_eq!(number(&journal, ROWS).await, before, "{way:?}");
        journal.append(way.batch(batch(1, 1, 10))).await.unwrap();
    }
}

#[tokio::test]
async fn a_run_that_is_removed_meanwhile_is_not_written_either_way() {
    for way in Way::BOTH {
        let database = Database::new().await;
        let journal = way.journal(&database).await;
        journal.append(way.batch(batch(1, 0, 10))).await.unwrap();
        let mut rival = journal.db.link().await.unwrap();
        sqlx::raw_sql("BEGIN; DELETE FROM journal.runs").execute(rival.connection()).await.unwrap();
        let removal = async {
            let waiting = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%journal.append%'";
            while number(&journal, waiting).await == 0 {
                tokio::task::yield_now().await;
            }
            sqlx::raw_sql("COMMIT").execute(rival.connection()).await.unwrap();
        };
        let (outcome, ()) = tokio::join!(journal.append(way.batch(batch(1, 1, 10))), removal);
        assert!(matches!(outcome, Err(StoreError::Sequence { actual: 0, .. })), "{way:?}: {outcome:?}");
        assert_eq!(number(&journal, "SELECT count(*) FROM journal.runs").await, 0);
    }
}

/// Every row of the runs that both ways wrote, without the numbers that the database chose.
const EVERYTHING: &str = "SELECT string_agg(x.line, E'\\n' ORDER BY x.line COLLATE \"C\") FROM journal.runs r CROSS JOIN LATERAL (
        SELECT 'run ' || (to_jsonb(r) - 'id')::text AS line
        UNION ALL SELECT 'entry ' || r.run_id || (to_jsonb(e) - 'run')::text FROM journal.entries e WHERE e.run = r.id
        UNION ALL SELECT 'wake ' || r.run_id || (to_jsonb(k) - 'run')::text FROM journal.wakes k WHERE k.run = r.id
        UNION ALL SELECT 'label ' || r.run_id || (to_jsonb(l) - 'run')::text FROM journal.run_labels l WHERE l.run = r.id
        UNION ALL SELECT 'snapshot ' || r.run_id || (to_jsonb(s) - 'run')::text FROM journal.snapshots s WHERE s.run = r.id
    ) x WHERE r.namespace = 'acme'";

/// Numbers that are the same in every test (Marsaglia, Xorshift RNGs, 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % limit
    }

    fn one_of<T: Clone>(&mut self, values: &[T]) -> T {
        values[usize::try_from(self.below(values.len() as u64)).unwrap()].clone()
    }

    fn bytes(&mut self, limit: u64) -> Bytes {
        let len = self.below(limit);
        (0..len).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }
}

/// The next write of a run at `seq`. Also what the first write alone decides is different each time.
fn random_write(random: &mut Random, run: u128, seq: u64) -> RunWrite {
    let now = Micros(i64::try_from(random.below(1 << 40)).unwrap());
    let status = random.one_of(&[Status::Running, Status::Running, Status::Waiting, Status::Failed]);
    let some = |random: &mut Random, text: &str| random.one_of(&[String::new(), text.to_owned()]);
    let labels = ["", "a=1", "a=2", "a=1,b=\0ä\""].map(|text| text.split(',').filter_map(|pair| pair.split_once('=')));
    let entries: Vec<Entry> = (seq + 1..=seq + 1 + random.below(3))
        .map(|seq| Entry {
            seq,
            at: now,
            kind: "task_completed".into(),
            traceparent: some(random, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            event: random.bytes(100),
            changes: random.bytes(3),
            payload: random.bytes(5000),
        })
        .collect();
    let last = seq + entries.len() as u64;
    let row = RunRow {
        key: key(run),
        partition: 0,
        workflow: format!("flow{}", random.below(3)),
        version: format!("{}", random.below(3)),
        definition_hash: format!("h{}", random.below(3)),
        status,
        labels: random.one_of(&labels).map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        created_at: now,
        updated_at: now,
        ended_at: status.is_ended().then_some(now),
        seq: last,
        wake_at: random.one_of(&[None, Some(Micros(1)), Some(now)]),
        parent: random.one_of(&[None, Some(RunId(Uuid::from_u128(9)))]),
        error_code: some(random, "TIMEOUT"),
        error_message: some(random, "too \0 slow"),
        dead_queue: some(random, "agent/x"),
        priority: u32::try_from(random.below(10)).unwrap(),
    };
    let snapshot = (random.below(2) == 0).then(|| Snapshot { seq: last - random.below(last), state: random.bytes(3000) });
    RunWrite { row, expected_seq: seq, entries, snapshot }
}

#[tokio::test]
async fn either_way_leaves_the_same_rows() {
    let databases = [Database::new().await, Database::new().await];
    let [alone, among_others] = [Way::Alone.journal(&databases[0]).await, Way::AmongOthers.journal(&databases[1]).await];
    let mut random = Random(0x5eed);
    let mut seqs = [0_u64; 6];
    for step in 0..400 {
        let run = random.one_of(&[0, 1, 2, 3, 4, 5]);
        // Sometimes the next one is queued with it, and they share a transaction; sometimes one does not fit.
        let mut group = vec![random_write(&mut random, run as u128, seqs[run])];
        if random.below(4) == 0 {
            let expected = group[0].row.seq + random.one_of(&[0, 0, 1]);
            let next = random_write(&mut random, run as u128, expected);
            group.push(RunWrite { snapshot: None, ..next });
        }
        let mut outcomes = Vec::new();
        for (way, journal) in [(Way::Alone, &alone), (Way::AmongOthers, &among_others)] {
            let appends = group.iter().map(|write| {
                let batch = Batch { partition: 0, epoch: 1, writes: vec![write.clone()] };
                journal.append(way.batch(batch))
            });
            let answers = join_all(appends.collect::<Vec<_>>()).await;
            outcomes.push(answers.into_iter().map(|answer| answer.map_err(|error| error.to_string())).collect::<Vec<_>>());
        }
        assert_eq!(outcomes[0], outcomes[1], "step {step}");
        assert!(outcomes[0][0].is_ok(), "step {step}: {outcomes:?}");
        let written = group.iter().zip(&outcomes[0]).filter(|(_, outcome)| outcome.is_ok());
        seqs[run] = written.last().unwrap().0.row.seq;
    }
    let mut rows = Vec::new();
    for journal in [&alone, &among_others] {
        let mut link = journal.db.link().await.unwrap();
        let row = link.query(EVERYTHING).fetch_one(link.connection()).await.unwrap();
        rows.push(link.end(Ok(row.try_get::<String, _>(0).unwrap())).await.unwrap());
    }
    for (one, other) in rows[0].lines().zip(rows[1].lines()) {
        assert_eq!(one, other);
    }
    assert_eq!(rows[0].len(), rows[1].len());
    for table in ["run ", "entry ", "wake ", "label ", "snapshot "] {
        assert!(rows[0].lines().any(|line| line.starts_with(table)), "{table}");
    }
}

/// What the connection has read so far: tables from their beginning to their end, and rows by an index. The server takes the numbers away and
/// begins anew between transactions, as it likes.
async fn reads(link: &mut Link) -> (i64, i64) {
    let sql = "SELECT sum(seq_scan)::bigint, sum(idx_tup_fetch)::bigint FROM pg_stat_xact_user_tables WHERE schemaname = 'journal'";
    let row = link.query(sql).fetch_one(link.connection()).await.unwrap();
    (row.try_get(0).unwrap(), row.try_get(1).unwrap())
}

/// What the append reads.
async fn reads_of(link: &mut Link, batch: &Batch) -> (i64, i64) {
    link.transaction().await.unwrap();
    let before = reads(link).await;
    let digests = Digests::default();
    let facts = Columns::new(std::iter::once((batch, &digests))).write(link, 3).await.unwrap();
    assert!(facts.epochs.is_empty() && facts.runs.is_empty(), "{facts:?}");
    let after = reads(link).await;
    link.finish(Ok((after.0 - before.0, after.1 - before.1))).await.unwrap()
}

/// Lives in which everything changes.
fn lives(runs: std::ops::Range<u128>) -> impl Iterator<Item = Batch> {
    runs.flat_map(|run| {
        (0..4).map(move |seq| {
            let mut step = batch(run, seq, 10);
            let write = &mut step.writes[0];
            write.row.labels = [("step".to_owned(), seq.to_string())].into();
            write.row.wake_at = (seq < 2).then_some(Micros(i64::try_from(seq).unwrap()));
            write.snapshot = Some(Snapshot { seq: seq + 1, state: Bytes::from_static(b"{}") });
            if seq == 3 {
                (write.row.status, write.row.ended_at) = (Status::Succeeded, Some(Micros(5)));
            }
            step
        })
    })
}

#[tokio::test]
async fn one_run_is_found_by_indexes_however_small_the_tables_were_when_the_connection_began() {
    let database = Database::new().await;
    let journal = Way::Alone.journal(&database).await;
    let mut link = journal.db.link().await.unwrap();
    let many = "INSERT INTO journal.runs
            SELECT n + 1000, 'acme', gen_random_uuid(), 0, 1, 1, 0, n, 0, NULL, n, NULL, NULL, 'flow', '1', 'h', NULL, NULL, NULL
            FROM generate_series(1, 20000) n;
        INSERT INTO journal.wakes SELECT n + 1000, 0, n FROM generate_series(1, 20000) n;
        INSERT INTO journal.run_labels SELECT n + 1000, 'step', '1', 'acme', n FROM generate_series(1, 20000) n;
        INSERT INTO journal.snapshots SELECT n + 1000, 1, '' FROM generate_series(1, 20000) n";
    // The connection keeps its plans until the server looks at a table again.
    for (stage, runs, then) in [("empty", 1..4, "ANALYZE"), ("small", 4..8, many), ("grown", 8..10, "ANALYZE"), ("known", 10..14, "")] {
        for batch in lives(runs) {
            let (scans, rows) = reads_of(&mut link, &batch).await;
            assert!(scans == 0 && rows < 20, "{stage}: {scans} scans, {rows} rows");
        }
        execute(&journal, then).await;
    }
}
