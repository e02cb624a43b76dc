//! Connected workers: slots, what they serve, what they run.

use super::{AgentKey, ConnId, Server, ring::Ring};
use crate::{clock::Millis, queue::TaskKey};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;
use tonic::Status;
use troupe_proto::scheduler::v1::{ServerMessage, server_message::Kind};

/// The way to a worker. An error ends its stream.
pub type Outbox = mpsc::Sender<Result<ServerMessage, Status>>;

/// One worker's stream.
pub struct Worker {
    pub conn: ConnId,
    pub id: Arc<str>,
    /// `None`: all namespaces.
    pub namespace: Option<Arc<str>>,
    pub client: String,
    pub slots: u32,
    /// Slots taken.
    pub active: u32,
    pub draining: bool,
    pub connected_at: Millis,
    pub last_progress_at: Millis,
    pub offers: HashMap<AgentKey, Offer>,
    pub tools: HashSet<Arc<str>>,
    /// Tasks that it runs.
    pub running: HashSet<TaskKey>,
    /// Tasks taken away from it that still keep a slot, with fence and server.
    pub stopping: HashMap<TaskKey, (u64, Server)>,
    /// Ready queues that it serves.
    pub ring: Ring,
    pub outbox: Outbox,
    /// Ends the stream when the worker is let go of.
    pub guard: DropGuard,
    /// When it was last given a task, in assignments of the scheduler.
    pub turn: u64,
}

/// An agent on a worker.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// 0: as many as the worker has.
    pub slots: u32,
    pub active: u32,
    pub version: String,
    pub capabilities: Vec<String>,
}

impl Worker {
    /// Tasks that it could be given now, in all.
    pub fn free(&self) -> u32 {
        if self.draining { 0 } else { self.slots.saturating_sub(self.active) }
    }

    /// Tasks of an agent that it could be given now.
    pub fn free_for(&self, agent: &AgentKey) -> u32 {
        match self.offers.get(agent) {
            None => 0,
            Some(Offer { slots: 0, .. }) => self.free(),
            Some(offer) => self.free().min(offer.slots.saturating_sub(offer.active)),
        }
    }

    /// Busy and available slots, of the agent where it has its own.
    pub fn load(&self, agent: Option<&AgentKey>) -> (u32, u32) {
        match agent.and_then(|key| self.offers.get(key)) {
            Some(offer) if offer.slots > 0 => (offer.active, offer.slots),
            _ => (self.active, self.slots),
        }
    }

    pub fn occupy(&mut self, server: &Server, key: TaskKey, turn: u64) {
        self.turn = turn;
        self.active += 1;
        self.running.insert(key);
        if let Server::Agent(agent) = server
            && let Some(offer) = self.offers.get_mut(agent)
        {
            offer.active += 1;
        }
    }

    /// Frees the slot of a task that is no longer in `running` or `stopping`.
    pub fn vacate(&mut self, server: &Server) {
        self.active = self.active.saturating_sub(1);
        if let Server::Agent(agent) = server
            && let Some(offer) = self.offers.get_mut(agent)
        {
            offer.active = offer.active.saturating_sub(1);
        }
    }

    pub fn serves_namespace(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|own| own == namespace)
    }

    /// False: it does not read what it is sent (or has gone), and should be let go of.
    pub fn send(&self, kind: Kind) -> bool {
        self.outbox.try_send(Ok(ServerMessage { kind: Some(kind) })).is_ok()
    }
}
