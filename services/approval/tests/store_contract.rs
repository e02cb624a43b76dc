//! What every store promises; each test runs on all of them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../crates/postgres/tests/support/database.rs"]
mod database;

use chrono::{Duration, TimeZone, Utc};
use database::{Database, SERVER};
use std::sync::Arc;
use troupe_approval::{
    approval::{Approval, Key, Mode, OnExpire, Status, Time},
    request::take_in,
    store::{Query, Store, Update, memory::MemoryStore, postgres::PostgresStore, sqlite::SqliteStore},
};
use troupe_domain::{Code, Error, Json, Namespace, RunId};
use troupe_postgres::Config;
use troupe_service_kit::Tasks;

fn at(seconds: i64) -> Time {
    Utc.timestamp_opt(1_800_000_000 + seconds, 0).unwrap()
}

fn key(namespace: &str, id: &str) -> Key {
    Key { namespace: Namespace::parse(namespace).unwrap(), id: id.into() }
}

fn approval(id: &str) -> Approval {
    let raw = Approval {
        key: key("team", id),
        run: RunId::for_key(&Namespace::parse("").unwrap(), "run"),
        step: "publish".into(),
        workflow: "triage".into(),
        title: format!("Publish {id}?"),
        show: Json::parse(br#"{"n": 1}"#, "show").unwrap(),
        digest: String::new(),
        approvers: vec!["user:ann".into()],
        required: 1,
        edit: vec!["n".into()],
        values: Json::object(),
        mode: Mode::Approve,
        answer_schema: Some(Json::object()),
        status: Status::Pending,
        requested_at: at(0),
        expires_at: None,
        on_expire: OnExpire::Escalate,
        escalate_to: vec!["role:boss".into()],
        expires_after: Some(std::time::Duration::from_millis(1500)),
        escalations: 0,
        decisions: Vec::new(),
        decided_at: None,
        traceparent: String::new(),
    };
    take_in(raw, &Default::default()).unwrap()
}

/// Settles a request; the store puts its outcome into the outbox by itself.
async fn settle(store: &dyn Store, id: &str, status: Status, when: Time) -> Update {
    let change = move |a: &Approval| Ok(Some(Approval { status, decided_at: Some(when), ..a.clone() }));
    store.update(key("team", id), Box::new(change)).await.unwrap()
}

fn query() -> Query {
    Query { namespace: Namespace::parse("team").unwrap(), statuses: vec![Status::Pending], run: None, before: None, limit: 10 }
}

async fn ids(store: &dyn Store, query: Query) -> Vec<String> {
    store.list(query).await.unwrap().approvals.into_iter().map(|a| a.key.id).collect()
}

async fn what_is_stored_comes_back(store: &dyn Store) {
    let a = Approval { expires_at: Some(at(60)), ..approval("a") };
    assert_eq!(store.insert(vec![a.clone(), approval("b")]).await.unwrap(), 2);
    assert_eq!(store.get(key("team", "a")).await.unwrap(), Some(a));
    assert_eq!(store.get(key("other", "a")).await.unwrap(), None, "another namespace has no such approval");
    assert_eq!(store.count_pending().await.unwrap(), 2);
    store.check().await.unwrap();
}

async fn a_repeated_request_changes_nothing(store: &dyn Store) {
    store.insert(vec![approval("a")]).await.unwrap();
    settle(store, "a", Status::Approved, at(1)).await;
    assert_eq!(store.insert(vec![approval("a"), approval("b"), approval("b")]).await.unwrap(), 1);
    assert_eq!(store.get(key("team", "a")).await.unwrap().unwrap().status, Status::Approved);
    let same_id = Approval { key: key("other", "a"), ..approval("a") };
    assert_eq!(store.insert(vec![same_id]).await.unwrap(), 1, "ids are per namespace");
}

async fn changes_are_one_at_a_time_and_may_refuse(store: &dyn Store) {
    store.insert(vec![approval("a")]).await.unwrap();
    let grow = |a: &Approval| Ok(Some(Approval { required: a.required + 1, ..a.clone() }));
    let updates = futures::future::join_all((0..50).map(|_| store.update(key("team", "a"), Box::new(grow)))).await;
    assert!(updates.iter().all(|u| matches!(u, Ok(Update::Changed(_)))));
    assert_eq!(store.get(key("team", "a")).await.unwrap().unwrap().required, 51);
    let refused = store.update(key("team", "a"), Box::new(|_| Err(Error::conflict("no")))).await;
    assert_eq!(refused.unwrap_err().code, Code::Conflict);
    assert_eq!(store.update(key("team", "a"), Box::new(|_| Ok(None))).await.unwrap(), Update::Unchanged);
    assert_eq!(store.update(key("team", "x"), Box::new(|_| Ok(None))).await.unwrap(), Update::Missing);
    assert_eq!(store.get(key("team", "a")).await.unwrap().unwrap().required, 51);
    assert_eq!(store.next_delivery().await.unwrap(), None, "what is still pending is not delivered");
}

async fn lists_are_newest_first_in_pages(store: &dyn Store) {
    let names: Vec<String> = (0..25).map(|n| format!("a{n:02}")).collect();
    store.insert(names.iter().map(|id| approval(id)).collect()).await.unwrap();
    store.insert(vec![Approval { key: key("other", "z"), ..approval("z") }]).await.unwrap();
    for n in [3, 7, 11] {
        settle(store, &names[n], Status::Approved, at(1)).await;
    }
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = store.list(Query { before, ..query() }).await.unwrap();
        assert!(page.approvals.len() <= 10);
        seen.extend(page.approvals.into_iter().map(|a| a.key.id));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    let expected: Vec<String> = names.iter().enumerate().rev().filter(|(n, _)| ![3, 7, 11].contains(n)).map(|(_, id)| id.clone()).collect();
    assert_eq!(seen, expected);
    assert_eq!(ids(store, Query { statuses: vec![Status::Approved], ..query() }).await, ["a11", "a07", "a03"]);
    let both = Query { statuses: vec![Status::Approved, Status::Pending], limit: 100, ..query() };
    assert_eq!(ids(store, both).await.len(), 25);
    assert!(ids(store, Query { statuses: vec![], ..query() }).await.is_empty());
}

async fn lists_can_be_of_one_run(store: &dyn Store) {
    let run = RunId::generate();
    store.insert(vec![approval("a"), Approval { run, ..approval("b") }, Approval { run, ..approval("c") }]).await.unwrap();
    settle(store, "c", Status::Rejected, at(1)).await;
    assert_eq!(ids(store, Query { run: Some(run), ..query() }).await, ["b"]);
    let all = Query { run: Some(run), statuses: vec![Status::Pending, Status::Rejected], ..query() };
    assert_eq!(ids(store, all).await, ["c", "b"]);
}

async fn only_pending_requests_expire(store: &dyn Store) {
    assert_eq!(store.next_expiry().await.unwrap(), None);
    let expiring = |id: &str, when| Approval { expires_at: Some(at(when)), ..approval(id) };
    store.insert(vec![expiring("late", 30), expiring("soon", 10), expiring("done", 5), approval("never")]).await.unwrap();
    settle(store, "done", Status::Approved, at(1)).await;
    assert_eq!(store.next_expiry().await.unwrap(), Some(at(10)));
    assert!(store.due(at(9), 10).await.unwrap().is_empty());
    assert_eq!(store.due(at(10), 10).await.unwrap(), [key("team", "soon")]);
    assert_eq!(store.due(at(99), 10).await.unwrap(), [key("team", "soon"), key("team", "late")]);
    assert_eq!(store.due(at(99), 1).await.unwrap(), [key("team", "soon")]);
    let later = |a: &Approval| Ok(Some(Approval { expires_at: Some(at(40)), ..a.clone() }));
    store.update(key("team", "soon"), Box::new(later)).await.unwrap();
    assert_eq!(store.next_expiry().await.unwrap(), Some(at(30)));
}

async fn pending_requests_can_be_walked_through(store: &dyn Store) {
    let other = Approval { key: key("other", "z"), ..approval("z") };
    store.insert(vec![approval("a"), approval("b"), other, approval("c")]).await.unwrap();
    settle(store, "b", Status::Approved, at(1)).await;
    let first = store.pending(0, 2).await.unwrap();
    assert_eq!(first.iter().map(|(_, a)| a.key.id.as_str()).collect::<Vec<_>>(), ["a", "z"]);
    let rest = store.pending(first[1].0, 2).await.unwrap();
    assert_eq!(rest.iter().map(|(_, a)| a.key.clone()).collect::<Vec<_>>(), [key("team", "c")]);
    assert!(store.pending(rest[0].0, 2).await.unwrap().is_empty());
}

async fn many_changes_at_once_are_all_made(store: &dyn Store) {
    let names: Vec<String> = (0..300).map(|n| format!("a{n}")).collect();
    store.insert(names.iter().map(|id| approval(id)).collect()).await.unwrap();
    let updates = names.iter().map(|id| settle(store, id, Status::Approved, at(1)));
    assert!(futures::future::join_all(updates).await.iter().all(|u| matches!(u, Update::Changed(_))));
    assert_eq!(store.count_pending().await.unwrap(), 0);
    let mut claimed = Vec::new();
    // Two that claim at the same time share the work.
    let (one, two) = tokio::join!(store.claim_deliveries(at(2), at(20), 200), store.claim_deliveries(at(2), at(20), 200));
    claimed.extend(one.unwrap().into_iter().chain(two.unwrap()).map(|d| d.approval.key));
    claimed.extend(store.claim_deliveries(at(2), at(20), 200).await.unwrap().into_iter().map(|d| d.approval.key));
    let finished = claimed.iter().map(|key| store.finish_delivery(key.clone(), None));
    assert!(futures::future::join_all(finished).await.iter().all(Result::is_ok));
    claimed.sort();
    claimed.dedup();
    assert_eq!(claimed.len(), 300);
    assert_eq!(store.next_delivery().await.unwrap(), None);
}

async fn settled_requests_are_in_the_outbox_until_they_are_finished(store: &dyn Store) {
    store.insert(["a", "b", "c", "w"].map(approval).into()).await.unwrap();
    settle(store, "a", Status::Approved, at(1)).await;
    settle(store, "b", Status::Expired, at(2)).await;
    settle(store, "w", Status::Withdrawn, at(2)).await;
    assert_eq!(store.next_delivery().await.unwrap(), Some(at(1)));
    let claimed = store.claim_deliveries(at(5), at(20), 1).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!((claimed[0].approval.key.id.as_str(), claimed[0].attempt), ("a", 1));
    let rest = store.claim_deliveries(at(5), at(20), 10).await.unwrap();
    assert_eq!(rest.iter().map(|d| d.approval.key.id.as_str()).collect::<Vec<_>>(), ["b"], "claimed and withdrawn ones are not given out");
    store.finish_delivery(key("team", "a"), None).await.unwrap();
    store.finish_delivery(key("team", "b"), Some(at(8))).await.unwrap();
    assert_eq!(store.next_delivery().await.unwrap(), Some(at(8)));
    assert!(store.claim_deliveries(at(7), at(20), 10).await.unwrap().is_empty());
    assert_eq!(store.claim_deliveries(at(8), at(20), 10).await.unwrap()[0].attempt, 2);
    assert_eq!(store.next_delivery().await.unwrap(), Some(at(20)), "a claim that nobody finishes ends");
    store.release_deliveries(at(9)).await.unwrap();
    // A store that others use leaves their claims alone.
    let free = if store.look_every().is_none() { 9 } else { 20 };
    assert_eq!(store.claim_deliveries(at(free - 1), at(30), 10).await.unwrap().len(), 0);
    assert_eq!(store.claim_deliveries(at(free), at(30), 10).await.unwrap()[0].attempt, 3);
    store.finish_delivery(key("team", "b"), None).await.unwrap();
    assert_eq!(store.next_delivery().await.unwrap(), None);
}

macro_rules! contract {
    ($($test:ident),+ $(,)?) => {
        mod memory {
            use super::*;
            $(#[tokio::test]
            async fn $test() {
                super::$test(&MemoryStore::default()).await;
            })+
        }
        mod sqlite {
            use super::*;
            $(#[tokio::test]
            async fn $test() {
                let dir = tempfile::tempdir().unwrap();
                super::$test(&SqliteStore::open(dir.path().join("approvals.db")).await.unwrap()).await;
            })+
        }
        mod postgres {
            use super::*;
            $(#[tokio::test]
            async fn $test() {
                let database = Database::new().await;
                let config = Config { url: database.url(SERVER), ..Config::default() };
                super::$test(&PostgresStore::open(&config, &Tasks::new()).await.unwrap()).await;
            })+
        }
        /// The same through a pooler that gives each transaction any of its connections.
        mod pooled {
            use super::*;
            $(#[tokio::test]
            async fn $test() {
                let database = Database::new().await;
                let config = Config { url: database.url("TROUPE_TEST_PGBOUNCER"), pooler: true, ..Config::default() };
                super::$test(&PostgresStore::open(&config, &Tasks::new()).await.unwrap()).await;
            })+
        }
    };
}

contract! {
    what_is_stored_comes_back,
    a_repeated_request_changes_nothing,
    changes_are_one_at_a_time_and_may_refuse,
    lists_are_newest_first_in_pages,
    lists_can_be_of_one_run,
    only_pending_requests_expire,
    pending_requests_can_be_walked_through,
    many_changes_at_once_are_all_made,
    settled_requests_are_in_the_outbox_until_they_are_finished,
}

#[tokio::test]
async fn a_file_keeps_requests_decisions_and_the_outbox() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("approvals.db");
    let store = SqliteStore::open(&path).await.unwrap();
    store.insert(vec![Approval { expires_at: Some(at(60)), ..approval("a") }, approval("b")]).await.unwrap();
    settle(&store, "b", Status::Rejected, at(1)).await;
    drop(store);
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).await.unwrap());
    assert_eq!(ids(&*store, query()).await, ["a"]);
    assert_eq!(store.next_expiry().await.unwrap(), Some(at(60)));
    assert_eq!(store.next_delivery().await.unwrap(), Some(at(1)));
    assert_eq!(store.next_expiry().await.unwrap().unwrap() - at(0), Duration::seconds(60));
}
