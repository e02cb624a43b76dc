//! Loading runs with their state, and what to wake. One statement for all runs: it sees one moment.

use super::{
    fault::Attempt,
    link::Link,
    rows::{self, Read, bytes, count, run_columns, signed, unsigned},
};
use crate::{
    model::{DueRun, Entry, LoadedRun, Micros, RunKey, Snapshot},
    store::{ENTRIES_BYTES, LOAD_BYTES, OPEN_RUNS_BYTES},
};
use futures::TryStreamExt as _;
use sqlx::{Row as _, postgres::PgRow};
use troupe_domain::{Code, Error, RunId};
use uuid::Uuid;

/// The state of each `r` after the entry `r.last`: the newest snapshot not after it and the entries since, as arrays.
macro_rules! with_state {
    ($runs:literal, $order:literal) => {
        concat!(
            "SELECT ",
            run_columns!(),
            ", s.seq, s.state, e.seqs, e.ats, e.kinds, e.traceparents, e.events, e.changes, e.payloads FROM (",
            $runs,
            ") r LEFT JOIN LATERAL (SELECT seq, state FROM journal.snapshots WHERE run = r.id AND seq <= r.last ORDER BY seq DESC LIMIT 1) s ON true
             LEFT JOIN LATERAL (
                SELECT array_agg(seq) seqs, array_agg(at) ats, array_agg(kind) kinds, array_agg(traceparent) traceparents,
                    array_agg(event) events, array_agg(changes) changes, array_agg(payload) payloads
                FROM (SELECT e.seq, e.at, e.kind, e.traceparent, e.event, e.changes, coalesce(e.payload, b.body) AS payload
                    FROM journal.entries e LEFT JOIN journal.blobs b ON b.hash = e.blob
                    WHERE e.run = r.id AND e.seq > coalesce(s.seq, 0) AND e.seq <= r.last ORDER BY e.seq) x
             ) e ON true ORDER BY ",
            $order
        )
    };
}

/// The arrays are hidden from the planner in selects: it would plan anew for each length that it sees, which takes longer than the reading.
const RUNS: &str = with_state!(
    "SELECT r.*, k.no, CASE WHEN $3 = 0 THEN r.seq ELSE least($3, r.seq) END AS last
     FROM unnest((SELECT $1::text[]), (SELECT $2::uuid[])) WITH ORDINALITY k(namespace, run_id, no)
     JOIN journal.runs r ON r.namespace = k.namespace AND r.run_id = k.run_id",
    "r.no"
);
/// Two namespaces may have a run of the same id: a page never ends between them, or the next one would skip the second.
const OPEN_RUNS: &str = with_state!(
    "SELECT r.*, r.seq AS last FROM journal.runs r WHERE r.partition = $1 AND r.ended_at IS NULL AND r.run_id > $2
     ORDER BY r.run_id FETCH FIRST $3 ROWS WITH TIES",
    "r.run_id, r.namespace"
);
/// The first whatever its size, and those after it that fit.
const ENTRIES: &str = "SELECT seq, at, kind, traceparent, event, changes, payload FROM (
        SELECT e.seq, e.at, e.kind, e.traceparent, e.event, e.changes, coalesce(e.payload, b.body) AS payload,
            row_number() OVER w AS no,
            sum(64 + coalesce(octet_length(e.event), 0) + coalesce(octet_length(e.changes), 0)
                + coalesce(octet_length(e.payload), octet_length(b.body), 0)) OVER w AS weight
        FROM (SELECT * FROM journal.entries WHERE run = $1 AND seq >= $2 ORDER BY seq LIMIT $3) e
        LEFT JOIN journal.blobs b ON b.hash = e.blob WINDOW w AS (ORDER BY e.seq)
    ) x WHERE no = 1 OR weight <= $4 ORDER BY seq";

fn loaded(row: &PgRow) -> Read<LoadedRun> {
    let (_, run) = rows::run(row)?;
    let snapshot = match row.try_get::<Option<i64>, _>(19)? {
        Some(seq) => Some(Snapshot { seq: unsigned(seq), state: bytes(row.try_get(20)?) }),
        None => None,
    };
    Ok(LoadedRun { row: run, snapshot, entries: entries_of(row)? })
}

