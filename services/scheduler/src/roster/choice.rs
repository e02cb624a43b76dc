//! Who gets a task: room first, then the strategy; every choice says why.

use super::{AgentKey, ConnId, Roster, Server};
use crate::{
    clock::Millis,
    queue::{QueueKey, QueueTarget},
};
use std::cmp::Ordering;

/// How an agent is chosen among those with a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choose {
    LeastLoaded,
    RoundRobin,
}

impl Choose {
    /// Empty: least loaded. `None`: no strategy of that name.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "least_loaded" => Some(Self::LeastLoaded),
            "round_robin" => Some(Self::RoundRobin),
            _ => None,
        }
    }
}

/// Where a task goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub conn: ConnId,
    pub server: Server,
    /// For people: strategy, agent, worker, load.
    pub reason: String,
}

impl Roster {
    /// How many tasks of a queue could be placed now. It may be too much for a capability, whose agents can share workers.
    pub fn room(&mut self, queue: &QueueKey, now: Millis) -> usize {
        if let QueueTarget::Tool(_) = queue.target() {
            return self.servers_of(queue).iter().filter_map(|conn| self.workers.get(conn)).map(|worker| worker.free() as usize).sum();
        }
        self.agents_of(queue).iter().map(|agent| self.agent_room(agent, now)).sum()
    }

    fn agent_room(&mut self, key: &AgentKey, now: Millis) -> usize {
        let Some(agent) = self.agents.get_mut(key) else { return 0 };
        let limit = agent.room(now) as usize;
        if limit == 0 {
            return 0;
        }
        let workers = agent.offers.keys().filter_map(|conn| self.workers.get(conn));
        workers.map(|worker| worker.free_for(key) as usize).sum::<usize>().min(limit)
    }

    /// Chooses a worker (and an agent) for one task of a queue; one named `avoid` only when there is no other.
    pub fn choose(&mut self, queue: &QueueKey, choose: Choose, avoid: Option<&str>, now: Millis) -> Option<Choice> {
        if let QueueTarget::Tool(name) = queue.target() {
            let conn = self.least_loaded(self.servers_of(queue).into_iter().map(|conn| (conn, None)), avoid)?.0;
            let server = Server::Tool(name.into());
            return Some(Choice { conn, reason: self.reason("least_loaded", conn, &server), server });
        }
        let mut agents = self.agents_of(queue);
        agents.retain(|key| self.agent_room(key, now) > 0);
        if choose == Choose::RoundRobin && matches!(queue.target(), QueueTarget::Capability(_)) {
            let next = self.take_turn(queue, &agents)?;
            agents = vec![next];
        }
        let offers = agents.iter().filter_map(|key| self.agents.get(key));
        let pairs: Vec<(ConnId, Option<&AgentKey>)> =
            offers.flat_map(|agent| agent.offers.keys().map(move |conn| (*conn, Some(&agent.key)))).collect();
        let (conn, agent) = self.least_loaded(pairs.into_iter(), avoid)?;
        let server = Server::Agent(agent?.clone());
        let strategy = if choose == Choose::RoundRobin { "round_robin" } else { "least_loaded" };
        Some(Choice { conn, reason: self.reason(strategy, conn, &server), server })
    }

    /// The agent after the one whose turn it was.
    fn take_turn(&mut self, queue: &QueueKey, able: &[AgentKey]) -> Option<AgentKey> {
        let pool = self.capabilities.get_mut(queue)?;
        let after = |key: &&AgentKey| pool.last.as_ref().is_none_or(|last| *key > last);
        let next = able.iter().find(after).or_else(|| able.first())?.clone();
        pool.last = Some(next.clone());
        Some(next)
    }

    fn least_loaded<'a>(
        &self,
        pairs: impl Iterator<Item = (ConnId, Option<&'a AgentKey>)>,
        avoid: Option<&str>,
    ) -> Option<(ConnId, Option<&'a AgentKey>)> {
        let free = pairs.filter_map(|(conn, agent)| {
            let worker = self.workers.get(&conn)?;
            let room = agent.map_or_else(|| worker.free(), |key| worker.free_for(key));
            (room > 0).then_some((worker, agent))
        });
        let best = free.min_by(|(a, key_a), (b, key_b)| {
            let avoided = |id: &str| avoid == Some(id);
            let (load_a, load_b) = (a.load(*key_a), b.load(*key_b));
            avoided(&a.id).cmp(&avoided(&b.id)).then_with(|| compare(load_a, load_b)).then_with(|| a.turn.cmp(&b.turn))
        })?;
        Some((best.0.conn, best.1))
    }

    fn reason(&self, strategy: &str, conn: ConnId, server: &Server) -> String {
        let Some(worker) = self.workers.get(&conn) else { return String::new() };
        let agent = match server {
            Server::Agent(key) => Some(key),
            Server::Tool(_) | Server::Unknown => None,
        };
        let (active, slots) = worker.load(agent);
        format!("{strategy}: {} on worker {}, {active} of {slots} slots", server.name(), worker.id)
    }
}

/// Compares busy shares without dividing.
fn compare(a: (u32, u32), b: (u32, u32)) -> Ordering {
    (u64::from(a.0) * u64::from(b.1)).cmp(&(u64::from(b.0) * u64::from(a.1)))
}
