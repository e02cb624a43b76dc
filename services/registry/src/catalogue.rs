//! All agents of the moment, in memory: definitions in force, standings, and who is connected. Every change is told to the watchers in order.

use crate::{
    agent::{Active, Key, Standing, State},
    instances::{Served, ServedBy},
    metrics as names,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::broadcast;
use troupe_proto::registry::v1 as wire;
use troupe_wire::timestamp;

/// A change as watchers get it.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) namespace: String,
    pub(crate) message: Arc<wire::WatchAgentsResponse>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Catalogue {
    known: Mutex<Known>,
    changes: broadcast::Sender<Change>,
}

#[derive(Debug, Default)]
struct Known {
    defined: BTreeMap<Key, Active>,
    standings: HashMap<Key, Standing>,
    served: BTreeMap<Key, BTreeMap<ServedBy, Served>>,
    /// What each scheduler reported last, and on which of its streams.
    reports: HashMap<String, Report>,
}

#[derive(Debug, Default)]
struct Report {
    stream: u64,
    served: HashMap<(Key, String), Served>,
}

/// Another stream of the same scheduler has taken over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Superseded;

impl Catalogue {
    /// `buffer`: how many changes a watcher may be behind.
    pub(crate) fn new(buffer: usize, active: Vec<Active>, standings: Vec<(Key, Standing)>) -> Self {
        let defined: BTreeMap<_, _> = active.into_iter().map(|a| (a.definition.key.clone(), a)).collect();
        let known = Known { defined, standings: standings.into_iter().collect(), ..Known::default() };
        known.measure();
        Self { known: Mutex::new(known), changes: broadcast::Sender::new(buffer) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // A panicking holder leaves consistent maps behind: every change below is made by infallible steps.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<wire::Agent> {
        self.known().agent(key)
    }

    pub(crate) fn active(&self, key: &Key) -> Option<Active> {
        self.known().defined.get(key).cloned()
    }

    pub(crate) fn standing(&self, key: &Key) -> Option<Standing> {
        self.known().standings.get(key).cloned()
    }

    /// Agents of a namespace that have a definition.
    pub(crate) fn count_defined(&self, namespace: &str) -> usize {
        self.known().defined.range(first(namespace, "")..).take_while(|(key, _)| key.namespace == namespace).count()
    }

    /// Agents by name, after `cursor`, at most `limit`; and whether there are more.
    pub(crate) fn page(&self, namespace: &str, cursor: &str, limit: usize, capability: &str) -> (Vec<wire::Agent>, bool) {
        let known = self.known();
        let mut agents = Vec::new();
        for key in known.names(namespace).into_iter().filter(|key| key.name.as_str() > cursor) {
            let Some(agent) = known.agent(key) else { continue };
            if !capability.is_empty() && !agent.capabilities.iter().any(|c| c == capability) {
                continue;
            }
            if agents.len() == limit {
                return (agents, true);
            }
            agents.push(agent);
        }
        (agents, false)
    }

    /// All agents now (of all namespaces for `*`), and every change from now on.
    pub(crate) fn watch(&self, namespace: &str) -> (Vec<wire::Agent>, broadcast::Receiver<Change>) {
        let known = self.known();
        let changes = self.changes.subscribe();
        let names = if namespace == "*" { known.all_names() } else { known.names(namespace) };
        (names.into_iter().filter_map(|key| known.agent(key)).collect(), changes)
    }

    pub(crate) fn watchers(&self) -> usize {
        self.changes.receiver_count()
    }

    /// Puts a definition in force.
    pub(crate) fn define(&self, active: Active) {
        let mut known = self.known();
        let key = active.definition.key.clone();
        let before = known.defined.insert(key.clone(), active);
        if before.as_ref() != known.defined.get(&key) {
            self.tell(&known, &key);
        }
    }

    /// How an agent is now, as other replicas left it.
    pub(crate) fn set(&self, key: &Key, active: Option<Active>, standing: Option<Standing>) {
        let mut known = self.known();
        let before = match active {
            Some(active) => known.defined.insert(key.clone(), active),
            None => known.defined.remove(key),
        };
        let stood = match standing {
            Some(standing) => known.standings.insert(key.clone(), standing),
            None => known.standings.remove(key),
        };
        if before.as_ref() != known.defined.get(key) || stood.as_ref() != known.standings.get(key) {
            self.tell(&known, key);
        }
    }

    /// Agents that have a definition or a standing.
    pub(crate) fn keys(&self) -> BTreeSet<Key> {
        let known = self.known();
        known.defined.keys().chain(known.standings.keys()).cloned().collect()
    }

    /// Schedulers that have reported.
    pub(crate) fn schedulers(&self) -> BTreeSet<String> {
        self.known().reports.keys().cloned().collect()
    }

    /// Drops definition and standing. Who is still served goes on as a dynamic agent.
    pub(crate) fn undefine(&self, key: &Key) {
        let mut known = self.known();
        known.defined.remove(key);
        known.standings.remove(key);
        self.tell(&known, key);
    }

    pub(crate) fn set_standing(&self, key: &Key, standing: Standing) {
        let mut known = self.known();
        known.standings.insert(key.clone(), standing);
        self.tell(&known, key);
    }

    /// Replaces what a scheduler reported. Streams have growing numbers: an older one has nothing more to say.
    pub(crate) fn report(&self, scheduler: &str, stream: u64, served: HashMap<(Key, String), Served>) -> Result<(), Superseded> {
        let mut known = self.known();
        let report = known.reports.entry(scheduler.to_owned()).or_default();
        if stream < report.stream {
            return Err(Superseded);
        }
        report.stream = stream;
        let before = std::mem::replace(&mut report.served, served.clone());
        let gone = before.keys().filter(|at| !served.contains_key(at)).cloned().map(|at| (at, None));
        let new = served.iter().filter(|(at, now)| before.get(at) != Some(now)).map(|(at, now)| (at.clone(), Some(now.clone())));
        let differences: Vec<_> = gone.chain(new).collect();
        let mut affected = BTreeSet::new();
        for ((key, worker), now) in differences {
            known.set_served(&key, ServedBy { scheduler: scheduler.to_owned(), worker }, now);
            affected.insert(key);
        }
        for key in &affected {
            self.tell(&known, key);
        }
        Ok(())
    }

    /// A scheduler's stream ended: what it reported is gone, unless a newer stream has taken over.
    pub(crate) fn forget(&self, scheduler: &str, stream: u64) {
        if self.report(scheduler, stream, HashMap::new()).is_ok() {
            let mut known = self.known();
            if known.reports.get(scheduler).is_some_and(|report| report.stream == stream) {
                known.reports.remove(scheduler);
            }
        }
    }

    /// Tells the watchers how an agent is now. Sent under the lock, so that changes arrive in order.
    fn tell(&self, known: &Known, key: &Key) {
        known.measure();
        let (kind, agent) = match known.agent(key) {
            Some(agent) => ("upsert", agent),
            None => ("delete", wire::Agent { namespace: key.namespace.clone(), name: key.name.clone(), ..Default::default() }),
        };
        let message = Arc::new(wire::WatchAgentsResponse { kind: kind.to_owned(), agent: Some(agent) });
        // An error only says that nobody watches.
        let _ = self.changes.send(Change { namespace: key.namespace.clone(), message });
    }
}

fn first(namespace: &str, name: &str) -> Key {
    Key { namespace: namespace.to_owned(), name: name.to_owned() }
}

impl Known {
    fn names(&self, namespace: &str) -> BTreeSet<&Key> {
        let from = first(namespace, "");
        let defined = self.defined.range(from.clone()..).map(|(key, _)| key).take_while(|key| key.namespace == namespace);
        let served = self.served.range(from..).map(|(key, _)| key).take_while(|key| key.namespace == namespace);
        defined.chain(served).collect()
    }

    fn all_names(&self) -> BTreeSet<&Key> {
        self.defined.keys().chain(self.served.keys()).collect()
    }

    fn set_served(&mut self, key: &Key, by: ServedBy, now: Option<Served>) {
        match now {
            Some(served) => {
                self.served.entry(key.clone()).or_default().insert(by, served);
            }
            None => {
                if let Some(instances) = self.served.get_mut(key) {
                    instances.remove(&by);
                    if instances.is_empty() {
                        self.served.remove(key);
                    }
                }
            }
        }
    }

    fn agent(&self, key: &Key) -> Option<wire::Agent> {
        let served = self.served.get(key);
        let mut agent = match (self.defined.get(key), served) {
            (Some(active), _) => defined(active),
            (None, Some(served)) => dynamic(key, served),
            (None, None) => return None,
        };
        agent.instances = served.into_iter().flat_map(BTreeMap::values).map(|served| served.instance.clone()).collect();
        agent.state = wire::AgentState::Active.into();
        if let Some(standing) = self.standings.get(key) {
            agent.state = state_to_wire(standing.state).into();
            agent.state_reason.clone_from(&standing.reason);
            let at = timestamp(standing.updated_at);
            if agent.updated_at.is_none_or(|before| (before.seconds, before.nanos) < (at.seconds, at.nanos)) {
                agent.updated_at = Some(at);
            }
        }
        Some(agent)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn measure(&self) {
        metrics::gauge!(names::AGENTS).set(self.defined.len() as f64);
        metrics::gauge!(names::INSTANCES).set(self.reports.values().map(|report| report.served.len()).sum::<usize>() as f64);
    }
}

pub(crate) fn state_to_wire(state: State) -> wire::AgentState {
    match state {
        State::Active => wire::AgentState::Active,
        State::Draining => wire::AgentState::Draining,
        State::Quarantined => wire::AgentState::Quarantined,
    }
}

/// The wire form of a definition alone.
pub(crate) fn defined(active: &Active) -> wire::Agent {
    let definition = &active.definition;
    wire::Agent {
        namespace: definition.key.namespace.clone(),
        name: definition.key.name.clone(),
        version: definition.version.clone(),
        hash: definition.hash.clone(),
        kind: definition.kind.clone(),
        capabilities: definition.capabilities.clone(),
        spec: definition.spec.to_bytes(),
        source: definition.source.clone(),
        created_at: Some(timestamp(active.created_at)),
        updated_at: Some(timestamp(active.updated_at)),
        ..Default::default()
    }
}

/// An agent that is there because workers serve it: it can do what any of them can.
fn dynamic(key: &Key, served: &BTreeMap<ServedBy, Served>) -> wire::Agent {
    let capabilities: BTreeSet<&String> = served.values().flat_map(|served| &served.capabilities).collect();
    let since = served.values().filter_map(|served| served.instance.connected_at).min_by_key(|at| (at.seconds, at.nanos));
    wire::Agent {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        version: served.values().map(|served| served.version.as_str()).max().unwrap_or_default().to_owned(),
        kind: "worker".to_owned(),
        capabilities: capabilities.into_iter().cloned().collect(),
        created_at: since,
        updated_at: since,
        dynamic: true,
        ..Default::default()
    }
}
