//! What every store promises; each test runs on all of them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../crates/postgres/tests/support/database.rs"]
mod database;

use chrono::{TimeZone, Utc};
use database::{Database, SERVER};
use troupe_domain::{Json, sha256_hex};
use troupe_postgres::Config;
use troupe_registry::{
    agent::{Active, Definition, Key, Standing, State, Time},
    store::{Put, Store, memory::MemoryStore, postgres::PostgresStore, sqlite::SqliteStore},
};

fn at(seconds: i64) -> Time {
    Utc.timestamp_opt(1_800_000_000 + seconds, 0).unwrap()
}

fn key(namespace: &str, name: &str) -> Key {
    Key { namespace: namespace.into(), name: name.into() }
}

fn definition(name: &str, version: &str, content: &str) -> Definition {
    Definition {
        key: key("team", name),
        version: version.into(),
        hash: sha256_hex(content),
        kind: "llm".into(),
        capabilities: vec!["b".into(), "a".into()],
        spec: Json::parse(format!(r#"{{"agent":"{name}","text":"{content}"}}"#).as_bytes(), "spec").unwrap(),
        source: format!("agent: {name} # {content}"),
    }
}

async fn put(store: &dyn Store, definition: Definition, seconds: i64) -> Put {
    store.put(definition, at(seconds), 100).await.unwrap()
}

fn stored(definition: &Definition, created: bool, created_at: i64, updated_at: i64) -> Put {
    let definition = Definition { source: String::new(), ..definition.clone() };
    Put::Stored { created, active: Box::new(Active { definition, created_at: at(created_at), updated_at: at(updated_at) }) }
}

async fn versions_are_kept_and_the_last_applied_is_active(store: &dyn Store) {
    let (one, two) = (definition("a", "1", "x"), definition("a", "2", "y"));
    assert_eq!(put(store, one.clone(), 1).await, stored(&one, true, 1, 1));
    assert_eq!(put(store, two.clone(), 2).await, stored(&two, true, 1, 2));
    assert_eq!(put(store, two.clone(), 3).await, stored(&two, false, 1, 2), "nothing new");
    assert_eq!(put(store, one.clone(), 4).await, stored(&one, false, 1, 4), "back to an old version");
    assert_eq!(store.version(key("team", "a"), "1".into()).await.unwrap(), Some(one.clone()));
    assert_eq!(store.version(key("team", "a"), "2".into()).await.unwrap(), Some(two));
    assert_eq!(store.version(key("team", "a"), "3".into()).await.unwrap(), None);
    assert_eq!(store.version(key("other", "a"), "1".into()).await.unwrap(), None);
    let (active, _) = store.load().await.unwrap();
    assert_eq!(active.len(), 1);
    assert_eq!((active[0].definition.version.as_str(), active[0].definition.source.as_str()), ("1", ""));
    store.check().await.unwrap();
}

async fn a_version_never_changes(store: &dyn Store) {
    let one = definition("a", "1", "x");
    put(store, one.clone(), 1).await;
    assert_eq!(put(store, definition("a", "1", "other"), 2).await, Put::Conflict);
    assert_eq!(store.version(key("team", "a"), "1".into()).await.unwrap(), Some(one));
    assert!(matches!(put(store, definition("b", "1", "other"), 2).await, Put::Stored { created: true, .. }));
}

async fn the_oldest_versions_make_room(store: &dyn Store) {
    for n in 1..=3 {
        put(store, definition("a", &n.to_string(), &n.to_string()), n).await;
    }
    put(store, definition("a", "1", "1"), 4).await;
    store.put(definition("a", "4", "4"), at(5), 3).await.unwrap();
    store.put(definition("b", "1", "1"), at(5), 3).await.unwrap();
    let mut kept = Vec::new();
    for n in 1..=4 {
        kept.push(store.version(key("team", "a"), n.to_string()).await.unwrap().is_some());
    }
    assert_eq!(kept, [false, true, true, true]);
    store.put(definition("a", "2", "2"), at(6), 1).await.unwrap();
    assert!(store.version(key("team", "a"), "2".into()).await.unwrap().is_some(), "the active one stays");
    assert!(store.version(key("team", "a"), "4".into()).await.unwrap().is_none());
    assert!(store.version(key("team", "b"), "1".into()).await.unwrap().is_some());
}

async fn standings_need_no_definition(store: &dyn Store) {
    let standing = |state, seconds| Standing { state, reason: "why".into(), updated_at: at(seconds) };
    store.set_standing(key("team", "a"), standing(State::Quarantined, 1)).await.unwrap();
    store.set_standing(key("team", "a"), standing(State::Draining, 2)).await.unwrap();
    let (active, standings) = store.load().await.unwrap();
    assert!(active.is_empty());
    assert_eq!(standings, [(key("team", "a"), standing(State::Draining, 2))]);
    assert!(store.delete(key("team", "a")).await.unwrap());
    assert!(!store.delete(key("team", "a")).await.unwrap());
}

async fn deleting_takes_all_versions_and_nothing_else(store: &dyn Store) {
    for (name, version) in [("a", "1"), ("a", "2"), ("b", "1")] {
        put(store, definition(name, version, version), 1).await;
    }
    assert!(!store.delete(key("other", "a")).await.unwrap());
    assert!(store.delete(key("team", "a")).await.unwrap());
    assert_eq!(store.version(key("team", "a"), "1".into()).await.unwrap(), None);
    let (active, _) = store.load().await.unwrap();
    assert_eq!(active.iter().map(|a| a.definition.key.name.as_str()).collect::<Vec<_>>(), ["b"]);
    let new = definition("a", "1", "a new life");
    assert_eq!(put(store, new.clone(), 9).await, stored(&new, true, 9, 9));
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
                super::$test(&SqliteStore::open(dir.path().join("registry.db")).await.unwrap()).await;
            })+
        }
        mod postgres {
            use super::*;
            $(#[tokio::test]
            async fn $test() {
                let database = Database::new().await;
                let config = Config { url: database.url(SERVER), ..Config::default() };
                super::$test(&PostgresStore::open(&config).await.unwrap()).await;
            })+
        }
        /// The same through a pooler that gives each transaction any of its connections.
        mod pooled {
            use super::*;
            $(#[tokio::test]
            async fn $test() {
                let database = Database::new().await;
                let config = Config { url: database.url("TROUPE_TEST_PGBOUNCER"), pooler: true, ..Config::default() };
                super::$test(&PostgresStore::open(&config).await.unwrap()).await;
            })+
        }
    };
}

contract! {
    versions_are_kept_and_the_last_applied_is_active,
    a_version_never_changes,
    the_oldest_versions_make_room,
    standings_need_no_definition,
    deleting_takes_all_versions_and_nothing_else,
}
