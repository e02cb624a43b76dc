//! The outbox: every outcome is told to its run until the executor has answered, across restarts.

use crate::{
    approval::{Key, Time},
    desk::Desk,
    metrics as names,
    store::Delivery,
};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use std::{sync::Arc, time::Duration};
use tonic::Code;
use tracing::Instrument;
use troupe_domain::Error;
use troupe_proto::executor::v1::DecideRequest;

/// Delivers what is due until the service stops, then waits for what is on its way.
pub(crate) async fn run(desk: Arc<Desk>) {
    let mut running = FuturesUnordered::new();
    while !desk.stopping.is_cancelled() {
        let free = desk.config.delivery_concurrency.saturating_sub(running.len());
        let next = match claim(&desk, free).await {
            Ok(Due::Now(deliveries)) => {
                running.extend(deliveries.into_iter().map(|delivery| deliver(Arc::clone(&desk), delivery)));
                continue;
            }
            Ok(Due::At(next)) => next,
            Err(error) => {
                tracing::error!(error = %error, "reading the outbox failed");
                desk.pause().await;
                Some(desk.clock.now())
            }
        };
        let next = desk.look_at(next);
        tokio::select! {
            () = desk.stopping.cancelled() => {}
            Some(()) = running.next(), if !running.is_empty() => {
                // All that are done make room in one go: one claim, not one each.
                while let Some(Some(())) = running.next().now_or_never() {}
            }
            () = desk.outbox_changed.notified(), if free > 0 => {}
            () = sleep_until(&desk, next), if next.is_some() => {}
        }
    }
    while running.next().await.is_some() {}
}

enum Due {
    Now(Vec<Delivery>),
    /// Nothing now; the next one then, if there is one and room for it.
    At(Option<Time>),
}

async fn claim(desk: &Desk, free: usize) -> Result<Due, Error> {
    let now = desk.clock.now();
    match desk.store.next_delivery().await? {
        _ if free == 0 => Ok(Due::At(None)),
        Some(at) if at <= now => {
            // Longer than a delivery can take. Should this process be lost, the next one on a file releases the claim at its start; of
            // several replicas, one finds that it has ended. Their clocks may differ: what is delivered twice is answered as a repetition.
            let until = later(now, desk.config.delivery_timeout() * 2 + Duration::from_secs(5));
            let claimed = desk.store.claim_deliveries(now, until, free).await?;
            Ok(if claimed.is_empty() { Due::At(Some(at)) } else { Due::Now(claimed) })
        }
        next => Ok(Due::At(next)),
    }
}

async fn sleep_until(desk: &Desk, at: Option<Time>) {
    if let Some(at) = at {
        desk.clock.sleep_until(at).await;
    }
}

fn later(now: Time, by: Duration) -> Time {
    chrono::Duration::from_std(by).ok().and_then(|by| now.checked_add_signed(by)).unwrap_or(Time::MAX_UTC)
}

async fn deliver(desk: Arc<Desk>, delivery: Delivery) {
    let approval = &delivery.approval;
    let span = tracing::info_span!("deliver approval", approval.id = %approval.key.id, run.id = %approval.run, attempt = delivery.attempt);
    troupe_wire::trace::adopt_traceparent(&span, &approval.traceparent);
    async {
        let answered = tell(&desk, &delivery).await;
        metrics::counter!(names::DELIVERIES, "outcome" => answered.unwrap_or("failed")).increment(1);
        let retry_at = answered.is_none().then(|| later(desk.clock.now(), desk.config.backoff(delivery.attempt)));
        finish(&desk, approval.key.clone(), retry_at).await;
    }
    .instrument(span)
    .await;
}

/// What the executor answered; `None` when it must be asked again.
async fn tell(desk: &Desk, delivery: &Delivery) -> Option<&'static str> {
    let approval = &delivery.approval;
    let outcome = approval.outcome();
    let request = DecideRequest {
        namespace: approval.key.namespace.to_string(),
        run_id: approval.run.to_string(),
        approval_id: approval.key.id.clone(),
        status: outcome.status.name().to_owned(),
        by: outcome.by,
        comment: outcome.comment,
        payload: if outcome.payload.is_null() { Default::default() } else { outcome.payload.to_bytes() },
    };
    let mut executor = desk.executor.clone();
    match tokio::time::timeout(desk.config.delivery_timeout(), executor.decide(request)).await {
        Ok(Ok(response)) if response.get_ref().applied => Some("applied"),
        Ok(Ok(_)) => Some("ignored"),
        // The run was journaled before it asked for this approval: one that is not there has been deleted since.
        Ok(Err(status)) if status.code() == Code::NotFound => {
            tracing::warn!("the run of a decided approval does not exist any more");
            Some("unknown_run")
        }
        Ok(Err(status)) => {
            tracing::warn!(code = ?status.code(), error = status.message(), "delivery failed");
            None
        }
        Err(_) => {
            tracing::warn!("delivery timed out");
            None
        }
    }
}

async fn finish(desk: &Desk, key: Key, retry_at: Option<Time>) {
    if let Err(error) = desk.store.finish_delivery(key, retry_at).await {
        tracing::error!(error = %error, "a delivery's end was not written: it is delivered again when its claim ends");
    }
}
