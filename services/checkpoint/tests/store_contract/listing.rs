use crate::fixture::{Fixture, key, namespace, row, write};
use std::collections::BTreeMap;
use troupe_checkpoint::model::{Micros, RunQuery, RunRow, Status};
use troupe_domain::{Code, RunId};
use uuid::Uuid;

fn query() -> RunQuery {
    RunQuery::new(namespace("acme"))
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The numbers of all runs found, over all pages.
async fn found(f: &Fixture, mut query: RunQuery) -> Vec<u128> {
    let mut numbers = Vec::new();
    loop {
        let page = f.journal.list_runs(query.clone()).await.unwrap();
        assert!(page.items.len() <= query.limit);
        numbers.extend(page.items.iter().map(|row| row.key.id.0.as_u128()));
        if page.next_cursor.is_empty() {
            return numbers;
        }
        query.cursor = page.next_cursor;
    }
}

pub(crate) async fn newest_first_in_stable_pages(f: Fixture) {
    f.own().await;
    // 3 and 4 were created in the same microsecond.
    let at = |n: u128, time| write(RunRow { created_at: Micros(time), ..row(n) }, 0, 1);
    f.append(vec![at(1, 10), at(2, 20), at(3, 30), at(4, 30), at(5, 40)]).await.unwrap();
    let first = f.journal.list_runs(RunQuery { limit: 2, ..query() }).await.unwrap();
    assert_eq!(first.items.iter().map(|row| row.key.clone()).collect::<Vec<_>>(), [key(5), key(4)]);
    f.append(vec![at(6, 50), write(RunRow { created_at: Micros(40), ..row(5) }, 1, 1)]).await.unwrap();
    let rest = found(&f, RunQuery { limit: 2, cursor: first.next_cursor, ..query() }).await;
    assert_eq!(rest, [3, 2, 1]);
    assert_eq!(found(&f, RunQuery { limit: 6, ..query() }).await, [6, 5, 4, 3, 2, 1]);
    assert_eq!(found(&f, RunQuery { namespace: namespace("nobody"), ..query() }).await, []);
}

pub(crate) async fn every_filter_filters(f: Fixture) {
    f.own().await;
    let parent = RunId(Uuid::from_u128(7));
    let failed = RunRow { status: Status::Failed, ended_at: Some(Micros(1)), dead_queue: "q".into(), ..row(2) };
    let rows = [
        RunRow { workflow: "other".into(), labels: labels(&[("a", "1"), ("b", "2")]), ..row(1) },
        RunRow { labels: labels(&[("a", "1")]), ..failed },
        RunRow { status: Status::Waiting, parent: Some(parent), ..row(3) },
        RunRow { labels: labels(&[("a", "2"), ("b", "2")]), ..row(4) },
        RunRow { workflow: "other".into(), status: Status::Waiting, labels: labels(&[("b", "2"), ("a", "1")]), ..row(5) },
    ];
    f.append(rows.into_iter().map(|row| write(row, 0, 1)).collect()).await.unwrap();
    let cases = [
        ("workflow", RunQuery { workflow: "other".into(), ..query() }, vec![5, 1]),
        ("status", RunQuery { statuses: vec![Status::Waiting], ..query() }, vec![5, 3]),
        ("statuses", RunQuery { statuses: vec![Status::Waiting, Status::Failed, Status::Waiting], ..query() }, vec![5, 3, 2]),
        ("label", RunQuery { labels: labels(&[("a", "1")]), ..query() }, vec![5, 2, 1]),
        ("labels", RunQuery { labels: labels(&[("a", "1"), ("b", "2")]), ..query() }, vec![5, 1]),
        ("parent", RunQuery { parent: Some(parent), ..query() }, vec![3]),
        ("dead letters", RunQuery { dead_queue: "q".into(), ..query() }, vec![2]),
        ("since", RunQuery { since: Some(Micros(3)), ..query() }, vec![5, 4, 3]),
        (
            "several",
            RunQuery { workflow: "other".into(), statuses: vec![Status::Running], labels: labels(&[("a", "1")]), ..query() },
            vec![1],
        ),
    ];
    for (name, query, expected) in cases {
        assert_eq!(found(&f, query.clone()).await, expected, "{name}");
        assert_eq!(found(&f, RunQuery { limit: 1, ..query }).await, expected, "{name}, one by one");
    }
}

pub(crate) async fn changed_labels_are_found(f: Fixture) {
    f.own().await;
    f.append(vec![write(RunRow { labels: labels(&[("a", "1"), ("b", "2")]), ..row(1) }, 0, 1)]).await.unwrap();
    f.append(vec![write(RunRow { labels: labels(&[("a", "3")]), ..row(1) }, 1, 1)]).await.unwrap();
    assert_eq!(found(&f, RunQuery { labels: labels(&[("a", "3")]), ..query() }).await, [1]);
    for gone in [("a", "1"), ("b", "2")] {
        assert_eq!(found(&f, RunQuery { labels: labels(&[gone]), ..query() }).await, []);
    }
    assert_eq!(f.row(&key(1)).await.labels, labels(&[("a", "3")]));
}

pub(crate) async fn nonsense_cursors_are_refused(f: Fixture) {
    f.own().await;
    f.append(vec![write(row(1), 0, 1)]).await.unwrap();
    let error = f.journal.list_runs(RunQuery { cursor: "nonsense".into(), ..query() }).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}
