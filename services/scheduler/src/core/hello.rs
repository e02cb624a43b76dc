//! Workers that come, change what they serve, and go.

use super::{Core, Newcomer, Origin, Running, due::Lost};
use crate::{
    metrics::{self, Ending},
    queue::{Claim, Fences, Handle, QueueKey, QueueTarget, TaskKey},
    roster::{AgentKey, ConnId, Definition, Offer, Server, Worker, ring::Ring},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tonic::Status;
use troupe_domain::{Code, Error, id::DEFAULT_NAMESPACE};
use troupe_proto::scheduler::v1::{HeldTask, Hello, Welcome, server_message::Kind};

/// How a delivery stands of which a worker speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is the task's delivery, and runs on this stream now.
    Current,
    /// Its result is on its way already.
    Settled,
    /// A newer delivery or attempt has overtaken it.
    Stale,
    /// Nothing is known of it here; the run knows.
    Unknown,
}

impl Core {
    pub(super) async fn connect(&mut self, newcomer: Newcomer) {
        let Newcomer { conn, mut hello, outbox, guard } = newcomer;
        if let Some(error) = self.unwelcome() {
            // The stream ends with the outbox in any case.
            let _ = outbox.try_send(Err(troupe_wire::to_status(&error)));
            return;
        }
        let held = std::mem::take(&mut hello.held);
        let (offers, tools) = served(&hello);
        tracing::info!(worker.id = hello.worker_id, worker.client = hello.client, slots = hello.slots, "worker connected");
        let worker = Worker {
            conn,
            namespace: scope(&hello),
            id: hello.worker_id.into(),
            client: hello.client,
            slots: hello.slots,
            active: 0,
            draining: false,
            connected_at: self.now,
            last_progress_at: self.now,
            offers,
            tools,
            running: HashSet::new(),
            stopping: HashMap::new(),
            ring: Ring::default(),
            outbox,
            guard,
            turn: 0,
        };
        self.roster.join(worker);
        self.send(conn, Kind::Welcome(Welcome { lease_ms: self.config.lease_ms() }));
        self.take_up(conn, held).await;
        self.serve_anew(conn);
    }

    fn unwelcome(&self) -> Option<Error> {
        if self.draining {
            return Some(Error::unavailable("the scheduler shuts down"));
        }
        let most = self.config.max_workers as usize;
        (self.roster.workers.len() >= most)
            .then(|| Error::new(Code::ResourceExhausted, format!("there are {most} workers already (max_workers), no more are allowed")))
    }

    /// A second Hello changes what is served.
    pub(super) async fn hello_again(&mut self, conn: ConnId, mut hello: Hello) {
        let held = std::mem::take(&mut hello.held);
        let (mut offers, tools) = served(&hello);
        let slots = hello.slots;
        self.roster.change(conn, |worker| {
            for (key, offer) in &mut offers {
                offer.active = worker.offers.get(key).map_or(0, |old| old.active);
            }
            worker.offers = offers;
            worker.tools = tools;
            worker.slots = slots;
            worker.ring = Ring::default();
        });
        self.take_up(conn, held).await;
        self.serve_anew(conn);
    }

    /// Lists the ready queues that a worker serves.
    fn serve_anew(&mut self, conn: ConnId) {
        self.changed.notify_one();
        let Some(worker) = self.roster.workers.get_mut(&conn) else { return };
        for agent in worker.offers.keys().filter_map(|key| self.roster.agents.get(key)) {
            agent.queues().iter().filter(|queue| self.heads.contains_key(queue)).for_each(|queue| worker.ring.list(queue));
        }
        if !worker.tools.is_empty() {
            for queue in self.heads.keys() {
                let QueueTarget::Tool(name) = queue.target() else { continue };
                if worker.tools.contains(name) && worker.serves_namespace(queue.namespace()) {
                    worker.ring.list(queue);
                }
            }
        }
        self.hungry.insert(conn);
    }

    pub(super) fn drain_worker(&mut self, conn: ConnId) {
        if let Some(worker) = self.roster.workers.get_mut(&conn) {
            worker.draining = true;
            self.changed.notify_one();
        }
    }

