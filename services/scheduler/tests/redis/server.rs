//! The Redis that tests use: one for all of them, with a prefix of its own for each.

use std::time::Duration;
use troupe_scheduler::link::{Link, RedisConfig, RedisUrl};
use troupe_service_kit::Tasks;

/// The address of the Redis for tests.
pub(crate) fn url() -> String {
    std::env::var("TROUPE_TEST_REDIS")
        .expect("TROUPE_TEST_REDIS is not set: these tests need a Redis. Start one with:  eval \"$(scripts/services.sh)\"")
}

/// Settings with a prefix that nobody else has.
pub(crate) fn config(url: &str) -> RedisConfig {
    let prefix = format!("test-{}", uuid::Uuid::now_v7().simple());
    RedisConfig { url: RedisUrl(url.into()), prefix, look: "50ms".into(), ..RedisConfig::default() }
}

/// A connection that is open.
pub(crate) async fn link(config: &RedisConfig, tasks: &Tasks) -> Link {
    let link = Link::start(config.servers().unwrap().unwrap(), config.timeout(), tasks);
    tokio::time::timeout(Duration::from_secs(10), link.ready()).await.expect("redis answers");
    link
}
