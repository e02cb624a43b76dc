//! Requests that nobody waits for any more: the executor withdraws them, but a crash between the end of a run and the withdrawal leaves
//! them pending. So all pending requests are compared with their runs, a few at a time, round and round.

use crate::{
    approval::{Approval, Key},
    desk::Desk,
    metrics as names,
};
use std::{collections::BTreeMap, sync::Arc};
use tonic::Code;
use troupe_domain::{Error, Namespace, RunId};
use troupe_proto::executor::v1::{GetRunRequest, Run};

/// Requests looked at in one round.
const ROUND: usize = 64;
const REASON: &str = "the run does not wait for it any more";

/// Until the service stops; never when `check_ms` is 0.
pub(crate) async fn run(desk: Arc<Desk>) {
    let Some(pause) = desk.config.check() else { return };
    let mut last = 0;
    loop {
        let next = desk.clock.now() + pause;
        tokio::select! {
            () = desk.stopping.cancelled() => return,
            () = desk.clock.sleep_until(next) => {}
        }
        let round = tokio::select! {
            () = desk.stopping.cancelled() => return,
            round = check_some(&desk, last) => round,
        };
        match round {
            Ok(reached) => last = reached,
            Err(error) => tracing::warn!(error = %error, "comparing requests with their runs failed"),
        }
    }
}

/// One round; answers how far it came, 0 at the end.
async fn check_some(desk: &Desk, last: i64) -> Result<i64, Error> {
    if desk.store.look_every().is_some() {
        // Other replicas settle requests too.
        #[expect(clippy::cast_precision_loss, reason = "a count of rows is far below 2^52")]
        metrics::gauge!(names::PENDING).set(desk.store.count_pending().await? as f64);
    }
    let pending = desk.store.pending(last, ROUND).await?;
    let reached = if pending.len() < ROUND { 0 } else { pending.last().map_or(0, |(seq, _)| *seq) };
    let mut by_run: BTreeMap<(Namespace, RunId), Vec<Approval>> = BTreeMap::new();
    for (_, approval) in pending {
        by_run.entry((approval.key.namespace.clone(), approval.run)).or_default().push(approval);
    }
    for ((namespace, run), approvals) in by_run {
        let abandoned: Vec<Key> = match find(desk, &namespace, run).await {
            Found::Nowhere => approvals.into_iter().map(|a| a.key).collect(),
            Found::Run(run) => approvals.into_iter().filter(|a| !waits_for(&run, &a.key.id)).map(|a| a.key).collect(),
            Found::Unknown => continue,
        };
        if !abandoned.is_empty() {
            tracing::warn!(run.id = %run, count = abandoned.len(), "withdrawing requests that their run does not wait for");
            desk.withdraw(abandoned, REASON.to_owned()).await?;
        }
    }
    Ok(reached)
}

enum Found {
    Run(Box<Run>),
    /// It does not exist. It was journaled before it asked, so it has been removed since.
    Nowhere,
    /// The executor did not answer; the next round asks again.
    Unknown,
}

async fn find(desk: &Desk, namespace: &Namespace, run: RunId) -> Found {
    let request = GetRunRequest { namespace: namespace.to_string(), run_id: run.to_string() };
    let mut runs = desk.runs.clone();
    match tokio::time::timeout(desk.config.delivery_timeout(), runs.get_run(request)).await {
        Ok(Ok(answer)) => answer.into_inner().run.map_or(Found::Unknown, |run| Found::Run(Box::new(run))),
        Ok(Err(status)) if status.code() == Code::NotFound => Found::Nowhere,
        Ok(Err(status)) => {
            tracing::debug!(run.id = %run, code = ?status.code(), "a run could not be looked at");
            Found::Unknown
        }
        Err(_) => Found::Unknown,
    }
}

fn waits_for(run: &Run, approval: &str) -> bool {
    run.waiting_for.iter().any(|wait| wait.kind == "approval" && wait.reference == approval)
}
