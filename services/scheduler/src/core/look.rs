//! Answers to people and to the registry: queues, tasks, instances.

use super::{Core, message::queue_of};
use crate::{
    clock::{Millis, stamp},
    queue::{MAX_POSITION, QueueKey, QueueTarget, TaskKey, TaskState, TaskView},
    roster::{AgentKey, Standing, Worker},
};
use troupe_domain::Error;
use troupe_proto::{
    registry::v1::{Instance, ReportedInstance},
    scheduler::v1::{Queue, TaskState as WireState},
};

impl Core {
    pub(super) async fn list(&mut self, namespace: &str) -> Result<Vec<Queue>, Error> {
        let stats = self.queue.list(namespace).await?;
        Ok(stats
            .into_iter()
            .map(|stats| (self.roster.servers_of(&stats.queue).len(), stats))
            .map(|(n, stats)| queue_of(stats, n))
            .collect())
    }

    pub(super) async fn explain(&mut self, keys: Vec<TaskKey>) -> Result<Vec<WireState>, Error> {
        let views = self.queue.view(&keys).await?;
        Ok(keys.into_iter().zip(views).map(|(key, view)| self.explain_one(&key, view)).collect())
    }

    fn explain_one(&mut self, key: &TaskKey, view: Option<TaskView>) -> WireState {
        let mut wire = WireState { task_id: key.task_id().to_owned(), ..WireState::default() };
        let Some(view) = view else {
            let running = self.running.get(key);
            (wire.state, wire.detail) = match running {
                Some(running) => {
                    ("assigned".into(), format!("runs on worker {} since before this scheduler started", running.origin.worker))
                }
                None => ("unknown".into(), "the scheduler does not have it".into()),
            };
            return wire;
        };
        wire.queue = view.queue.name().to_owned();
        match view.state {
            TaskState::Delayed { until } => {
                wire.state = "delayed".into();
                wire.detail = format!("delayed: starts in {}", Self::span(until.saturating_sub(self.now)));
                wire.not_before = Some(stamp(until));
            }
            TaskState::Ready { position } => {
                wire.state = "ready".into();
                wire.detail = self.why_ready(&view.queue, position);
                wire.position = position as u64;
            }
            TaskState::Leased { until, .. } => {
                wire.state = "assigned".into();
                wire.lease_expires_at = Some(stamp(until));
                if let Some(running) = self.running.get(key) {
                    wire.worker.clone_from(&running.origin.worker);
                }
                wire.detail = format!("runs on worker {}, lease for {} more", wire.worker, Self::span(until.saturating_sub(self.now)));
            }
            TaskState::Settled { .. } => {
                wire.state = "assigned".into();
                wire.detail = "ended: its result waits to be written to the run's journal".into();
            }
        }
        wire
    }

    /// What a ready task waits on.
    fn why_ready(&mut self, queue: &QueueKey, position: usize) -> String {
        if self.draining {
            return "the scheduler shuts down and assigns nothing".into();
        }
        if self.reports.len() >= self.config.max_unreported as usize {
            return format!("{} results wait for the executor; nothing is assigned until it takes them", self.reports.len());
        }
        let why = match queue.target() {
            QueueTarget::Tool(name) => self.why_no_worker(queue, &format!("tool {name}")),
            QueueTarget::Agent(name) => {
                let key = AgentKey::new(queue.namespace(), name);
                self.why_not_agent(&key).unwrap_or_else(|| self.why_no_worker(queue, &format!("agent {name}")))
            }
            QueueTarget::Capability(name) => self.why_no_capable(queue, &format!("capability {name}")),
        };
        let more = if position >= MAX_POSITION { " or later" } else { "" };
        format!("{why}; position {position}{more}")
    }

    fn why_no_worker(&self, queue: &QueueKey, what: &str) -> String {
        let servers: Vec<&Worker> = self.roster.servers_of(queue).iter().filter_map(|conn| self.roster.workers.get(conn)).collect();
        if servers.is_empty() {
            return format!("no worker serves {what}");
        }
        if servers.iter().all(|worker| worker.draining) {
            return format!("every worker that serves {what} drains");
        }
        if servers.iter().all(|worker| worker.free() == 0) {
            let slots: u32 = servers.iter().map(|worker| worker.slots).sum();
            return format!("all {slots} slots of the {} workers that serve {what} are taken", servers.len());
        }
        format!("waits for a free slot for {what}")
    }

    fn why_no_capable(&mut self, queue: &QueueKey, what: &str) -> String {
        let agents = self.roster.agents_of(queue);
        if agents.is_empty() {
            return format!("no worker serves an agent with {what}");
        }
        let reasons: Vec<Option<String>> = agents.iter().map(|key| self.why_not_agent(key)).collect();
        if reasons.iter().any(Option::is_none) {
            return self.why_no_worker(queue, &format!("an agent with {what}"));
        }
        reasons.into_iter().flatten().take(3).collect::<Vec<_>>().join("; ")
    }

    /// A reason within the agent itself: its state or its limits.
    fn why_not_agent(&mut self, key: &AgentKey) -> Option<String> {
        let now = self.now;
        let agent = self.roster.agents.get_mut(key)?;
        let name = key.name();
        if let Standing::Out(state, reason) = agent.standing() {
            let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
            return Some(format!("agent {name} is {state}{reason}"));
        }
        let (concurrency, rate) = agent.definition.as_ref().map(|d| (d.concurrency, d.rate.clone())).unwrap_or_default();
        if concurrency > 0 && agent.active >= concurrency {
            return Some(format!("agent {name}: limit concurrency {} of {concurrency}", agent.active));
        }
        let at: Millis = agent.next_token(now)?;
        Some(format!("agent {name}: rate {rate}, next in {}", Self::span(at - now)))
    }

    /// All agents on all workers, as the registry wants them.
    pub(super) fn instances(&self) -> Vec<ReportedInstance> {
        self.roster.workers.values().flat_map(|worker| self.instances_of(worker)).collect()
    }

    fn instances_of(&self, worker: &Worker) -> impl Iterator<Item = ReportedInstance> {
        let stalled = worker.active > 0 && self.now.saturating_sub(worker.last_progress_at) > self.config.lease_ms() / 2;
        let health = match (worker.draining, stalled) {
            (true, _) => "draining",
            (false, true) => "stalled",
            (false, false) => "healthy",
        };
        worker.offers.iter().map(move |(key, offer)| ReportedInstance {
            namespace: key.namespace().to_owned(),
            agent: key.name().to_owned(),
            version: offer.version.clone(),
            capabilities: offer.capabilities.clone(),
            instance: Some(Instance {
                worker_id: worker.id.to_string(),
                scheduler_id: self.scheduler_id.clone(),
                client: worker.client.clone(),
                slots: if offer.slots == 0 { worker.slots } else { offer.slots.min(worker.slots) },
                active: offer.active,
                health: health.to_owned(),
                connected_at: Some(stamp(worker.connected_at)),
                last_progress_at: Some(stamp(worker.last_progress_at)),
            }),
        })
    }
}
