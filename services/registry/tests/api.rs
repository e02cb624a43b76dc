//! The service through its gRPC interface.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../crates/postgres/tests/support/database.rs"]
mod database;
#[path = "api/host.rs"]
mod host;
#[path = "api/instances.rs"]
mod instances;
#[path = "api/replicas.rs"]
mod replicas;

use host::{file, host, host_on};
use std::time::Duration;
use troupe_domain::Code;
use troupe_proto::{common::v1::Page, registry::v1 as wire};
use troupe_registry::{Backend, Config};
use troupe_wire::from_status;

#[tokio::test]
async fn an_applied_agent_can_be_had_with_all_its_versions() {
    let mut host = host().await;
    let one = host.apply(file("a", "1", "first")).await.unwrap();
    assert!(one.created);
    let two = host.apply(file("a", "2", "second")).await.unwrap().agent.unwrap();
    assert_eq!((two.version.as_str(), two.kind.as_str(), two.state()), ("2", "worker", wire::AgentState::Active));
    assert_eq!(two.source, file("a", "2", "second"));
    assert_ne!(two.hash, one.agent.unwrap().hash);

    let active = host.get("a", "").await.unwrap();
    assert_eq!(active, two);
    let old = host.get("a", "1").await.unwrap();
    assert_eq!((old.version.as_str(), old.source), ("1", file("a", "1", "first")));
    assert_eq!(host.get("a", "3").await.unwrap_err().code, Code::NotFound);

    let again = host.apply(file("a", "2", "second")).await.unwrap();
    assert!(!again.created);
    assert_eq!(again.agent.unwrap(), two);
    let back = host.apply(file("a", "1", "first")).await.unwrap();
    assert_eq!((back.created, host.get("a", "").await.unwrap().version.as_str()), (false, "1"));
}

#[tokio::test]
async fn a_version_never_changes() {
    let mut host = host().await;
    host.apply(file("a", "1", "first")).await.unwrap();
    let error = host.apply(file("a", "1", "changed")).await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::Conflict, "VERSION_EXISTS"));
    assert!(error.help.contains("raise `version`"), "{}", error.help);
    let one = host.apply(file("b", "", "first")).await.unwrap().agent.unwrap();
    let two = host.apply(file("b", "", "second")).await.unwrap().agent.unwrap();
    assert!(one.version.starts_with("0.0.0-") && one.version != two.version);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_leaves_no_trace() {
    let mut host = host().await;
    let dry = |source| wire::ApplyAgentRequest { namespace: "team".into(), source, dry_run: true };
    let answer = host.client.apply_agent(dry(file("a", "1", "x"))).await.unwrap().into_inner();
    assert!(answer.created);
    assert_eq!(answer.agent.unwrap().version, "1");
    assert_eq!(host.get("a", "").await.unwrap_err().code, Code::NotFound);
    host.apply(file("a", "1", "x")).await.unwrap();
    assert!(!host.client.apply_agent(dry(file("a", "1", "x"))).await.unwrap().into_inner().created);
    let status = host.client.apply_agent(dry(file("a", "1", "y"))).await.unwrap_err();
    assert_eq!(from_status(&status).code, Code::Conflict);
}

