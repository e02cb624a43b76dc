//! The service's settings.

use crate::model::{Micros, Retention};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use troupe_domain::Fault;
pub use troupe_postgres::Config as PostgresConfig;

/// Settings of the checkpoint service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Days that an ended run is kept; 0: for ever. Default 30.
    pub retention_days: u32,
    /// Ended runs kept of each workflow in each namespace; 0: all. Default 100000.
    pub retention_runs: u64,
    /// Seconds between two removals of what retention no longer keeps; 0: only when asked. Default 600.
    pub prune_interval_seconds: u64,
    /// Snapshots kept of an ended run; the older ones go when it ends. At least 1. Default 3.
    pub snapshots_kept: u32,
    /// Connections that read at the same time, 1 to 64 (SQLite). Default 2.
    pub readers: u32,
    /// Page cache of the writer, KiB (SQLite). Default 6144.
    pub writer_cache_kib: u32,
    /// Page cache of each reader, KiB (SQLite). Default 2048.
    pub reader_cache_kib: u32,
    /// Size of the write-ahead log, KiB, at which its pages are moved into the database file (SQLite). Default 16384.
    pub wal_kib: u32,
    /// Bytes of the database file that readers map into memory, KiB (SQLite). 0: none, which is the default: a disk that fails under
    /// a mapped page ends the process, while a failed read is only an error.
    pub mmap_kib: u32,
    /// A database in which several replicas of the service keep the journal together.
    pub postgres: PostgresConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            retention_days: 30,
            retention_runs: 100_000,
            prune_interval_seconds: 600,
            snapshots_kept: 3,
            readers: 2,
            writer_cache_kib: 6144,
            reader_cache_kib: 2048,
            wal_kib: 16_384,
            mmap_kib: 0,
            postgres: PostgresConfig::default(),
        }
    }
}

impl Config {
    /// Every mistake in the settings.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut check = |fits: bool, path: &str, text: &str| {
            if !fits {
                faults.push(Fault::at(path, text));
            }
        };
        check(self.snapshots_kept >= 1, "snapshots_kept", "must be at least 1");
        check((1..=64).contains(&self.readers), "readers", "must be 1 to 64");
        check(self.retention_days <= 36_500, "retention_days", "must be at most 36500; 0 keeps runs for ever");
        check((256..=4_194_304).contains(&self.wal_kib), "wal_kib", "must be 256 to 4194304");
        check((64..=4_194_304).contains(&self.writer_cache_kib), "writer_cache_kib", "must be 64 to 4194304");
        check((64..=4_194_304).contains(&self.reader_cache_kib), "reader_cache_kib", "must be 64 to 4194304");
        faults.extend(self.postgres.validate());
        faults
    }

    /// What the settings let go at this moment.
    pub fn retention(&self, now: Micros) -> Retention {
        const DAY: i64 = 86_400_000_000;
        Retention {
            ended_before: (self.retention_days > 0).then(|| Micros(now.0 - i64::from(self.retention_days) * DAY)),
            keep: (self.retention_runs > 0).then_some(self.retention_runs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_reported_together() {
        assert!(Config::default().validate().is_empty());
        let config = Config { readers: 0, snapshots_kept: 0, ..Config::default() };
        let paths: Vec<_> = config.validate().into_iter().map(|fault| fault.path).collect();
        assert_eq!(paths, ["snapshots_kept", "readers"]);
    }

    #[test]
    fn zero_means_no_limit() {
        let config = Config { retention_days: 0, retention_runs: 0, ..Config::default() };
        assert_eq!(config.retention(Micros(5)), Retention::default());
        let day = Config { retention_days: 1, ..Config::default() };
        assert_eq!(day.retention(Micros(86_400_000_001)).ended_before, Some(Micros(1)));
    }

    #[test]
    fn unknown_settings_are_refused() {
        assert!(serde_json::from_str::<Config>(r#"{"retention":1}"#).is_err());
    }
}
