//! The section `[registry]` of the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use troupe_domain::Fault;

/// Settings of the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bytes of an agent file.
    pub max_source_bytes: usize,
    /// Agents with a definition in one namespace.
    pub max_agents_per_namespace: usize,
    /// Versions kept of one agent; the oldest go first, the active one stays.
    pub max_versions_per_agent: usize,
    /// Workers' agents in one scheduler's report.
    pub max_instances_per_report: usize,
    /// Changes that a slow watcher may be behind before it is sent away to begin again.
    pub watch_buffer: usize,
    /// Watchers at once.
    pub max_watchers: usize,
    /// Milliseconds between two looks for what other replicas changed (PostgreSQL). Reads look by themselves.
    pub refresh_ms: u64,
    /// Milliseconds after which the workers that were reported to a replica are forgotten when that replica is gone (PostgreSQL).
    pub instance_life_ms: u64,
    /// A database in which several replicas of the service keep the agents together.
    pub postgres: troupe_postgres::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_source_bytes: 1 << 20,
            max_agents_per_namespace: 10_000,
            max_versions_per_agent: 1_000,
            max_instances_per_report: 100_000,
            watch_buffer: 4_096,
            max_watchers: 1_000,
            refresh_ms: 200,
            instance_life_ms: 10_000,
            postgres: troupe_postgres::Config::default(),
        }
    }
}

impl Config {
    /// All mistakes at once; none: the settings can be used.
    pub fn validate(&self) -> Vec<Fault> {
        let positive = [
            ("registry.max_source_bytes", self.max_source_bytes),
            ("registry.max_agents_per_namespace", self.max_agents_per_namespace),
            ("registry.max_versions_per_agent", self.max_versions_per_agent),
            ("registry.max_instances_per_report", self.max_instances_per_report),
            ("registry.watch_buffer", self.watch_buffer),
            ("registry.max_watchers", self.max_watchers),
        ];
        let mut faults: Vec<Fault> =
            positive.iter().filter(|(_, n)| *n == 0).map(|(path, _)| Fault::at(*path, "must be at least 1")).collect();
        if self.watch_buffer > 1 << 20 {
            faults.push(Fault::at("registry.watch_buffer", "is more than 1048576").help("every change takes a slot from the start"));
        }
        let millis = [("registry.refresh_ms", self.refresh_ms, 10), ("registry.instance_life_ms", self.instance_life_ms, 500)];
        let wrong = millis.iter().filter(|(_, given, least)| !(*least..=600_000).contains(given));
        faults.extend(wrong.map(|(path, _, least)| Fault::at(*path, format!("must be {least} to 600000"))));
        faults.extend(self.postgres.validate().into_iter().map(|fault| Fault { path: format!("registry.{}", fault.path), ..fault }));
        faults
    }

    pub(crate) fn refresh(&self) -> Duration {
        Duration::from_millis(self.refresh_ms)
    }

    pub(crate) fn instance_life(&self) -> Duration {
        Duration::from_millis(self.instance_life_ms)
    }

    /// How often a report is held up: two may fail.
    pub(crate) fn renewal(&self) -> Duration {
        self.instance_life() / 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_mistakes_are_told_together() {
        assert!(Config::default().validate().is_empty());
        let bad = Config { max_watchers: 0, watch_buffer: usize::MAX, ..Config::default() };
        assert_eq!(bad.validate().len(), 2);
    }
}
