//! The registry's two streams: agents with their limits and states come from it, instances with their load go to it.

use crate::{
    core::Message,
    metrics,
    report::backoff,
    roster::{AgentKey, Definition},
};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::Status;
use troupe_proto::registry::v1::{
    ReportInstancesRequest, ReportedInstance, WatchAgentsRequest, WatchAgentsResponse, agent_registry_client::AgentRegistryClient,
};
use troupe_wire::{Backoff, MAX_MESSAGE, Transport};

/// Changes gather for so long before they are reported.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// Load and progress are reported so often while there are workers.
const PERIOD: Duration = Duration::from_secs(5);

/// A connection to the registry. Both its halves run until the core has gone.
#[derive(Clone)]
pub struct Registry {
    pub transport: Transport,
    pub core: mpsc::Sender<Message>,
    pub scheduler_id: String,
    /// Why agents are not watched; empty while they are.
    pub state: watch::Sender<String>,
}

impl Registry {
    fn client(&self) -> AgentRegistryClient<Transport> {
        AgentRegistryClient::new(self.transport.clone()).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    }

    /// Follows all agents, and again after a loss. What was known stays in force meanwhile.
    pub async fn watch(self) {
        let mut known = HashSet::new();
        let mut backoff = backoff();
        while !self.core.is_closed() {
            let lost = self.follow(&mut known, &mut backoff).await;
            told("registry_watch", &lost);
            self.state.send_replace(format!("{:?}: {}", lost.code(), lost.message()));
            backoff.wait().await;
        }
    }

    async fn follow(&self, known: &mut HashSet<AgentKey>, backoff: &mut Backoff) -> Status {
        let opened = self.client().watch_agents(WatchAgentsRequest { namespace: "*".into() }).await;
        let mut stream = match opened {
            Ok(response) => response.into_inner(),
            Err(status) => return status,
        };
        let mut seen = Some(HashSet::new());
        loop {
            let changes = match stream.next().await {
                Some(Ok(response)) => changes(response, known, &mut seen),
                Some(Err(status)) => return status,
                None => return Status::unavailable("the registry closed the stream"),
            };
            if seen.is_none() {
                backoff.reset();
                self.state.send_if_modified(|state| !std::mem::take(state).is_empty());
            }
            if !changes.is_empty() && self.core.send(Message::Agents(changes)).await.is_err() {
                return Status::cancelled("the scheduler has stopped");
            }
        }
    }

    /// Reports instances when they change, and regularly while there are some.
    pub async fn report(self, changed: Arc<Notify>) {
        let mut backoff = backoff();
        while !self.core.is_closed() {
            let Err(status) = self.report_stream(&changed, &mut backoff).await else { return };
            told("registry_report", &status);
            backoff.wait().await;
        }
    }

    /// One stream, until it is lost (`Err`) or the core has gone (`Ok`).
    async fn report_stream(&self, changed: &Notify, backoff: &mut Backoff) -> Result<(), Status> {
        // A new stream has reported nothing: it is opened when there is something to say.
        let Some(mut last) = self.until_some(changed).await else { return Ok(()) };
        let (requests, receiver) = mpsc::channel(1);
        let _ = requests.try_send(self.request(last.clone()));
        let mut client = self.client();
        let mut answers = client.report_instances(ReceiverStream::new(receiver)).await?.into_inner();
        loop {
            tokio::select! {
                answer = answers.next() => match answer {
                    Some(Ok(_)) => backoff.reset(),
                    Some(Err(status)) => return Err(status),
                    None => return Err(Status::unavailable("the registry closed the stream")),
                },
                () = changed.notified() => {
                    tokio::time::sleep(DEBOUNCE).await;
                    last = self.send_changed(&requests, last).await?;
                }
                () = tokio::time::sleep(PERIOD), if !last.is_empty() => last = self.send_changed(&requests, last).await?,
            }
        }
    }

    async fn until_some(&self, changed: &Notify) -> Option<Vec<ReportedInstance>> {
        loop {
            let now = self.instances().await?;
            if !now.is_empty() {
                return Some(now);
            }
            changed.notified().await;
            tokio::time::sleep(DEBOUNCE).await;
        }
    }

    /// Sends the instances unless they are the same; answers what is known there now.
    async fn send_changed(
        &self,
        requests: &mpsc::Sender<ReportInstancesRequest>,
        last: Vec<ReportedInstance>,
    ) -> Result<Vec<ReportedInstance>, Status> {
        let Some(now) = self.instances().await else { return Err(Status::cancelled("the scheduler has stopped")) };
        if now != last {
            let sent = requests.send(self.request(now.clone())).await;
            sent.map_err(|_| Status::unavailable("the registry closed the stream"))?;
        }
        Ok(now)
    }

    fn request(&self, instances: Vec<ReportedInstance>) -> ReportInstancesRequest {
        ReportInstancesRequest { scheduler_id: self.scheduler_id.clone(), instances }
    }

    /// `None`: the core has gone.
    async fn instances(&self) -> Option<Vec<ReportedInstance>> {
        let (reply, answer) = oneshot::channel();
        self.core.send(Message::Instances { reply }).await.ok()?;
        let mut instances = answer.await.ok()?;
        let by = |i: &ReportedInstance| (i.namespace.clone(), i.agent.clone(), i.instance.as_ref().map(|i| i.worker_id.clone()));
        instances.sort_by_cached_key(by);
        Some(instances)
    }
}

fn told(kind: &'static str, lost: &Status) {
    metrics::error(kind);
    tracing::warn!(stream = kind, status = lost.message(), "a stream to the registry was lost");
}

/// What a message of the watch means. `seen` gathers agents until `synced`: those known from an earlier stream and not sent again
/// were deleted while nobody watched.
fn changes(
    response: WatchAgentsResponse,
    known: &mut HashSet<AgentKey>,
    seen: &mut Option<HashSet<AgentKey>>,
) -> Vec<(AgentKey, Option<Definition>)> {
    if response.kind == "synced" {
        let seen = seen.take().unwrap_or_default();
        let gone: Vec<AgentKey> = known.difference(&seen).cloned().collect();
        return gone.into_iter().inspect(|key| _ = known.remove(key)).map(|key| (key, None)).collect();
    }
    let Some(agent) = response.agent else { return Vec::new() };
    let key = AgentKey::new(&agent.namespace, &agent.name);
    match response.kind.as_str() {
        "delete" => {
            known.remove(&key);
            vec![(key, None)]
        }
        "upsert" => {
            known.insert(key.clone());
            if let Some(seen) = seen {
                seen.insert(key.clone());
            }
            vec![(key, Some(Definition::of(&agent)))]
        }
        // Of a newer registry.
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use troupe_proto::registry::v1::Agent;

    fn says(kind: &str, name: &str) -> WatchAgentsResponse {
        let agent = Agent { namespace: "default".into(), name: name.into(), ..Agent::default() };
        WatchAgentsResponse { kind: kind.into(), agent: (!name.is_empty()).then_some(agent) }
    }

    #[test]
    fn what_was_deleted_while_nobody_watched_is_noticed() {
        let mut known = HashSet::from([AgentKey::new("default", "old"), AgentKey::new("default", "kept")]);
        let mut seen = Some(HashSet::new());
        assert_eq!(changes(says("upsert", "kept"), &mut known, &mut seen).len(), 1);
        assert_eq!(changes(says("synced", ""), &mut known, &mut seen), [(AgentKey::new("default", "old"), None)]);
        assert_eq!(changes(says("delete", "kept"), &mut known, &mut seen), [(AgentKey::new("default", "kept"), None)]);
        assert!(known.is_empty());
    }
}
