//! Listing runs, newest first. Every filter has an index that ends in the time of creation.

use super::{
    rows::{self, count, namespace_number},
    writer::Attempt,
};
use crate::{
    model::{Listing, RunQuery, RunRow, Status},
    store::cursor,
};
use rusqlite::{Connection, params_from_iter, types::Value};
use std::cmp::Reverse;

pub(super) fn runs(connection: &Connection, query: &RunQuery) -> Attempt<Listing<RunRow>> {
    let after = cursor::decode(&query.cursor)?;
    let Some(namespace) = namespace_number(connection, &query.namespace)? else {
        return Ok(Listing { items: Vec::new(), next_cursor: String::new() });
    };
    let mut found = if query.statuses.is_empty() {
        page(connection, query, namespace, None, after)?
    } else {
        // One question for each status, each from its own stretch of the index; the newest of all answers are the page.
        let mut statuses = query.statuses.clone();
        statuses.sort_unstable();
        statuses.dedup();
        let mut all = Vec::new();
        for status in statuses {
            all.append(&mut page(connection, query, namespace, Some(status), after)?);
        }
        all.sort_by_key(|(id, row)| Reverse((row.created_at, *id)));
        all
    };
    let more = found.len() > query.limit;
    found.truncate(query.limit);
    let next_cursor = match found.last() {
        Some((id, row)) if more => cursor::encode(row.created_at.0, *id),
        _ => String::new(),
    };
    Ok(Listing { items: found.into_iter().map(|(_, row)| row).collect(), next_cursor })
}

/// A statement under construction.
struct Sql {
    conditions: String,
    values: Vec<Value>,
}

impl Sql {
    /// Adds a condition on one value, which the text calls `?`.
    fn and(&mut self, condition: &str, value: impl Into<Value>) {
        self.conditions.push_str(" AND ");
        self.conditions.push_str(condition);
        self.values.push(value.into());
    }
}

/// Up to one row more than the page takes, with the numbers of the rows.
fn page(
    connection: &Connection,
    query: &RunQuery,
    namespace: i64,
    status: Option<Status>,
    after: Option<(i64, i64)>,
) -> rusqlite::Result<Vec<(i64, RunRow)>> {
    let (text, values) = statement(query, namespace, status, after);
    connection.prepare_cached(&text)?.query_map(params_from_iter(values), rows::run)?.collect()
}

fn statement(query: &RunQuery, namespace: i64, status: Option<Status>, after: Option<(i64, i64)>) -> (String, Vec<Value>) {
    let mut labels = query.labels.iter();
    let mut sql = Sql { conditions: String::new(), values: vec![namespace.into()] };
    // With a label the question begins at its index, which has the same order; further labels are looked up.
    let (from, created, id) = match labels.next() {
        Some((key, value)) => {
            sql.and("l.key = ?", key.clone());
            sql.and("l.value = ?", value.clone());
            (
                "run_labels l CROSS JOIN runs r ON r.id = l.run JOIN namespaces n ON n.id = r.namespace WHERE l.namespace = ?",
                "l.created_at",
                "l.run",
            )
        }
        None => ("runs r JOIN namespaces n ON n.id = r.namespace WHERE r.namespace = ?", "r.created_at", "r.id"),
    };
    for (key, value) in labels {
        let exists = "EXISTS (SELECT 1 FROM run_labels m WHERE m.namespace = r.namespace AND m.created_at = r.created_at AND m.run = r.id AND m.key = ?";
        sql.and(exists, key.clone());
        sql.and("m.value = ?)", value.clone());
    }
    filter(&mut sql, query, status, created);
    if let Some((created_at, last)) = after {
        sql.and(&format!("({created}, {id}) < (?"), created_at);
        sql.conditions.push_str(", ?)");
        sql.values.push(last.into());
    }
    sql.values.push(count(query.limit + 1).into());
    let text = format!("SELECT {} FROM {from}{} ORDER BY {created} DESC, {id} DESC LIMIT ?", rows::RUN_COLUMNS, sql.conditions);
    (text, sql.values)
}

fn filter(sql: &mut Sql, query: &RunQuery, status: Option<Status>, created: &str) {
    if !query.workflow.is_empty() {
        sql.and("r.workflow = ?", query.workflow.clone());
    }
    if let Some(status) = status {
        sql.and("r.status = ?", status as i64);
    }
    if let Some(parent) = query.parent {
        sql.and("r.parent = ?", parent.0.as_bytes().to_vec());
    }
    if !query.dead_queue.is_empty() {
        sql.and("r.dead_queue = ?", query.dead_queue.clone());
    }
    if let Some(since) = query.since {
        sql.and(&format!("{created} >= ?"), since.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Micros, store::sqlite::migrate};
    use troupe_domain::{Namespace, RunId};

    /// The steps by which SQLite would answer.
    fn plan(query: &RunQuery, status: Option<Status>) -> String {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate::run(&mut connection).unwrap();
        let (text, values) = statement(query, 1, status, Some((5, 5)));
        let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {text}")).unwrap();
        let steps = explain.query_map(params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
        steps.collect::<rusqlite::Result<Vec<_>>>().unwrap().join("\n")
    }

    #[test]
    fn every_filter_has_an_index_in_the_order_of_the_listing() {
        let all = RunQuery::new(Namespace::parse("a").unwrap());
        let label = [("k".to_owned(), "v".to_owned())].into();
        let cases = [
            ("runs_by_created", all.clone(), None),
            ("runs_by_created", RunQuery { since: Some(Micros(1)), ..all.clone() }, None),
            ("runs_by_workflow", RunQuery { workflow: "w".into(), ..all.clone() }, None),
            ("runs_by_status", all.clone(), Some(Status::Failed)),
            ("runs_by_parent", RunQuery { parent: Some(RunId::generate()), ..all.clone() }, None),
            ("runs_by_dead_queue", RunQuery { dead_queue: "q".into(), ..all.clone() }, None),
            ("SEARCH l USING PRIMARY KEY", RunQuery { labels: label, ..all }, None),
        ];
        for (index, query, status) in cases {
            let plan = plan(&query, status);
            assert!(plan.contains(index) && !plan.contains("TEMP B-TREE") && !plan.contains("SCAN r"), "{index}:\n{plan}");
        }
    }
}
