//! Agents: what the registry says of them, and how busy they are.

use super::ConnId;
use crate::{clock::Millis, limit::Bucket, queue::QueueKey};
use serde::Deserialize;
use std::{collections::BTreeMap, fmt, sync::Arc};
use troupe_domain::parse_rate;
use troupe_proto::registry::v1::{Agent as WireAgent, AgentState};

/// `<namespace>/<name>`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentKey(Arc<str>);

impl AgentKey {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self([namespace, "/", name].concat().into())
    }

    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |parts| parts.0)
    }

    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |parts| parts.1)
    }
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether the registry lets an agent take tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Active,
    /// The state's name and the reason given.
    Out(&'static str, String),
}

/// The part of an agent's definition that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    pub standing: Standing,
    pub capabilities: Vec<String>,
    /// Over all workers of this scheduler; 0: no limit.
    pub concurrency: u32,
    /// As written (`60/m`); empty: no limit.
    pub rate: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    limits: SpecLimits,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SpecLimits {
    concurrency: u32,
    rate: String,
}

impl Definition {
    /// A definition that cannot be read (of a newer registry) limits nothing.
    pub fn of(agent: &WireAgent) -> Self {
        let limits = serde_json::from_slice::<Spec>(&agent.spec).unwrap_or_default().limits;
        let standing = match agent.state() {
            AgentState::Draining => Standing::Out("draining", agent.state_reason.clone()),
            AgentState::Quarantined => Standing::Out("quarantined", agent.state_reason.clone()),
            AgentState::Active | AgentState::Unspecified => Standing::Active,
        };
        Self { standing, capabilities: agent.capabilities.clone(), concurrency: limits.concurrency, rate: limits.rate }
    }
}

/// An agent that workers serve, or that the registry knows, or both.
pub struct Agent {
    pub key: AgentKey,
    pub definition: Option<Definition>,
    /// Workers that serve it, with the capabilities each names.
    pub offers: BTreeMap<ConnId, Vec<String>>,
    /// Tasks on all workers.
    pub active: u32,
    pub bucket: Option<Bucket>,
    /// Its own queue, then those of its capabilities.
    queues: Vec<QueueKey>,
}

impl Agent {
    pub fn new(key: AgentKey) -> Self {
        let own = QueueKey::agent(key.namespace(), key.name());
        Self { key, definition: None, offers: BTreeMap::new(), active: 0, bucket: None, queues: vec![own] }
    }

    pub fn define(&mut self, definition: Option<Definition>, now: Millis) {
        let rate = |definition: &Option<Definition>| definition.as_ref().map(|d| d.rate.clone()).unwrap_or_default();
        let new = rate(&definition);
        if rate(&self.definition) != new {
            self.bucket = parse_rate(&new).ok().map(|(count, period)| Bucket::new(count, troupe_wire::millis(period), now));
        }
        self.definition = definition;
    }

    /// Nobody serves it, it runs nothing, and the registry does not know it.
    pub fn is_idle(&self) -> bool {
        self.definition.is_none() && self.offers.is_empty() && self.active == 0
    }

    /// All queues it takes tasks from.
    pub fn queues(&self) -> &[QueueKey] {
        &self.queues
    }

    pub fn capability_queues(&self) -> &[QueueKey] {
        &self.queues[1..]
    }

    /// Computes its queues anew and answers the capabilities' queues of before.
    pub fn refresh_queues(&mut self) -> Vec<QueueKey> {
        let defined = self.definition.iter().flat_map(|d| d.capabilities.iter());
        let mut names: Vec<&String> = self.offers.values().flatten().chain(defined).collect();
        names.sort_unstable();
        names.dedup();
        let new: Vec<QueueKey> = names.into_iter().map(|name| QueueKey::capability(self.key.namespace(), name)).collect();
        let old = self.queues.split_off(1);
        self.queues.extend(new);
        old
    }

    pub fn standing(&self) -> &Standing {
        self.definition.as_ref().map_or(&Standing::Active, |d| &d.standing)
    }

    /// How many more tasks the agent's own limits let start now.
    pub fn room(&mut self, now: Millis) -> u32 {
        if *self.standing() != Standing::Active {
            return 0;
        }
        let slots = match self.definition.as_ref().map_or(0, |d| d.concurrency) {
            0 => u32::MAX,
            most => most.saturating_sub(self.active),
        };
        self.bucket.as_mut().map_or(slots, |bucket| slots.min(bucket.available(now)))
    }

    /// When its rate lets the next task start, if that is what it waits for.
    pub fn next_token(&mut self, now: Millis) -> Option<Millis> {
        let at = self.bucket.as_mut()?.next_at(now);
        (at > now).then_some(at)
    }

    pub fn start(&mut self, now: Millis) {
        self.active += 1;
        if let Some(bucket) = &mut self.bucket {
            bucket.take(now);
        }
    }
}