    /// What the worker still has from an earlier stream.
    async fn take_up(&mut self, conn: ConnId, held: Vec<HeldTask>) {
        for task in held {
            let handle = Handle { key: TaskKey::new(&task.namespace, &task.task_id), fence: task.fence };
            match self.locate(conn, &handle, task.attempt).await {
                Place::Stale => self.refuse_overtaken(conn, &handle, None),
                Place::Unknown => self.adopt(conn, &handle, task.attempt, None),
                Place::Current | Place::Settled => {}
            }
        }
    }

    /// Where a delivery stands of which the worker of `conn` speaks; it is taken up on this stream where that is possible.
    pub(super) async fn locate(&mut self, conn: ConnId, handle: &Handle, attempt: u32) -> Place {
        if !Fences::is_plausible(handle.fence, self.now) {
            return Place::Stale;
        }
        // The queue may not have been told yet.
        if self.reports.has_result(handle) {
            return Place::Settled;
        }
        match self.running.get(&handle.key) {
            Some(running) if running.fence == handle.fence => {
                if running.conn != conn {
                    self.move_to(conn, &handle.key);
                }
                return Place::Current;
            }
            Some(running) if running.fence > handle.fence => return Place::Stale,
            _ => {}
        }
        let answer = self.queue.claim(std::slice::from_ref(handle), self.now).await;
        match self.ask(answer).and_then(|claims| claims.first().copied()) {
            Some(Claim::Leased) => self.take_over(conn, handle, attempt).await,
            Some(Claim::Settled) => Place::Settled,
            Some(Claim::Stale) => {
                let answer = self.queue.resume(handle, attempt, self.now).await;
                if self.ask(answer) != Some(true) {
                    return Place::Stale;
                }
                self.take_over(conn, handle, attempt).await
            }
            Some(Claim::Unknown) | None => Place::Unknown,
        }
    }

    /// The queue has leased the delivery to the worker that speaks of it.
    async fn take_over(&mut self, conn: ConnId, handle: &Handle, attempt: u32) -> Place {
        let answer = self.queue.view(std::slice::from_ref(&handle.key)).await;
        let view = self.ask(answer).and_then(|mut views| views.pop().flatten());
        let attempt = view.as_ref().map_or(attempt, |view| view.attempt);
        if let Some(queue) = view.as_ref().map(|view| view.queue.clone()) {
            self.mark(&queue, false);
        }
        self.adopt(conn, handle, attempt, view.map(|view| view.queue));
        Place::Current
    }

    /// The worker has opened another stream before the end of the old one was seen.
    fn move_to(&mut self, conn: ConnId, key: &TaskKey) {
        let Some(running) = self.running.get_mut(key) else { return };
        let (old, server) = (running.conn, running.server.clone());
        running.conn = conn;
        if let Some(worker) = self.roster.workers.get_mut(&old)
            && worker.running.remove(key)
        {
            self.free_slot(old, &server);
        }
        self.roster.occupy(conn, &server, key.clone(), self.now);
    }

    /// Counts a delivery among the worker's, though it was not assigned on this stream. `queue`: where the task stands, if it is known.
    pub(super) fn adopt(&mut self, conn: ConnId, handle: &Handle, attempt: u32, queue: Option<QueueKey>) {
        let Some(worker) = self.roster.workers.get(&conn) else { return };
        // Without a limit a worker could fill the memory with tasks that nobody gave it.
        if queue.is_none() && (worker.running.len() >= worker.slots as usize || self.running.contains_key(&handle.key)) {
            return;
        }
        let worker = worker.id.to_string();
        self.stop_older(&handle.key, handle.fence);
        let server = match queue.as_ref().map(QueueKey::target) {
            Some(QueueTarget::Agent(name)) => Server::Agent(AgentKey::new(handle.key.namespace(), name)),
            Some(QueueTarget::Tool(name)) => Server::Tool(name.into()),
            Some(QueueTarget::Capability(_)) | None => Server::Unknown,
        };
        let choice = "taken up again by the worker that had it".to_owned();
        let origin = Arc::new(Origin { agent: server.name().to_owned(), worker, choice });
        self.roster.occupy(conn, &server, handle.key.clone(), self.now);
        let running = Running { conn, fence: handle.fence, attempt, server, queue, origin, started: self.now, chunks: self.chunk_bucket() };
        self.running.insert(handle.key.clone(), running);
    }

