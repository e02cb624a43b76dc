//! Several replicas on one database. With threads of their own: the server cannot remove a database while somebody is connecting to it,
//! and the test's thread waits for the removal.

use crate::{
    database::{Database, SERVER},
    host::{FakeExecutor, Host, host_on, new_clock},
};
use std::{sync::Arc, time::Duration};
use troupe_approval::{
    Backend, Config, Service,
    approval::Approval,
    clock::{Clock, ManualClock},
    store::{Store, postgres::PostgresStore},
};
use troupe_domain::{Code, Namespace};
use troupe_proto::approval::v1 as wire;
use troupe_service_kit::Tasks;
use troupe_wire::Transport;

fn postgres(database: &Database) -> troupe_postgres::Config {
    troupe_postgres::Config { url: database.url(SERVER), ..troupe_postgres::Config::default() }
}

/// Two replicas with one clock and one executor: either may find a decision that is to be delivered, whoever took it.
async fn two(database: &Database) -> (Host, Host, Arc<ManualClock>) {
    let clock = new_clock();
    let executor = FakeExecutor::default();
    let a = host_on(Backend::Postgres(postgres(database)), executor.clone(), Arc::clone(&clock)).await;
    let b = host_on(Backend::Postgres(postgres(database)), executor, Arc::clone(&clock)).await;
    (a, b, clock)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_one_replica_is_decided_at_another() {
    let database = Database::new().await;
    let (mut a, mut b, _) = two(&database).await;
    let requests = vec![a.request("a"), a.request("b")];
    a.store(requests).await;
    assert_eq!(b.list(wire::ListApprovalsRequest::default()).await, ["b", "a"]);
    b.decide("a", "ann", "approve").await.unwrap();
    let again = a.decide("a", "bob", "reject").await.unwrap_err();
    assert_eq!((again.code, again.reason.as_str()), (Code::Conflict, "ALREADY_DECIDED"));
    // It is delivered at once, without a look at the clock.
    assert_eq!(b.executor.heard(1).await[0].approval_id, "a");
    a.decide("b", "bob", "reject").await.unwrap();
    assert_eq!(a.executor.heard(2).await[1].approval_id, "b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_deciders_one_wins() {
    let database = Database::new().await;
    let (mut a, mut b, _) = two(&database).await;
    for n in 0..20 {
        let id = format!("a{n}");
        let request = a.request(&id);
        a.store(vec![request]).await;
        let (one, two) = tokio::join!(a.decide(&id, "ann", "approve"), b.decide(&id, "bob", "reject"));
        assert_eq!([one, two].iter().filter(|decided| decided.is_ok()).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_dies_with_a_claim_leaves_it_to_another() {
    let database = Database::new().await;
    let clock = new_clock();
    let mut first = host_on(Backend::Postgres(postgres(&database)), FakeExecutor::default(), Arc::clone(&clock)).await;
    let request = first.request("a");
    first.store(vec![request]).await;
    first.stop().await;
    // One settles the request, claims its delivery, and is gone.
    let tasks = Tasks::new();
    let gone = PostgresStore::open(&postgres(&database), &tasks).await.unwrap();
    let key = troupe_approval::approval::Key { namespace: Namespace::parse("team").unwrap(), id: "a".into() };
    let now = clock.now();
    let change =
        move |a: &Approval| Ok(Some(Approval { status: troupe_approval::approval::Status::Approved, decided_at: Some(now), ..a.clone() }));
    gone.update(key, Box::new(change)).await.unwrap();
    assert_eq!(gone.claim_deliveries(now, now + chrono::Duration::seconds(25), 10).await.unwrap().len(), 1);
    assert!(tasks.stop(Duration::from_secs(20)).await);
    let b = host_on(Backend::Postgres(postgres(&database)), FakeExecutor::default(), Arc::clone(&clock)).await;
    while b.executor.calls() == 0 {
        b.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    assert_eq!(b.executor.heard(1).await[0].approval_id, "a");
    assert!(clock.now() >= now + chrono::Duration::seconds(25), "a claim is respected while it lasts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expires_is_settled_once_and_told() {
    let database = Database::new().await;
    let (mut a, mut b, clock) = two(&database).await;
    let requests = (0..50).map(|n| a.expiring(&format!("a{n}"), 60, "reject")).collect();
    a.store(requests).await;
    while clock.now() < new_clock().now() + chrono::Duration::seconds(60) {
        clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    let told = async {
        loop {
            let mut ids: Vec<String> = a.executor.heard(0).await.into_iter().map(|d| d.approval_id).collect();
            let calls = ids.len();
            ids.sort();
            ids.dedup();
            if ids.len() == 50 {
                return calls;
            }
            // The clock stands still: who settled a request delivers it without a look at the time.
            tokio::task::yield_now().await;
        }
    };
    let calls = tokio::time::timeout(Duration::from_secs(20), told).await.expect("all are told");
    assert_eq!(calls, 50, "each is delivered by one replica");
    for n in 0..50 {
        let settled = b.get(&format!("a{n}")).await;
        assert_eq!((settled.status.as_str(), settled.decisions.len()), ("rejected", 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_lose_no_decision() {
    use sqlx::Connection as _;
    let database = Database::new().await;
    let (mut a, mut b, _) = two(&database).await;
    let requests = (0..10).map(|n| a.request(&format!("a{n}"))).collect();
    a.store(requests).await;
    for n in 0..10 {
        let id = format!("a{n}");
        let cut = async {
            let mut connection = sqlx::PgConnection::connect(&database.url(SERVER)).await.unwrap();
            let cut =
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
            sqlx::raw_sql(cut).execute(&mut connection).await.unwrap();
        };
        let decide = async {
            loop {
                match b.decide(&id, "ann", "approve").await {
                    Ok(_) => break,
                    // It may have been stored: the same again says so.
                    Err(error) if error.reason == "ALREADY_DECIDED" => break,
                    Err(error) => assert_eq!(error.code, Code::Unavailable, "{error}"),
                }
            }
        };
        tokio::join!(cut, decide);
    }
    let told = async {
        loop {
            let ids: std::collections::BTreeSet<String> = a.executor.heard(0).await.into_iter().map(|d| d.approval_id).collect();
            if ids.len() == 10 {
                return;
            }
            // A claim whose end was not written ends by itself.
            a.clock.advance(Duration::from_millis(10));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.expect("all are delivered");
    for n in 0..10 {
        assert_eq!(a.get(&format!("a{n}")).await.status, "approved");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_and_decisions_share_transactions() {
    let database = Database::new().await;
    let (mut a, mut b, _) = two(&database).await;
    let requests = (0..1000).map(|n| a.request(&format!("a{n}"))).collect();
    let begun = std::time::Instant::now();
    a.store(requests).await;
    let stored = begun.elapsed();
    let client = b.client.clone();
    let decisions = (0..1000).map(|n| {
        let (mut client, id) = (client.clone(), format!("a{n}"));
        async move {
            let (by, decision) = ("ann".to_owned(), "approve".to_owned());
            let request = wire::DecideRequest { namespace: "team".into(), approval_id: id, by, decision, ..Default::default() };
            client.decide(request).await
        }
    });
    assert!(futures::future::join_all(decisions).await.iter().all(Result::is_ok));
    println!("stored in {stored:?}, decided after {:?}", begun.elapsed());
    assert_eq!(b.executor.heard(1000).await.len(), 1000);
    println!("delivered after {:?}", begun.elapsed());
    assert!(b.list(wire::ListApprovalsRequest::default()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_from_the_future_is_refused() {
    use sqlx::Connection as _;
    let database = Database::new().await;
    let tasks = Tasks::new();
    PostgresStore::open(&postgres(&database), &tasks).await.unwrap();
    let mut connection = sqlx::PgConnection::connect(&database.url(SERVER)).await.unwrap();
    sqlx::raw_sql("UPDATE approval.schema_version SET version = 99").execute(&mut connection).await.unwrap();
    let dependencies = troupe_approval::Dependencies { executor: Transport::embedded(tonic::service::Routes::default()) };
    let backend = Backend::Postgres(postgres(&database));
    let error = Service::start(Config::default(), backend, dependencies, &tasks).await.err().unwrap().to_string();
    assert!(error.contains("approval is version 99") && error.contains("newer Troupe"), "{error}");
}
