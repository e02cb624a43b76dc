//! Controlling runs, signalling them, and outcomes of approvals.

use super::{Api, MAX_TEXT, key, short};
use crate::{
    message::{Answer, Done, Intent, refusal},
    run::Key,
    view,
};
use troupe_domain::{Code, Error, Result};
use troupe_engine::{Event, EventKind, Rejection, event::DecisionStatus};
use troupe_proto::executor::v1::{self as wire, ControlAction, ControlOutcome};

const MAX_NAME: usize = 255;

impl Api {
    /// Gives a run an event and answers once it is durable.
    async fn give(&self, key: Key, event: Event, traceparent: String) -> Result<Answer> {
        self.shared.router.call(key, traceparent, Intent::apply(event)).await
    }

    pub(super) async fn control_run(&self, request: wire::ControlRunRequest, traceparent: String) -> Result<wire::ControlRunResponse> {
        self.shared.accepting()?;
        let key = key(&request.namespace, &request.run_id)?;
        short(&request.reason, "reason", MAX_TEXT)?;
        let action = ControlAction::try_from(request.action).unwrap_or(ControlAction::Unspecified);
        let reason = request.reason;
        let kind = match action {
            ControlAction::Cancel => EventKind::Cancelled { reason },
            ControlAction::Pause => EventKind::Paused { reason },
            ControlAction::Resume => EventKind::Resumed,
            // One that is repeated, because it is not known what became of it, must not retry what has failed anew since.
            ControlAction::Retry => EventKind::RetriedAfter { retries: self.load(&key, 0).await?.state.retries() },
            ControlAction::Unspecified => {
                return Err(Error::invalid_field("action", "is missing: use cancel, pause, resume or retry"));
            }
        };
        let answer = self.give(key, Event::new(kind), traceparent).await?;
        let cancelled = action == ControlAction::Cancel && answer.summary.status == "cancelled";
        let ended = view::has_ended(&answer.summary);
        let outcome = match answer.done {
            // It was this very call that did it, before its answer was lost.
            Done::Rejected(Rejection::Already) if answer.repeated => ControlOutcome::Done,
            Done::Rejected(Rejection::Ended) if answer.repeated && cancelled => ControlOutcome::Done,
            Done::Rejected(_) if answer.repeated && action == ControlAction::Retry && !ended => ControlOutcome::Done,
            Done::Rejected(Rejection::Already | Rejection::Duplicate) => ControlOutcome::Already,
            Done::Rejected(Rejection::Ended) if cancelled => ControlOutcome::Already,
            Done::Rejected(rejection) => return Err(refusal(rejection)),
            Done::Applied | Done::Created | Done::Existed => ControlOutcome::Done,
        };
        Ok(wire::ControlRunResponse { run: Some(view::row(&answer.summary)), outcome: outcome.into() })
    }

    pub(super) async fn signal_run(&self, request: wire::SignalRunRequest, traceparent: String) -> Result<wire::SignalRunResponse> {
        self.shared.accepting()?;
        let key = key(&request.namespace, &request.run_id)?;
        if request.name.is_empty() {
            return Err(Error::invalid_field("name", "is missing: a signal has a name"));
        }
        short(&request.name, "name", MAX_NAME)?;
        short(&request.idempotency_key, "idempotency_key", MAX_NAME)?;
        let payload = self.payload(&request.payload, "payload")?;
        let made_up = request.idempotency_key.is_empty();
        let id = if made_up { uuid::Uuid::now_v7().to_string() } else { request.idempotency_key };
        let event = Event::with(EventKind::Signalled { name: request.name, id }, payload);
        let answer = self.give(key, event, traceparent).await?;
        let applied = match answer.done {
            // Nobody else knows a key that was made up here: it was this call.
            Done::Rejected(Rejection::Duplicate) if made_up => true,
            Done::Rejected(Rejection::Duplicate | Rejection::Already) => false,
            Done::Rejected(rejection) => return Err(refusal(rejection)),
            Done::Applied | Done::Created | Done::Existed => true,
        };
        Ok(wire::SignalRunResponse { run: Some(view::row(&answer.summary)), applied })
    }

    /// An approval's outcome. Whatever the run says to it is final: only an answer that is not known is worth another delivery.
    pub(super) async fn decide(&self, request: wire::DecideRequest, traceparent: String) -> Result<wire::DecideResponse> {
        let key = key(&request.namespace, &request.run_id)?;
        let status = decision(&request.status)?;
        let payload = self.payload(&request.payload, "payload")?;
        let (run, approval) = (key.run, request.approval_id.clone());
        let kind = EventKind::Decided { approval: request.approval_id, status, by: request.by, comment: request.comment };
        match self.give(key, Event::with(kind, payload), traceparent).await {
            Ok(Answer { done: Done::Rejected(rejection), .. }) => {
                if matches!(rejection, Rejection::NotPossible(_) | Rejection::Limit(_)) {
                    tracing::warn!(run.id = %run, approval.id = approval, %rejection, "a decision was not applied");
                }
                Ok(wire::DecideResponse { applied: false })
            }
            Ok(_) => Ok(wire::DecideResponse { applied: true }),
            Err(error) if error.code == Code::NotFound => Ok(wire::DecideResponse { applied: false }),
            Err(error) => Err(error),
        }
    }
}

fn decision(status: &str) -> Result<DecisionStatus> {
    match status {
        "approved" => Ok(DecisionStatus::Approved),
        "rejected" => Ok(DecisionStatus::Rejected),
        "answered" => Ok(DecisionStatus::Answered),
        "expired" => Ok(DecisionStatus::Expired),
        other => {
            let shown: String = other.chars().take(40).collect();
            Err(Error::invalid_field("status", format!("'{shown}' is not one of approved, rejected, answered, expired")))
        }
    }
}