    /// Two workers may have been given a task: the one with the newer delivery goes on.
    pub(super) fn stop_older(&mut self, key: &TaskKey, fence: u64) {
        if let Some(older) = self.running.get(key).map(|running| running.fence).filter(|older| *older != fence) {
            self.stop(&Handle { key: key.clone(), fence: older }, OVERTAKEN, self.config.stop_grace_ms(), Ending::Lost);
        }
    }

    /// Ends a worker's stream with a status.
    pub(super) async fn let_go(&mut self, conn: ConnId, status: Status) {
        let Some(worker) = self.roster.workers.get(&conn) else { return };
        tracing::warn!(worker.id = %worker.id, status = status.message(), "worker let go");
        metrics::error("worker_let_go");
        // A full outbox cannot take the status: the end of the stream must do.
        let _ = worker.outbox.try_send(Err(status));
        self.gone(conn).await;
    }

    /// The stream is lost: what ran there is given to others at once.
    pub(super) async fn gone(&mut self, conn: ConnId) {
        let Some(worker) = self.roster.leave(conn) else { return };
        self.changed.notify_one();
        self.hungry.remove(&conn);
        tracing::info!(worker.id = %worker.id, running = worker.running.len(), "worker gone");
        self.note_these(worker.running.iter().cloned().collect()).await;
        let keys = worker.running.iter();
        let lost = keys.filter_map(|key| {
            self.running.get(key).map(|running| Lost {
                handle: Handle { key: key.clone(), fence: running.fence },
                attempt: running.attempt,
                origin: Arc::clone(&running.origin),
                queue: running.queue.clone(),
            })
        });
        let lost: Vec<Lost> = lost.collect();
        if !lost.is_empty() {
            self.give_back(lost).await;
        }
        let mut servers: Vec<Server> = worker.stopping.into_values().map(|(_, server)| server).collect();
        for key in &worker.running {
            if let Some(running) = self.running.remove(key) {
                self.meters.ended(running.server.name(), Ending::Lost, None);
                servers.push(running.server);
            }
        }
        for server in &servers {
            self.roster.finish(server);
            if let Server::Agent(key) = server {
                self.mark_agent(key);
            }
        }
    }

    pub(super) fn agents_changed(&mut self, changes: Vec<(AgentKey, Option<Definition>)>) {
        for (key, definition) in changes {
            self.roster.define(key.clone(), definition, self.now);
            self.mark_agent(&key);
        }
    }
}

/// What a worker is told whose delivery counts no more.
pub(super) const OVERTAKEN: &str = "a newer delivery or the end of the run has overtaken it";

/// `None`: all namespaces.
fn scope(hello: &Hello) -> Option<Arc<str>> {
    match hello.namespace.as_str() {
        "*" => None,
        "" => Some(DEFAULT_NAMESPACE.into()),
        own => Some(own.into()),
    }
}

/// The agents and tools of a Hello. Of agents named twice the last counts.
fn served(hello: &Hello) -> (HashMap<AgentKey, Offer>, HashSet<Arc<str>>) {
    let own = scope(hello);
    let offers = hello.agents.iter().map(|agent| {
        let namespace = match (&own, agent.namespace.as_str()) {
            (Some(own), _) => own,
            (None, "") => DEFAULT_NAMESPACE,
            (None, named) => named,
        };
        let offer = Offer { slots: agent.slots, active: 0, version: agent.version.clone(), capabilities: agent.capabilities.clone() };
        (AgentKey::new(namespace, &agent.name), offer)
    });
    (offers.collect(), hello.tools.iter().map(|tool| tool.as_str().into()).collect())
}
