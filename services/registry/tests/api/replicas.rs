//! Several replicas on one database. With threads of their own: the server cannot remove a database while somebody is connecting to it,
//! and the test's thread waits for the removal.

use crate::{
    database::{Database, SERVER},
    host::{Host, file, host_on},
};
use std::time::Duration;
use troupe_domain::Code;
use troupe_proto::registry::v1 as wire;
use troupe_registry::{Backend, Config, Service, store::postgres::PostgresStore};
use troupe_service_kit::Tasks;

fn config(database: &Database) -> Config {
    let postgres = troupe_postgres::Config { url: database.url(SERVER), connections: 4, writers: 1, ..troupe_postgres::Config::default() };
    Config { instance_life_ms: 1000, refresh_ms: 20, postgres, ..Config::default() }
}

async fn replica(database: &Database) -> Host {
    let config = config(database);
    let backend = Backend::database_or(&config, || unreachable!("a database is named")).unwrap();
    host_on(config, backend).await
}

/// Runs a statement in the database.
async fn execute(database: &Database, sql: &'static str) {
    use sqlx::Connection as _;
    let mut connection = sqlx::PgConnection::connect(&database.url(SERVER)).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
}

fn workers(agent: &wire::Agent) -> Vec<(&str, &str, u32)> {
    agent.instances.iter().map(|i| (i.scheduler_id.as_str(), i.worker_id.as_str(), i.active)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_replica_answered_all_others_know() {
    let database = Database::new().await;
    // They look by themselves too seldom for the test to see it.
    let seldom = Config { refresh_ms: 600_000, ..config(&database) };
    let mut a = host_on(seldom.clone(), Backend::Postgres(seldom.postgres.clone())).await;
    let mut b = host_on(seldom.clone(), Backend::Postgres(seldom.postgres.clone())).await;
    for n in 0..10 {
        let applied = a.apply(file("a", &n.to_string(), "x")).await.unwrap().agent.unwrap();
        assert_eq!(b.get("a", "").await.unwrap(), applied);
    }
    b.set_state("a", wire::AgentState::Quarantined).await.unwrap();
    assert_eq!(a.get("a", "3").await.unwrap().state(), wire::AgentState::Quarantined);
    b.apply(file("b", "1", "x")).await.unwrap();
    let listed = wire::ListAgentsRequest { namespace: "team".into(), ..Default::default() };
    assert_eq!(a.client.list_agents(listed).await.unwrap().into_inner().agents.len(), 2);
    let conflict = a.apply(file("b", "1", "changed")).await.unwrap_err();
    assert_eq!(conflict.reason, "VERSION_EXISTS");
    a.delete("a").await.unwrap();
    assert_eq!(b.get("a", "").await.unwrap_err().code, Code::NotFound);
    assert_eq!(b.delete("a").await.unwrap_err().code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_of_every_replica_are_told() {
    let database = Database::new().await;
    let (mut a, mut b) = (replica(&database).await, replica(&database).await);
    let mut watch = b.watch("team").await;
    assert_eq!(watch.told().await.0, "synced");
    a.apply(file("a", "1", "x")).await.unwrap();
    assert_eq!(watch.told().await, ("upsert".into(), "a".into()));
    a.set_state("a", wire::AgentState::Draining).await.unwrap();
    watch.until("a", |a| a.state() == wire::AgentState::Draining).await;
    a.delete("a").await.unwrap();
    assert_eq!(watch.told().await, ("delete".into(), "a".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_are_shown_at_every_replica_and_move_with_their_scheduler() {
    let database = Database::new().await;
    let (mut a, mut b) = (replica(&database).await, replica(&database).await);
    a.apply(file("a", "1", "x")).await.unwrap();
    let mut watch = b.watch("team").await;
    let old = a.scheduler("s1").await;
    old.report(&[("a", "w1", 1), ("b", "w1", 1)]).await;
    watch.until("b", |b| b.dynamic).await;
    assert_eq!(workers(&b.get("a", "").await.unwrap()), [("s1", "w1", 1)]);

    let new = b.scheduler("s1").await;
    new.report(&[("a", "w1", 2)]).await;
    watch.until("a", |a| workers(a) == [("s1", "w1", 2)]).await;
    // Its old stream has nothing more to say, and its end takes nothing away.
    old.report_in_vain(&[("a", "w1", 9)]).await;
    drop(old);
    new.report(&[("a", "w1", 3)]).await;
    watch.until("a", |a| workers(a) == [("s1", "w1", 3)]).await;
    assert_eq!(workers(&a.get("a", "").await.unwrap()), [("s1", "w1", 3)]);
    assert_eq!(a.get("b", "").await.unwrap_err().code, Code::NotFound);
    drop(new);
    watch.until("a", |a| a.instances.is_empty()).await;
    assert!(a.get("a", "").await.unwrap().instances.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_reported_to_a_replica_that_is_gone_are_forgotten() {
    let database = Database::new().await;
    let mut b = replica(&database).await;
    let mut watch = b.watch("team").await;
    // A runtime of its own, that ends as a killed process does: nobody says good-bye.
    let config = config(&database);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let begun = runtime.spawn(async move {
        let backend = Backend::Postgres(config.postgres.clone());
        let mut a = host_on(config, backend).await;
        let scheduler = a.scheduler("s1").await;
        scheduler.report(&[("a", "w1", 1)]).await;
        (a, scheduler)
    });
    let held = begun.await.unwrap();
    let shown = watch.until("a", |a| !a.instances.is_empty()).await;
    // It lives as long as its replica does.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(b.get("a", "").await.unwrap(), shown);
    runtime.shutdown_background();
    let gone = loop {
        let message = watch.next().await.unwrap();
        if message.kind == "delete" {
            break message.agent.unwrap().name;
        }
    };
    assert_eq!(gone, "a");
    std::mem::forget(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_missed_too_much_reads_everything_anew() {
    let database = Database::new().await;
    let (mut a, mut b) = (replica(&database).await, replica(&database).await);
    a.apply(file("gone", "1", "x")).await.unwrap();
    let mut watch = b.watch("team").await;
    watch.until("gone", |_| true).await;
    // Changes that are not kept any more, and a number far ahead.
    execute(
        &database,
        "UPDATE registry.head SET revision = 50000; DELETE FROM registry.changes;
         DELETE FROM registry.agents; DELETE FROM registry.versions",
    )
    .await;
    assert_eq!(b.get("gone", "").await.unwrap_err().code, Code::NotFound);
    a.apply(file("new", "1", "x")).await.unwrap();
    watch.until("new", |_| true).await;
    // A database that was put back to an older state.
    execute(&database, "UPDATE registry.head SET revision = 3; DELETE FROM registry.changes").await;
    assert_eq!(b.get("new", "").await.unwrap().version, "1");
    a.apply(file("after", "1", "x")).await.unwrap();
    watch.until("after", |_| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_are_replaced_and_reports_live_on() {
    let database = Database::new().await;
    let (mut a, mut b) = (replica(&database).await, replica(&database).await);
    let scheduler = a.scheduler("s1").await;
    let mut watch = b.watch("team").await;
    for round in 1..=5 {
        execute(
            &database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
        scheduler.report(&[("a", "w1", round)]).await;
        // What failed at once is stored at the next renewal.
        watch.until("a", |a| workers(a) == [("s1", "w1", round)]).await;
        let version = round.to_string();
        while let Err(error) = a.apply(file("b", &version, "x")).await {
            assert_eq!(error.code, Code::Unavailable, "{error}");
        }
        watch.until("b", |b| b.version == version).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_apply_at_the_same_time_agree() {
    let database = Database::new().await;
    let (mut a, mut b) = (replica(&database).await, replica(&database).await);
    for round in 0..10 {
        let (one, two) = (file("a", &format!("{round}.a"), "x"), file("a", &format!("{round}.b"), "y"));
        let (same, other) = (file("same", &round.to_string(), "x"), file("same", &round.to_string(), "y"));
        let (first, second) =
            tokio::join!(async { (a.apply(one).await, a.apply(same).await) }, async { (b.apply(two).await, b.apply(other).await) });
        first.0.unwrap();
        second.0.unwrap();
        let refused: Vec<_> = [first.1, second.1].into_iter().filter_map(Result::err).map(|e| e.reason).collect();
        assert_eq!(refused, ["VERSION_EXISTS"], "one of the two is the version");
        assert_eq!(a.get("a", "").await.unwrap(), b.get("a", "").await.unwrap());
        assert_eq!(a.get("same", "").await.unwrap(), b.get("same", "").await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_from_the_future_is_refused() {
    let database = Database::new().await;
    let config = config(&database);
    PostgresStore::open(&config.postgres).await.unwrap();
    execute(&database, "UPDATE registry.schema_version SET version = 99").await;
    let backend = Backend::Postgres(config.postgres.clone());
    let error = Service::start(config, backend, &Tasks::new()).await.err().unwrap().to_string();
    assert!(error.contains("registry is version 99") && error.contains("newer Troupe"), "{error}");
}
