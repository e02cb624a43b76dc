//! Settings of the scheduler.

use crate::{
    bus::BusSettings,
    clock::Millis,
    link::RedisConfig,
    queue::{QueueSettings, RedisQueueSettings},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use troupe_domain::{Fault, parse_span};

/// Settings of the scheduler. Durations are written like `30s`, `10m`, `1h30m`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A task without a sign of progress (progress, chunk, record) for this long is given to another worker.
    pub lease: String,
    /// Deliveries of one attempt before it is reported as lost.
    pub max_deliveries: u32,
    /// How long one delivery may take where the task says nothing.
    pub default_timeout: String,
    /// Waiting this long is worth one level of priority.
    pub aging: String,
    /// How long a cancelled task may keep its slot while the worker stops it.
    pub stop_grace: String,
    /// How long a drain waits for running tasks.
    pub drain: String,
    /// Tasks held in all: waiting, delayed, running, and with results on their way.
    pub max_tasks: u32,
    /// Tasks held of one namespace.
    pub max_namespace_tasks: u32,
    /// Workers connected at once.
    pub max_workers: u32,
    /// The most slots one worker may offer.
    pub max_slots: u32,
    /// The most agents and tools one worker may serve.
    pub max_served: u32,
    /// Results and records on their way to the executor before no more tasks are assigned.
    pub max_unreported: u32,
    /// Results and records in one message to the executor.
    pub report_batch: u32,
    /// Chunks a second of one task; more are dropped.
    pub chunk_rate: u32,
    /// Chunks waiting to be published; the oldest are dropped.
    pub chunk_queue: u32,
    pub bus: BusConfig,
    pub redis: RedisConfig,
}

/// The event bus's memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BusConfig {
    /// Events kept in one topic.
    pub events: u32,
    /// How long an event is kept.
    pub age: String,
    /// Topics that keep events.
    pub topics: u32,
    /// Mebibytes kept in one topic.
    pub topic_mib: u32,
    /// Mebibytes kept in all.
    pub mib: u32,
    /// Events waiting for one subscriber before its stream ends with LAGGED.
    pub subscriber_queue: u32,
    /// Subscribers at once.
    pub subscribers: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease: "30s".into(),
            max_deliveries: 5,
            default_timeout: "10m".into(),
            aging: "30s".into(),
            stop_grace: "5s".into(),
            drain: "20s".into(),
            max_tasks: 1_000_000,
            max_namespace_tasks: 500_000,
            max_workers: 10_000,
            max_slots: 10_000,
            max_served: 1_000,
            max_unreported: 20_000,
            report_batch: 512,
            chunk_rate: 200,
            chunk_queue: 10_000,
            bus: BusConfig::default(),
            redis: RedisConfig::default(),
        }
    }
}

impl Default for BusConfig {
    fn default() -> Self {
        Self { events: 1_024, age: "5m".into(), topics: 10_000, topic_mib: 4, mib: 256, subscriber_queue: 1_024, subscribers: 10_000 }
    }
}

/// A duration field that [`Config::validate`] has found good; zero otherwise.
fn span(text: &str) -> Duration {
    parse_span(text).unwrap_or_default()
}

fn ms(text: &str) -> Millis {
    troupe_wire::millis(span(text))
}

fn mebibytes(n: u32) -> usize {
    (n as usize).saturating_mul(1 << 20)
}

impl Config {
    /// All faults at once; empty: good.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let spans = [
            ("lease", &self.lease, 100),
            ("default_timeout", &self.default_timeout, 1),
            ("aging", &self.aging, 1),
            ("stop_grace", &self.stop_grace, 0),
            ("drain", &self.drain, 0),
            ("bus.age", &self.bus.age, 1),
        ];
        for (path, text, least) in spans {
            match parse_span(text) {
                Err(message) => faults.push(Fault::at(path, message)),
                Ok(span) if troupe_wire::millis(span) < least => {
                    faults.push(Fault::at(path, format!("'{text}' is too short: at least {least}ms")));
                }
                Ok(_) => {}
            }
        }
        let counts = [
            ("max_deliveries", self.max_deliveries),
            ("max_tasks", self.max_tasks),
            ("max_namespace_tasks", self.max_namespace_tasks),
            ("max_workers", self.max_workers),
            ("max_slots", self.max_slots),
            ("max_served", self.max_served),
            ("max_unreported", self.max_unreported),
            ("report_batch", self.report_batch),
            ("chunk_rate", self.chunk_rate),
            ("chunk_queue", self.chunk_queue),
            ("bus.events", self.bus.events),
            ("bus.topics", self.bus.topics),
            ("bus.topic_mib", self.bus.topic_mib),
            ("bus.mib", self.bus.mib),
            ("bus.subscriber_queue", self.bus.subscriber_queue),
            ("bus.subscribers", self.bus.subscribers),
        ];
        faults.extend(counts.iter().filter(|(_, n)| *n == 0).map(|(path, _)| Fault::at(*path, "must be at least 1")));
        faults.extend(self.redis.validate());
        faults
    }

    pub fn queue(&self) -> QueueSettings {
        QueueSettings {
            lease: self.lease_ms(),
            aging: ms(&self.aging).max(1),
            max_deliveries: self.max_deliveries,
            max_tasks: self.max_tasks as usize,
            max_namespace_tasks: self.max_namespace_tasks as usize,
        }
    }

    pub fn redis_queue(&self) -> RedisQueueSettings {
        RedisQueueSettings { queue: self.queue(), prefix: self.redis.prefix.clone(), look: self.redis.look() }
    }

    pub fn bus(&self) -> BusSettings {
        BusSettings {
            events: self.bus.events as usize,
            topic_bytes: mebibytes(self.bus.topic_mib),
            age: ms(&self.bus.age),
            topics: self.bus.topics as usize,
            bytes: mebibytes(self.bus.mib),
            subscriber_queue: self.bus.subscriber_queue as usize,
            subscribers: self.bus.subscribers as usize,
        }
    }

    pub fn lease_ms(&self) -> Millis {
        ms(&self.lease).max(1)
    }

    pub fn default_timeout_ms(&self) -> Millis {
        ms(&self.default_timeout).max(1)
    }

    pub fn stop_grace_ms(&self) -> Millis {
        ms(&self.stop_grace)
    }

    pub fn drain_limit(&self) -> Duration {
        span(&self.drain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_good() {
        assert_eq!(Config::default().validate(), Vec::new());
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let config = Config { lease: "5".into(), aging: "0s".into(), max_tasks: 0, ..Config::default() };
        let paths: Vec<String> = config.validate().into_iter().map(|fault| fault.path).collect();
        assert_eq!(paths, ["lease", "aging", "max_tasks"]);
    }
}
