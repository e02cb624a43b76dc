//! Reading runs.

use super::{Api, key, watch::relay::lost};
use crate::{
    message::Op,
    metrics::FORWARDED,
    peers::{Peer, forwarded},
    routing::{NOT_OWNER, OWNED, Place, moving},
    run::{Key, Run},
    view,
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;
use troupe_domain::{Namespace, Result};
use troupe_proto::{checkpoint::v1 as pb, executor::v1 as wire, scheduler::v1::ExplainTasksRequest};
use troupe_wire::{duration, to_duration};

/// How long a wait lasts that does not say.
const WAIT: Duration = Duration::from_secs(30);

/// The longest wait of one call.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// How much later than its time a peer's answer may come.
const LATE: Duration = Duration::from_secs(1);

/// How long an explanation waits for the scheduler.
const EXPLAIN: Duration = Duration::from_secs(2);

impl Api {
    pub(super) async fn get_run(&self, request: wire::GetRunRequest) -> Result<wire::GetRunResponse> {
        let key = key(&request.namespace, &request.run_id)?;
        Ok(wire::GetRunResponse { run: Some(self.current(&key).await?) })
    }

    /// The run as it is now: from memory where it is there, else from the journal, outside the partition's task.
    pub(super) async fn current(&self, key: &Key) -> Result<wire::Run> {
        // Where another process owns the run, the journal knows what is durable.
        let hot = self.shared.router.ask(key.clone(), |reply| Op::View { reply }).await.ok().flatten();
        match hot {
            Some(run) => Ok(*run),
            None => self.load(key, 0).await.map(|run| view::full(&run)),
        }
    }

    /// The run as the journal has it, now or after an entry.
    pub(super) async fn load(&self, key: &Key, at_seq: u64) -> Result<Run> {
        let loaded = self.store().load(&[key.wire()], at_seq).await?.into_iter().next();
        self.shared.revive(key.clone(), loaded.ok_or_else(|| key.not_found())?).await
    }

    pub(super) async fn list_runs(&self, request: wire::ListRunsRequest) -> Result<wire::ListRunsResponse> {
        let namespace = Namespace::parse(&request.namespace)?;
        let wanted = pb::ListRunsRequest {
            namespace: namespace.to_string(),
            page: request.page,
            workflow: request.workflow,
            statuses: request.statuses,
            labels: request.labels,
            since: request.since,
            parent_run_id: request.parent_run_id,
            dead_queue: request.dead_queue,
        };
        let found = self.store().list_runs(wanted).await?;
        Ok(wire::ListRunsResponse { runs: found.runs.iter().map(view::row).collect(), next_cursor: found.next_cursor })
    }

    /// `for_peer`: a peer asks, which looks for the run's owner itself.
    pub(super) async fn wait_run(&self, request: wire::WaitRunRequest, for_peer: bool) -> Result<wire::WaitRunResponse> {
        let key = key(&request.namespace, &request.run_id)?;
        let until = Instant::now() + to_duration(request.timeout.as_ref()).unwrap_or(WAIT).min(LONGEST_WAIT);
        let mut search = self.shared.router.search();
        loop {
            let asked = Instant::now();
            let answer = match self.shared.router.place(key.run) {
                Place::Here => self.wait_here(&key, until).await,
                Place::There(peer) if !for_peer => wait_there(&peer, &request, until).await,
                Place::There(_) | Place::Nowhere => Err(moving()),
            };
            let error = match answer {
                Err(error) if error.reason == NOT_OWNER && !for_peer => error,
                answer => return answer,
            };
            if asked.elapsed() > OWNED {
                search.found();
            }
            // It may have ended before it lost its owner; and whose time is over is told how it is.
            let run = self.current(&key).await?;
            if run.ended_at.is_some() || Instant::now() >= until {
                return Ok(wire::WaitRunResponse { ended: run.ended_at.is_some(), run: Some(run) });
            }
            if let Ok(searched) = tokio::time::timeout_at(until, search.again(error)).await {
                searched.map_err(|error| error.with_help("wait again"))?;
            }
        }
    }

    async fn wait_here(&self, key: &Key, until: Instant) -> Result<wire::WaitRunResponse> {
        let (reply, ended) = tokio::sync::oneshot::channel::<Arc<wire::Run>>();
        self.shared.router.deliver(key.clone(), Op::Wait { reply }, String::new()).await?;
        // From here on the end is not missed; it may have been before.
        let run = self.current(key).await?;
        if run.ended_at.is_some() {
            return Ok(wire::WaitRunResponse { run: Some(run), ended: true });
        }
        match tokio::time::timeout_at(until, ended).await {
            Ok(Ok(run)) => Ok(wire::WaitRunResponse { run: Some(run.as_ref().clone()), ended: true }),
            Ok(Err(_)) => Err(moving()),
            Err(_) => {
                let run = self.current(key).await?;
                Ok(wire::WaitRunResponse { ended: run.ended_at.is_some(), run: Some(run) })
            }
        }
    }

    /// What each pending step waits on; where tasks are is asked of the scheduler.
    pub(super) async fn explain_run(&self, request: wire::ExplainRunRequest) -> Result<wire::ExplainRunResponse> {
        let key = key(&request.namespace, &request.run_id)?;
        let run = self.current(&key).await?;
        let mut waits = run.waiting_for;
        let task_ids: Vec<String> =
            waits.iter().filter(|wait| matches!(wait.kind.as_str(), "task" | "backoff")).map(|wait| wait.reference.clone()).collect();
        if !task_ids.is_empty() {
            let tasks = self.explain_tasks(&key, task_ids).await;
            for wait in &mut waits {
                if let Some((detail, until)) = tasks.get(&wait.reference) {
                    wait.detail.clone_from(detail);
                    wait.until = wait.until.or(*until);
                }
            }
        }
        Ok(wire::ExplainRunResponse { status: run.status, waits })
    }

    /// The scheduler's word on each task; what it does not say in time is left as the run knows it.
    async fn explain_tasks(&self, key: &Key, task_ids: Vec<String>) -> HashMap<String, (String, Option<prost_types::Timestamp>)> {
        let mut scheduler = self.shared.scheduler.clone();
        let request = ExplainTasksRequest { namespace: key.namespace.to_string(), task_ids };
        let tasks = match tokio::time::timeout(EXPLAIN, scheduler.explain_tasks(request)).await {
            Ok(Ok(answer)) => answer.into_inner().tasks,
            Ok(Err(cause)) => {
                tracing::debug!(%cause, "the scheduler does not explain");
                Vec::new()
            }
            Err(_) => Vec::new(),
        };
        let said = tasks.into_iter().filter(|task| task.state != "unknown" && !task.detail.is_empty());
        said.map(|task| (task.task_id, (task.detail, task.not_before))).collect()
    }
}

async fn wait_there(peer: &Peer, request: &wire::WaitRunRequest, until: Instant) -> Result<wire::WaitRunResponse> {
    metrics::counter!(FORWARDED, "kind" => "wait").increment(1);
    let timeout = Some(duration(until.saturating_duration_since(Instant::now())));
    let mut runs = peer.runs();
    let answer = runs.wait_run(forwarded(wire::WaitRunRequest { timeout, ..request.clone() }));
    tokio::select! {
        () = peer.gone() => Err(moving()),
        // It was stopped, or cannot be reached any more.
        () = tokio::time::sleep_until(until + LATE) => Err(moving()),
        answer = answer => answer.map(tonic::Response::into_inner).map_err(|status| lost(&status)),
    }
}
