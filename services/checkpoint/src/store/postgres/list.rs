//! Listing runs, newest first. Every filter has an index that ends in the time of creation and the number of the run.

use super::{
    fault::Attempt,
    link::Link,
    rows::{self, Read, clean, count, indexed, run_columns},
};
use crate::{
    model::{Listing, RunQuery, Status},
    store::cursor,
};
use sqlx::{Postgres, QueryBuilder};

pub(super) async fn runs(link: &mut Link, query: &RunQuery) -> Attempt<Listing<crate::model::RunRow>> {
    let mut sql = statement(query, cursor::decode(&query.cursor)?);
    let rows = sql.build().persistent(false).fetch_all(link.connection()).await?;
    let mut found = rows.iter().map(rows::run).collect::<Read<Vec<_>>>()?;
    let more = found.len() > query.limit;
    found.truncate(query.limit);
    let next_cursor = match found.last() {
        Some((id, row)) if more => cursor::encode(row.created_at.0, *id),
        _ => String::new(),
    };
    Ok(Listing { items: found.into_iter().map(|(_, row)| row).collect(), next_cursor })
}

/// Up to one row more than the page takes.
pub(super) fn statement(query: &RunQuery, after: Option<(i64, i64)>) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(concat!("SELECT ", run_columns!(), " FROM ("));
    if query.statuses.is_empty() {
        part(&mut sql, query, None, after);
    } else {
        // One question for each status, each from its own stretch of the index; the newest of all answers are the page.
        let mut statuses = query.statuses.clone();
        statuses.sort_unstable();
        statuses.dedup();
        for (i, status) in statuses.into_iter().enumerate() {
            sql.push(if i == 0 { "(" } else { ") UNION ALL (" });
            part(&mut sql, query, Some(status), after);
        }
        sql.push(")");
    }
    sql.push(") r ORDER BY r.created_at DESC, r.id DESC LIMIT ").push_bind(count(query.limit + 1));
    sql
}

fn part(sql: &mut QueryBuilder<Postgres>, query: &RunQuery, status: Option<Status>, after: Option<(i64, i64)>) {
    let namespace = query.namespace.as_str();
    let mut labels = query.labels.iter();
    // With a label the question begins at its index, which has the same order; further labels are looked up.
    let (created, id) = match labels.next() {
        Some((key, value)) => {
            sql.push("SELECT r.* FROM journal.run_labels l JOIN journal.runs r ON r.id = l.run WHERE l.namespace = ").push_bind(namespace);
            sql.push(" AND l.key = ").push_bind(clean(key)).push(" AND l.value = ").push_bind(indexed(value));
            ("l.created_at", "l.run")
        }
        None => {
            sql.push("SELECT r.* FROM journal.runs r WHERE r.namespace = ").push_bind(namespace);
            ("r.created_at", "r.id")
        }
    };
    for (key, value) in labels {
        sql.push(" AND EXISTS (SELECT 1 FROM journal.run_labels m WHERE m.run = r.id AND m.key = ").push_bind(clean(key));
        sql.push(" AND m.value = ").push_bind(indexed(value)).push(")");
    }
    if !query.workflow.is_empty() {
        sql.push(" AND r.workflow = ").push_bind(clean(&query.workflow));
    }
    if let Some(status) = status {
        sql.push(" AND r.status = ").push_bind(status as i16);
    }
    if let Some(parent) = query.parent {
        sql.push(" AND r.parent = ").push_bind(parent.0);
    }
    if !query.dead_queue.is_empty() {
        sql.push(" AND r.dead_queue = ").push_bind(clean(&query.dead_queue));
    }
    if let Some(since) = query.since {
        sql.push(format_args!(" AND {created} >= ")).push_bind(since.0);
    }
    if let Some((created_at, last)) = after {
        sql.push(format_args!(" AND ({created}, {id}) < (")).push_bind(created_at).push(", ").push_bind(last).push(")");
    }
    sql.push(format_args!(" ORDER BY {created} DESC, {id} DESC LIMIT ")).push_bind(count(query.limit + 1));
}
