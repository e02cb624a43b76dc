//! Listing, newest first. One question for each status, each along its own stretch of an index, however many others there are.

use super::{approval, count};
use crate::store::{Listed, Query};
use sqlx::Row as _;
use troupe_postgres::{Attempt, Link};

const PARTS: &str = "SELECT x.seq, x.body FROM unnest($2::text[]) s(status) CROSS JOIN LATERAL (
        SELECT a.seq, a.body FROM approval.approvals a
        WHERE a.namespace = $1 AND a.status = s.status AND a.seq < $3 ORDER BY a.seq DESC LIMIT $4) x
     ORDER BY x.seq DESC LIMIT $4";
const PARTS_OF_RUN: &str = "SELECT a.seq, a.body FROM approval.approvals a
     WHERE a.namespace = $1 AND a.run_id = $5 AND a.status = ANY($2) AND a.seq < $3 ORDER BY a.seq DESC LIMIT $4";

pub(super) async fn list(link: &mut Link, query: &Query) -> Attempt<Listed> {
    let statuses: Vec<&str> = query.statuses.iter().map(|status| status.name()).collect();
    let sql = if query.run.is_some() { PARTS_OF_RUN } else { PARTS };
    let question = link.query(sql).bind(query.namespace.as_str()).bind(statuses);
    // One more than the page tells whether there are more.
    let question = question.bind(query.before.unwrap_or(i64::MAX)).bind(count(query.limit.saturating_add(1)));
    let question = match query.run {
        Some(run) => question.bind(run.0),
        None => question,
    };
    let rows = question.fetch_all(link.connection()).await?;
    let shown = &rows[..rows.len().min(query.limit)];
    let next = match shown.last() {
        Some(last) if rows.len() > shown.len() => Some(last.try_get(0)?),
        _ => None,
    };
    Ok(Listed { approvals: shown.iter().map(|row| approval(row, 1)).collect::<Attempt<_>>()?, next })
}