fn entries_of(row: &PgRow) -> Read<Vec<Entry>> {
    let Some(seqs) = row.try_get::<Option<Vec<i64>>, _>(21)? else { return Ok(Vec::new()) };
    let ats: Vec<i64> = row.try_get(22)?;
    let kinds: Vec<String> = row.try_get(23)?;
    let traceparents: Vec<Option<String>> = row.try_get(24)?;
    let events: Vec<Option<Vec<u8>>> = row.try_get(25)?;
    let changes: Vec<Option<Vec<u8>>> = row.try_get(26)?;
    let payloads: Vec<Option<Vec<u8>>> = row.try_get(27)?;
    let texts = kinds.into_iter().zip(traceparents);
    let bodies = events.into_iter().zip(changes).zip(payloads);
    let all = seqs.into_iter().zip(ats).zip(texts).zip(bodies);
    Ok(all
        .map(|(((seq, at), (kind, traceparent)), ((event, changes), payload))| Entry {
            seq: unsigned(seq),
            at: Micros(at),
            kind,
            event: bytes(event),
            payload: bytes(payload),
            changes: bytes(changes),
            traceparent: traceparent.unwrap_or_default(),
        })
        .collect())
}

pub(super) async fn runs(link: &mut Link, keys: &[RunKey], at_seq: u64) -> Attempt<Vec<LoadedRun>> {
    let (namespaces, ids): (Vec<&str>, Vec<Uuid>) = keys.iter().map(|key| (key.namespace.as_str(), key.id.0)).unzip();
    let query = link.query(RUNS).bind(namespaces).bind(ids).bind(signed(at_seq));
    let mut rows = query.fetch(link.connection());
    let mut found = Vec::with_capacity(keys.len());
    let mut weight = 0;
    while let Some(row) = rows.try_next().await? {
        let run = loaded(&row)?;
        weight += run.weight();
        if keys.len() > 1 && weight > LOAD_BYTES {
            let error = Error::new(Code::PayloadTooLarge, format!("the {} runs have more than {LOAD_BYTES} bytes", keys.len()));
            return Err(error.with_help("ask for fewer runs at a time").into());
        }
        found.push(run);
    }
    Ok(found)
}

pub(super) async fn open_runs(link: &mut Link, partition: u32, limit: usize, after: Option<RunId>) -> Attempt<Vec<LoadedRun>> {
    let after = after.map_or(Uuid::nil(), |id| id.0);
    let query = link.query(OPEN_RUNS).bind(i64::from(partition)).bind(after).bind(count(limit));
    let mut rows = query.fetch(link.connection());
    let mut page: Vec<LoadedRun> = Vec::new();
    let mut weight = 0;
    while let Some(row) = rows.try_next().await? {
        let run = loaded(&row)?;
        if weight >= OPEN_RUNS_BYTES && page.last().is_some_and(|last| last.row.key.id != run.row.key.id) {
            break;
        }
        weight += run.weight();
        page.push(run);
    }
    Ok(page)
}

pub(super) async fn due(link: &mut Link, partition: u32, before: Micros, limit: usize) -> Attempt<Vec<DueRun>> {
    let query = link.query(
        "SELECT k.wake_at, r.namespace, r.run_id FROM (
            SELECT run, wake_at FROM journal.wakes WHERE partition = $1 AND wake_at <= $2 ORDER BY wake_at, run LIMIT $3
         ) k JOIN journal.runs r ON r.id = k.run ORDER BY k.wake_at, k.run",
    );
    let query = query.bind(i64::from(partition)).bind(before.0).bind(count(limit));
    let due = |row: &PgRow| -> Read<DueRun> {
        let key = RunKey { namespace: rows::namespace(row, 1)?, id: RunId(row.try_get(2)?) };
        Ok(DueRun { key, wake_at: Micros(row.try_get(0)?) })
    };
    Ok(query.fetch_all(link.connection()).await?.iter().map(due).collect::<Read<_>>()?)
}

pub(super) async fn entries(link: &mut Link, key: &RunKey, from_seq: u64, limit: usize) -> Attempt<Vec<Entry>> {
    let query = link.query("SELECT id FROM journal.runs WHERE namespace = $1 AND run_id = $2");
    let query = query.bind(key.namespace.as_str()).bind(key.id.0);
    let Some(run) = query.fetch_optional(link.connection()).await? else { return Err(Error::not_found(key).into()) };
    let run: i64 = run.try_get(0)?;
    let query = link.query(ENTRIES).bind(run).bind(signed(from_seq)).bind(count(limit)).bind(count(ENTRIES_BYTES));
    Ok(query.fetch_all(link.connection()).await?.iter().map(rows::entry).collect::<Read<_>>()?)
}
