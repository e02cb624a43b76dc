//! Who can do what now: connected workers, the agents they serve, agents' limits and states, and who gets the next task.

pub mod agent;
pub mod choice;
pub mod ring;
pub mod worker;

pub use agent::{Agent, AgentKey, Definition, Standing};
pub use choice::{Choice, Choose};
pub use worker::{Offer, Worker};

use crate::{
    clock::Millis,
    queue::{QueueKey, QueueTarget, TaskKey},
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// One worker's stream; a worker that connects again gets another one.
pub type ConnId = u64;

/// The scope under which workers of all namespaces list their tools.
const EVERYWHERE: &str = "*";

/// Who runs a task on its worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    Agent(AgentKey),
    Tool(Arc<str>),
    /// It was begun before this scheduler knew of it.
    Unknown,
}

impl Server {
    /// The agent's or tool's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Agent(key) => key.name(),
            Self::Tool(name) => name,
            Self::Unknown => "",
        }
    }
}

/// Workers and agents, with the indexes that make choosing cheap.
#[derive(Default)]
pub struct Roster {
    pub workers: HashMap<ConnId, Worker>,
    pub agents: HashMap<AgentKey, Agent>,
    /// Agents that have a capability, by its queue.
    capabilities: HashMap<QueueKey, Pool>,
    /// Workers that serve a tool, by scope (a namespace or `*`) and name.
    tools: HashMap<QueueKey, Vec<ConnId>>,
    assigned: u64,
}

#[derive(Default)]
struct Pool {
    agents: BTreeSet<AgentKey>,
    /// Whose turn it was last.
    last: Option<AgentKey>,
}

impl Roster {
    /// Takes in a worker, or what a worker now serves. Its running tasks stay.
    pub fn join(&mut self, worker: Worker) {
        let conn = worker.conn;
        self.leave_indexes(conn);
        for (key, offer) in &worker.offers {
            self.agents.entry(key.clone()).or_insert_with(|| Agent::new(key.clone())).offers.insert(conn, offer.capabilities.clone());
        }
        let scope = worker.namespace.as_deref().unwrap_or(EVERYWHERE);
        for tool in &worker.tools {
            self.tools.entry(QueueKey::tool(scope, tool)).or_default().push(conn);
        }
        let keys: Vec<AgentKey> = worker.offers.keys().cloned().collect();
        self.workers.insert(conn, worker);
        keys.iter().for_each(|key| self.reindex(key));
    }

    /// Changes what a worker serves.
    pub fn change(&mut self, conn: ConnId, change: impl FnOnce(&mut Worker)) {
        self.leave_indexes(conn);
        let Some(mut worker) = self.workers.remove(&conn) else { return };
        let before: Vec<AgentKey> = worker.offers.keys().cloned().collect();
        change(&mut worker);
        self.join(worker);
        for key in before {
            self.reindex(&key);
            self.forget_idle(&key);
        }
    }

    /// Forgets a worker.
    pub fn leave(&mut self, conn: ConnId) -> Option<Worker> {
        self.leave_indexes(conn);
        let worker = self.workers.remove(&conn)?;
        for key in worker.offers.keys() {
            self.reindex(key);
            self.forget_idle(key);
        }
        Some(worker)
    }

    fn leave_indexes(&mut self, conn: ConnId) {
        let Some(worker) = self.workers.get(&conn) else { return };
        for key in worker.offers.keys() {
            if let Some(agent) = self.agents.get_mut(key) {
                agent.offers.remove(&conn);
            }
        }
        let scope = worker.namespace.as_deref().unwrap_or(EVERYWHERE);
        for tool in &worker.tools {
            let key = QueueKey::tool(scope, tool);
            if let Some(conns) = self.tools.get_mut(&key) {
                conns.retain(|other| *other != conn);
                if conns.is_empty() {
                    self.tools.remove(&key);
                }
            }
        }
    }

    /// What the registry says of an agent; `None`: it was deleted there.
    pub fn define(&mut self, key: AgentKey, definition: Option<Definition>, now: Millis) {
        let agent = self.agents.entry(key.clone()).or_insert_with(|| Agent::new(key.clone()));
        agent.define(definition, now);
        self.reindex(&key);
        self.forget_idle(&key);
    }

    /// Agents that the registry knows no more are let go of when nobody serves them.
    fn forget_idle(&mut self, key: &AgentKey) {
        if self.agents.get(key).is_some_and(Agent::is_idle) {
            self.agents.remove(key);
        }
    }

    /// Puts an agent under the capabilities that it has now.
    fn reindex(&mut self, key: &AgentKey) {
        let Some(agent) = self.agents.get_mut(key) else { return };
        let old = agent.refresh_queues();
        for queue in &old {
            if let Some(pool) = self.capabilities.get_mut(queue) {
                pool.agents.remove(key);
                if pool.agents.is_empty() {
                    self.capabilities.remove(queue);
                }
            }
        }
        if !agent.offers.is_empty() {
            for queue in agent.capability_queues() {
                self.capabilities.entry(queue.clone()).or_default().agents.insert(key.clone());
            }
        }
    }

    /// The agents (none for a tool) that may take tasks of a queue.
    pub fn agents_of(&self, queue: &QueueKey) -> Vec<AgentKey> {
        match queue.target() {
            QueueTarget::Agent(name) => {
                let key = AgentKey::new(queue.namespace(), name);
                self.agents.get(&key).filter(|agent| !agent.offers.is_empty()).map(|_| key).into_iter().collect()
            }
            QueueTarget::Capability(_) => {
                self.capabilities.get(queue).map(|pool| pool.agents.iter().cloned().collect()).unwrap_or_default()
            }
            QueueTarget::Tool(_) => Vec::new(),
        }
    }

    /// The workers that serve a queue, those that are full or draining too.
    pub fn servers_of(&self, queue: &QueueKey) -> Vec<ConnId> {
        if let QueueTarget::Tool(name) = queue.target() {
            let everywhere = QueueKey::tool(EVERYWHERE, name);
            return [queue, &everywhere].into_iter().filter_map(|key| self.tools.get(key)).flatten().copied().collect();
        }
        let agents = self.agents_of(queue);
        let mut conns: Vec<ConnId> =
            agents.iter().filter_map(|key| self.agents.get(key)).flat_map(|agent| agent.offers.keys().copied()).collect();
        if agents.len() > 1 {
            conns.sort_unstable();
            conns.dedup();
        }
        conns
    }

    /// Books a task on a worker; it must be there.
    pub fn occupy(&mut self, conn: ConnId, server: &Server, key: TaskKey, now: Millis) {
        self.assigned += 1;
        if let Some(worker) = self.workers.get_mut(&conn) {
            worker.occupy(server, key, self.assigned);
        }
        if let Server::Agent(key) = server
            && let Some(agent) = self.agents.get_mut(key)
        {
            agent.start(now);
        }
    }

    /// Ends the booking of the agent. The worker's slot is freed by [`Worker::vacate`].
    pub fn finish(&mut self, server: &Server) {
        if let Server::Agent(key) = server {
            if let Some(agent) = self.agents.get_mut(key) {
                agent.active = agent.active.saturating_sub(1);
            }
            self.forget_idle(key);
        }
    }

    /// Tasks on all workers.
    pub fn active(&self) -> usize {
        self.workers.values().map(|worker| worker.active as usize).sum()
    }
}