#[tokio::test]
async fn bad_calls_are_told_what_is_wrong() {
    let config = Config { max_agents_per_namespace: 2, max_source_bytes: 500, ..Config::default() };
    let mut host = host_on(config, Backend::Memory).await;
    let error = host.apply("agent: a\nkind: nonsense\n".into()).await.unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(!error.faults.is_empty());
    assert_eq!(host.apply(file("a", "1", &"x".repeat(500))).await.unwrap_err().code, Code::PayloadTooLarge);
    host.apply(file("a", "1", "x")).await.unwrap();
    host.apply(file("b", "1", "x")).await.unwrap();
    assert_eq!(host.apply(file("c", "1", "x")).await.unwrap_err().code, Code::ResourceExhausted);
    host.apply(file("b", "2", "x")).await.unwrap();
    assert_eq!(host.get("no name", "").await.unwrap_err().code, Code::InvalidArgument);
    assert_eq!(host.set_state("a", wire::AgentState::Unspecified).await.unwrap_err().code, Code::InvalidArgument);
    for missing in ["x", "y"] {
        assert_eq!(host.delete(missing).await.unwrap_err().code, Code::NotFound);
        assert_eq!(host.set_state(missing, wire::AgentState::Draining).await.unwrap_err().code, Code::NotFound);
    }
    let other = wire::GetAgentRequest { namespace: "other".into(), name: "a".into(), version: String::new() };
    assert_eq!(host.client.get_agent(other).await.unwrap_err().code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn lists_have_pages_and_a_filter() {
    let mut host = host().await;
    for name in ["c", "a", "b"] {
        host.apply(file(name, "1", "x")).await.unwrap();
    }
    let mut list = async |limit, cursor: &str, capability: &str| {
        let page = Some(Page { limit, cursor: cursor.into() });
        let request = wire::ListAgentsRequest { namespace: "team".into(), page, capability: capability.into() };
        let listed = host.client.list_agents(request).await.unwrap().into_inner();
        (listed.agents.into_iter().map(|a| a.name).collect::<Vec<_>>(), listed.next_cursor)
    };
    assert_eq!(list(2, "", "").await, (vec!["a".into(), "b".into()], "b".into()));
    assert_eq!(list(2, "b", "").await, (vec!["c".into()], String::new()));
    assert_eq!(list(0, "", "analysis").await.0.len(), 3);
    assert_eq!(list(1, "", "b-skill").await, (vec!["b".into()], String::new()));
}

#[tokio::test]
async fn states_definitions_and_versions_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::Sqlite(dir.path().join("registry.db"));
    let mut host = host_on(Config::default(), backend.clone()).await;
    host.apply(file("a", "1", "x")).await.unwrap();
    host.apply(file("a", "2", "y")).await.unwrap();
    let drained = host.set_state("a", wire::AgentState::Draining).await.unwrap();
    assert_eq!((drained.state(), drained.state_reason.as_str()), (wire::AgentState::Draining, "because"));
    host.apply(file("gone", "1", "x")).await.unwrap();
    host.delete("gone").await.unwrap();
    let before = host.get("a", "").await.unwrap();
    assert!(host.tasks.stop(Duration::from_secs(20)).await);

    let mut host = host_on(Config::default(), backend).await;
    // The file keeps microseconds.
    let mut after = host.get("a", "").await.unwrap();
    (after.created_at, after.updated_at) = (before.created_at, before.updated_at);
    assert_eq!(after, before);
    assert_eq!(host.get("a", "1").await.unwrap().source, file("a", "1", "x"));
    assert_eq!(host.get("gone", "").await.unwrap_err().code, Code::NotFound);
    let active = host.set_state("a", wire::AgentState::Active).await.unwrap();
    assert_eq!(active.state(), wire::AgentState::Active);
    assert!(host.service.health().await.iter().all(|d| d.ok));
}

#[tokio::test]
async fn a_watcher_gets_what_is_there_and_then_each_change() {
    let mut host = host().await;
    host.apply(file("a", "1", "x")).await.unwrap();
    let mut watch = host.watch("team").await;
    let mut elsewhere = host.watch("other").await;
    let mut all = host.watch("*").await;
    assert_eq!(watch.told().await, ("upsert".into(), "a".into()));
    assert_eq!(watch.told().await.0, "synced");
    host.apply(file("b", "1", "x")).await.unwrap();
    host.apply(file("b", "1", "x")).await.unwrap();
    host.set_state("a", wire::AgentState::Quarantined).await.unwrap();
    host.delete("b").await.unwrap();
    for expected in [("upsert", "b"), ("upsert", "a"), ("delete", "b")] {
        assert_eq!(watch.told().await, (expected.0.to_owned(), expected.1.to_owned()));
    }
    assert_eq!(all.until("a", |a| a.state() == wire::AgentState::Quarantined).await.namespace, "team");
    assert_eq!(elsewhere.told().await.0, "synced");
    host.service.drain().await;
    assert_eq!(elsewhere.next().await.unwrap_err().code(), tonic::Code::Unavailable, "it saw nothing of the other namespace");
    assert_eq!(host.apply(file("c", "1", "x")).await.unwrap_err().code, Code::Unavailable);
}

#[tokio::test]
async fn a_watcher_that_is_too_slow_begins_again() {
    let mut host = host_on(Config { watch_buffer: 2, max_watchers: 1, ..Config::default() }, Backend::Memory).await;
    let mut watch = host.watch("team").await;
    assert_eq!(watch.told().await.0, "synced");
    let second = wire::WatchAgentsRequest { namespace: "team".into() };
    assert_eq!(host.client.watch_agents(second).await.unwrap_err().code(), tonic::Code::ResourceExhausted);
    for n in 0..5 {
        host.apply(file("a", "", &format!("change {n}"))).await.unwrap();
    }
    let status = watch.next().await.unwrap_err();
    assert_eq!((status.code(), from_status(&status).reason.as_str()), (tonic::Code::Unavailable, "LAGGED"));
    drop(watch);
    assert_eq!(host.watch("team").await.told().await, ("upsert".into(), "a".into()));
}
