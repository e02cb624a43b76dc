//! The section `[registry]` of the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
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
        faults
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
