//! Removing ended runs: first their rows go, then, in small transactions, what belongs to them. Appends go on in between. A crash in the
//! middle leaves numbers in `removed_runs`, and the next removal, of whichever replica, goes on with them.

use super::{
    fault::Attempt,
    link::{Db, Link},
    rows::signed,
};
use crate::{
    error::Result,
    model::{Pruned, Retention},
};
use sqlx::{Row as _, postgres::PgRow};

/// Runs whose rows go in one transaction.
const RUNS: i64 = 200;
/// Entries that go in one transaction.
const ENTRIES: i64 = 1000;

/// A namespace and a workflow.
type Group = (String, String);

/// Every namespace and workflow with ended runs: one step in the index for each.
const GROUPS: &str = "WITH RECURSIVE groups AS (
        (SELECT namespace, workflow FROM journal.runs WHERE ended_at IS NOT NULL ORDER BY namespace, workflow LIMIT 1)
        UNION ALL
        SELECT next.* FROM groups CROSS JOIN LATERAL (
            SELECT r.namespace, r.workflow FROM journal.runs r
            WHERE r.ended_at IS NOT NULL AND (r.namespace, r.workflow) > (groups.namespace, groups.workflow)
            ORDER BY r.namespace, r.workflow LIMIT 1) next
    ) SELECT namespace, workflow FROM groups";
const OLD: &str = "SELECT id, ended_at FROM journal.runs WHERE namespace = $1 AND workflow = $2 AND ended_at < $3
    ORDER BY ended_at, id LIMIT $4";
const SURPLUS: &str = "SELECT id, ended_at FROM journal.runs WHERE namespace = $1 AND workflow = $2 AND ended_at IS NOT NULL
    ORDER BY ended_at DESC, id DESC LIMIT $4 OFFSET $3";
/// Only those that were not reopened meanwhile.
const REMOVE: &str = "WITH gone AS (
        DELETE FROM journal.runs r USING unnest($1::bigint[], $2::bigint[]) c(id, ended_at)
        WHERE r.id = c.id AND r.ended_at = c.ended_at RETURNING r.id
    ), labels AS (
        DELETE FROM journal.run_labels l USING gone WHERE l.run = gone.id
    ), wakes AS (
        DELETE FROM journal.wakes k USING gone WHERE k.run = gone.id
    )
    INSERT INTO journal.removed_runs (run) SELECT id FROM gone";

pub(super) async fn run(db: &Db, rules: Retention) -> Result<Pruned> {
    let mut pruned = Pruned::default();
    let mut link = db.link().await?;
    let outcome = db.limit(groups(&mut link)).await;
    for group in link.end(outcome).await? {
        loop {
            let mut link = db.link().await?;
            let outcome = db.limit(remove_some(&mut link, &group, rules)).await;
            let removed = link.end(outcome).await?;
            pruned.runs += removed;
            if removed == 0 {
                // Nothing is left, or all were reopened meanwhile: the next call looks again.
                break;
            }
        }
    }
    loop {
        let mut link = db.link().await?;
        let outcome = db.limit(sweep(&mut link)).await;
        let (blobs, done) = link.end(outcome).await?;
        pruned.blobs += blobs;
        if done {
            return Ok(pruned);
        }
    }
}

async fn groups(link: &mut Link) -> Attempt<Vec<Group>> {
    let rows = link.query(GROUPS).fetch_all(link.connection()).await?;
    Ok(rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<std::result::Result<_, sqlx::Error>>()?)
}

/// Removes the rows of some of a group's runs that the rules do not keep; answers how many.
async fn remove_some(link: &mut Link, group: &Group, rules: Retention) -> Attempt<u64> {
    let mut found = Vec::new();
    if let Some(before) = rules.ended_before {
        found = candidates(link, OLD, group, before.0).await?;
    }
    if let (Some(keep), true) = (rules.keep, found.is_empty()) {
        found = candidates(link, SURPLUS, group, signed(keep)).await?;
    }
    if found.is_empty() {
        return Ok(0);
    }
    let (ids, ends): (Vec<i64>, Vec<i64>) = found.into_iter().unzip();
    Ok(link.query(REMOVE).bind(ids).bind(ends).execute(link.connection()).await?.rows_affected())
}

/// Numbers of runs that may go, each with the end it must still have then.
async fn candidates(link: &mut Link, sql: &'static str, group: &Group, bound: i64) -> Attempt<Vec<(i64, i64)>> {
    let query = link.query(sql).bind(&group.0).bind(&group.1).bind(bound).bind(RUNS);
    let rows = query.fetch_all(link.connection()).await?;
    let candidate = |row: &PgRow| Ok((row.try_get(0)?, row.try_get(1)?));
    Ok(rows.iter().map(candidate).collect::<std::result::Result<_, sqlx::Error>>()?)
}

/// Removes some of what belonged to removed runs; answers how many blobs went, and whether nothing is left.
async fn sweep(link: &mut Link) -> Attempt<(u64, bool)> {
    let row = link.query("SELECT swept_blobs, done FROM journal.sweep($1)").bind(ENTRIES).fetch_one(link.connection()).await?;
    Ok((super::rows::unsigned(row.try_get(0)?), row.try_get(1)?))
}
