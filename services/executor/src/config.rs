//! The settings under `[executor]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use troupe_domain::Fault;
use troupe_engine::Limits;

/// How runs are hosted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// This executor's name among the owners of partitions; empty: one is made up at each start. With a name of its own a restarted
    /// executor takes its former partitions back at once, without waiting for their leases to end. No two executors may have the same.
    pub owner: String,
    /// Where other executors reach this one (`http://host:port`); empty: the address that its process listens on. Where that is every
    /// address of the machine (`0.0.0.0`, `[::]`), which others cannot use, it must be set. In `troupe dev`, where empty stays empty, one
    /// process has the whole journal: a second one on the same database refuses to start.
    pub address: String,
    /// Into how many partitions runs are split. It must not change once there are runs.
    pub partitions: u32,
    /// How long a partition stays ours after the last renewal, in milliseconds. It is renewed three times as often; after a loss its runs
    /// stand still for as long.
    pub lease_ms: u64,
    /// Runs kept in memory, over all partitions. Runs beyond it are loaded again when something happens to them.
    pub hot_runs: usize,
    /// Messages that one commit may carry.
    pub batch_messages: usize,
    /// Bytes of entries after which a batch is committed without waiting for more.
    pub batch_bytes: usize,
    /// Messages that may wait for a partition, or for another executor, before callers wait too.
    pub mailbox: usize,
    /// Effects that may wait for another service; beyond it they are dropped and derived again from the runs' states.
    pub effect_queue: usize,
    /// Runs read at once when a partition is recovered.
    pub recovery_page: u32,
    /// Labels of a run.
    pub max_labels: usize,
    /// Changes of a run that wait for a watcher before it reads them from the journal instead.
    pub watch_buffer: usize,
    /// How long a watcher may take nothing before it is cut off, in milliseconds.
    pub watch_stall_ms: u64,
    /// How long the newest version of a workflow is remembered, in milliseconds. The executor that applies a version tells all others before
    /// it answers, and waits for so long where one of them cannot be told. Only an executor that joins in that moment may know the version
    /// before for so long.
    pub newest_version_ms: u64,
    /// Names of the environment variables that expressions see as `env`. Their values are journaled: never name a secret.
    pub expression_env: Vec<String>,
    /// Bounds of definitions and runs.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            owner: String::new(),
            address: String::new(),
            partitions: 8,
            lease_ms: 5_000,
            hot_runs: 4_096,
            batch_messages: 1_024,
            batch_bytes: 8 << 20,
            mailbox: 4_096,
            effect_queue: 50_000,
            recovery_page: 500,
            max_labels: 32,
            watch_buffer: 256,
            watch_stall_ms: 30_000,
            newest_version_ms: 1_000,
            expression_env: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// Every fault of the settings, each with the path of its key.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut range = |key: &str, value: u64, low: u64, high: u64| {
            if !(low..=high).contains(&value) {
                faults.push(Fault::at(key, format!("is {value}")).help(format!("set it between {low} and {high}")));
            }
        };
        range("partitions", u64::from(self.partitions), 1, 4_096);
        range("lease_ms", self.lease_ms, 300, 600_000);
        // Twice as many runs may be written at once, for timers come on top, and the journal takes 10,000.
        range("batch_messages", self.batch_messages as u64, 1, 5_000);
        range("batch_bytes", self.batch_bytes as u64, 1 << 10, 32 << 20);
        range("mailbox", self.mailbox as u64, 1, 1_000_000);
        range("effect_queue", self.effect_queue as u64, 1_000, 10_000_000);
        range("recovery_page", u64::from(self.recovery_page), 1, 10_000);
        range("max_labels", self.max_labels as u64, 0, 128);
        range("watch_buffer", self.watch_buffer as u64, 1, 100_000);
        range("watch_stall_ms", self.watch_stall_ms, 100, 3_600_000);
        range("newest_version_ms", self.newest_version_ms, 0, 60_000);
        // What passes these would not fit into messages between services, or into a task's id.
        range("limits.max_payload_bytes", self.limits.max_payload_bytes as u64, 1 << 10, 16 << 20);
        range("limits.max_step_depth", self.limits.max_step_depth as u64, 1, 12);
        if self.owner.contains('@') {
            faults.push(Fault::at("owner", format!("'{}' contains '@'", self.owner)).help("name it without its address"));
        }
        if !(self.address.is_empty() || self.address.starts_with("http://") || self.address.starts_with("https://")) {
            faults.push(Fault::at("address", format!("'{}' is no URL", self.address)).help("write it as http://host:port"));
        }
        if is_unspecified(&self.address) {
            let message = format!("'{}' is every address of this machine, and none at which other executors can reach it", self.address);
            faults.push(Fault::at("address", message).help("set executor.address to http://host:port with this machine's name or address"));
        }
        for (i, name) in self.expression_env.iter().enumerate() {
            if name.is_empty() || name.contains('=') {
                faults.push(Fault::at(format!("expression_env.{i}"), format!("'{name}' is not the name of an environment variable")));
            }
        }
        faults
    }
}

/// Whether a URL names no machine, but all interfaces of its own (`http://0.0.0.0:50063`).
fn is_unspecified(url: &str) -> bool {
    let place = url.split_once("://").map_or(url, |(_, place)| place).trim_end_matches('/');
    place.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_are_reported_together() {
        assert!(Config::default().validate().is_empty());
        let config = Config { partitions: 0, lease_ms: 1, expression_env: vec!["A=B".into()], ..Config::default() };
        let paths: Vec<String> = config.validate().into_iter().map(|f| f.path).collect();
        assert_eq!(paths, ["partitions", "lease_ms", "expression_env.0"]);
    }

    #[test]
    fn an_address_that_leads_nowhere_is_refused() {
        let at = |address: &str| Config { address: address.into(), ..Config::default() }.validate();
        for everywhere in ["http://0.0.0.0:50063", "http://[::]:50063", "https://0.0.0.0:50063/"] {
            let faults = at(everywhere);
            assert_eq!((faults.len(), faults[0].path.as_str()), (1, "address"), "{faults:?}");
            assert!(faults[0].message.contains(everywhere) && faults[0].help.contains("executor.address"), "{faults:?}");
        }
        for place in ["", "http://127.0.0.1:50063", "http://10.0.0.1:50063", "http://executor-1:50063", "http://[::1]:50063"] {
            assert_eq!(at(place), [], "{place}");
        }
    }
}
