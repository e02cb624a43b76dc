//! The section `postgres` of a service's settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use troupe_domain::Fault;

/// A database of PostgreSQL 14 or newer, in which several replicas of the service keep their state together.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `postgres://user:password@host:port/database?sslmode=verify-full`. Empty, the default: the state is in a file.
    pub url: String,
    /// Connections of this process, more than `writers`, at most 1000; the checkpoint service has two more, for leases. Default 8.
    pub connections: u32,
    /// Transactions of this process that may commit at the same time, 1 to 64; the registry writes one at a time. Default 4.
    pub writers: u32,
    /// Seconds after which a statement that has no answer is given up. Default 30.
    pub timeout_seconds: u64,
    /// The database is behind a pooler, like PgBouncer: a connection begins without options, which poolers refuse, and nothing, no
    /// prepared statement either, outlives a transaction. Costs two to four more messages for each statement. Default false.
    pub pooler: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { url: String::new(), connections: 8, writers: 4, timeout_seconds: 30, pooler: false }
    }
}

/// Without the address: it has a password in it.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, writers, timeout_seconds, pooler, .. } = self;
        let mut shown = f.debug_struct("PostgresConfig");
        shown.field("connections", connections).field("writers", writers);
        shown.field("timeout_seconds", timeout_seconds).field("pooler", pooler).finish_non_exhaustive()
    }
}

impl Config {
    /// Every mistake, with the path inside the service's section.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut check = |fits: bool, path: &str, text: &str| {
            if !fits {
                faults.push(Fault::at(path, text));
            }
        };
        let Self { url, connections, writers, timeout_seconds, .. } = self;
        let is_address = url.is_empty() || url.starts_with("postgres://") || url.starts_with("postgresql://");
        check(is_address, "postgres.url", "must begin with postgres://");
        check((1..=64).contains(writers), "postgres.writers", "must be 1 to 64");
        check(connections > writers && *connections <= 1000, "postgres.connections", "must be more than postgres.writers, at most 1000");
        check((1..=3600).contains(timeout_seconds), "postgres.timeout_seconds", "must be 1 to 3600");
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_needs_an_address_and_connections_for_readers() {
        assert!(Config::default().validate().is_empty());
        let config = Config { url: "mysql://me:hunter2@host".into(), writers: 8, ..Config::default() };
        let paths: Vec<_> = config.validate().into_iter().map(|fault| fault.path).collect();
        assert_eq!(paths, ["postgres.url", "postgres.connections"]);
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
