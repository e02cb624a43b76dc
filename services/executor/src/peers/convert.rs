//! What executors tell each other, on the wire.

use crate::{
    definitions::Definitions,
    message::{Answer, Done, Intent, Start},
    run::{Key, json_bytes},
    store::stored_json,
};
use bytes::Bytes;
use std::sync::Arc;
use tonic::Status;
use troupe_domain::{Error, Json, Result};
use troupe_engine::{Event, EventKind, Rejection, event::ChildOutcome};
use troupe_proto::{
    checkpoint::v1::RunSummary,
    executor::v1::{self as wire, ForwardOutcome, forward_answer, forward_item},
};
use troupe_wire::{from_status, to_status};

pub(super) fn item(id: u64, key: &Key, intent: Intent, traceparent: String, brief: bool) -> wire::ForwardItem {
    let intent = match intent {
        Intent::Apply(applied) => forward_item::Intent::Apply(event(&applied)),
        Intent::Start { start, fresh } => forward_item::Intent::Start(wire::ForwardStart {
            definition_hash: start.definition.hash.clone(),
            event: Some(event(&start.event)),
            fork: start.fork.as_ref().map(json_bytes).unwrap_or_default(),
            labels: start.labels.clone(),
            priority: start.priority,
            fresh,
        }),
    };
    let (namespace, run_id) = (key.namespace.to_string(), key.run.to_string());
    wire::ForwardItem { id, namespace, run_id, traceparent, brief, intent: Some(intent) }
}

fn event(event: &Event) -> wire::ForwardEvent {
    wire::ForwardEvent { kind: json_bytes(&event.kind), payload: payload(&event.payload) }
}

fn payload(payload: &Json) -> Bytes {
    if payload.is_null() { Bytes::new() } else { payload.to_bytes() }
}

/// What a peer wants done. The definition of a start is read where it is not known.
pub(crate) async fn intent(key: &Key, wire: forward_item::Intent, definitions: &Definitions) -> Result<Intent> {
    match wire {
        forward_item::Intent::Apply(applied) => Ok(Intent::apply(parse(&applied)?)),
        forward_item::Intent::Start(start) => {
            let fork = match start.fork.is_empty() {
                true => None,
                false => Some(serde_json::from_slice(&start.fork).map_err(|cause| bad("the state of a fork", &cause))?),
            };
            let fresh = start.fresh;
            let start = Start {
                definition: definitions.by_hash(&key.namespace, &start.definition_hash).await?,
                event: parse(&start.event.unwrap_or_default())?,
                fork,
                labels: start.labels,
                priority: start.priority,
            };
            Ok(Intent::Start { start: Arc::new(start), fresh })
        }
    }
}

fn parse(event: &wire::ForwardEvent) -> Result<Event> {
    let kind: EventKind = serde_json::from_slice(&event.kind).map_err(|cause| bad("an event", &cause))?;
    Ok(Event::with(kind, stored_json(&event.payload, "forwarded event")?))
}

/// Another version of this program may say what we do not understand.
fn bad(what: &str, cause: &serde_json::Error) -> Error {
    tracing::error!(%cause, what, "what another executor passed on cannot be read");
    Error::internal()
}

/// `run`: the row, and how it ended, where the caller wants to know.
pub(crate) fn done(done: &Done, run: Option<(&RunSummary, Option<(ChildOutcome, Json)>)>) -> forward_answer::Result {
    let (outcome, detail) = match done {
        Done::Created => (ForwardOutcome::Created, ""),
        Done::Existed => (ForwardOutcome::Existed, ""),
        Done::Applied => (ForwardOutcome::Applied, ""),
        Done::Rejected(rejection) => match rejection {
            Rejection::Duplicate => (ForwardOutcome::Duplicate, ""),
            Rejection::Stale(why) => (ForwardOutcome::Stale, why.as_str()),
            Rejection::Ended => (ForwardOutcome::Ended, ""),
            Rejection::Already => (ForwardOutcome::Already, ""),
            Rejection::NotPossible(why) => (ForwardOutcome::NotPossible, why.as_str()),
            Rejection::Limit(why) => (ForwardOutcome::Limit, why.as_str()),
        },
    };
    let mut answer = wire::ForwardDone { outcome: outcome.into(), detail: detail.to_owned(), ..Default::default() };
    if let Some((summary, ended)) = run {
        answer.summary = Some(summary.clone());
        if let Some((ended, output)) = ended {
            (answer.ended, answer.output) = (json_bytes(&ended), payload(&output));
        }
    }
    forward_answer::Result::Done(answer)
}

pub(crate) fn failed(error: &Error) -> forward_answer::Result {
    let status = to_status(error);
    let details = Bytes::copy_from_slice(status.details());
    forward_answer::Result::Error(wire::ForwardError { code: status.code().into(), message: status.message().to_owned(), details })
}

/// `None`: it is not known what became of it.
pub(super) fn answer(answer: wire::ForwardAnswer) -> Option<Result<Answer>> {
    match answer.result? {
        forward_answer::Result::Error(error) => {
            Some(Err(from_status(&Status::with_details(error.code.into(), error.message, error.details))))
        }
        forward_answer::Result::Done(done) => read(done).map_err(|cause| bad("an answer", &cause)).transpose(),
    }
}

fn read(answer: wire::ForwardDone) -> Result<Option<Answer>, serde_json::Error> {
    let detail = answer.detail;
    let done = match ForwardOutcome::try_from(answer.outcome).unwrap_or_default() {
        ForwardOutcome::Unspecified => return Ok(None),
        ForwardOutcome::Created => Done::Created,
        ForwardOutcome::Existed => Done::Existed,
        ForwardOutcome::Applied => Done::Applied,
        ForwardOutcome::Duplicate => Done::Rejected(Rejection::Duplicate),
        ForwardOutcome::Stale => Done::Rejected(Rejection::Stale(detail)),
        ForwardOutcome::Ended => Done::Rejected(Rejection::Ended),
        ForwardOutcome::Already => Done::Rejected(Rejection::Already),
        ForwardOutcome::NotPossible => Done::Rejected(Rejection::NotPossible(detail)),
        ForwardOutcome::Limit => Done::Rejected(Rejection::Limit(detail)),
    };
    let output = |bytes: &Bytes| if bytes.is_empty() { Ok(Json::null()) } else { serde_json::from_slice(bytes) };
    let outcome = match answer.ended.is_empty() {
        true => None,
        false => Some((serde_json::from_slice(&answer.ended)?, output(&answer.output)?)),
    };
    Ok(Some(Answer { summary: Box::new(answer.summary.unwrap_or_default()), done, outcome, repeated: false }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use troupe_engine::event::Failure;

    fn over_the_wire(result: forward_answer::Result) -> Result<Answer> {
        answer(wire::ForwardAnswer { id: 1, result: Some(result) }).expect("it is known")
    }

    #[test]
    fn answers_come_back_as_they_were() {
        let summary = RunSummary { run_id: "r".into(), seq: 7, ..Default::default() };
        let ended = ChildOutcome::Failed(Failure::permanent("X", "it broke"));
        let rejection = Done::Rejected(Rejection::NotPossible("no such approval".into()));
        let back = over_the_wire(done(&rejection, Some((&summary, Some((ended.clone(), Json::null())))))).unwrap();
        assert!(matches!(back.done, Done::Rejected(Rejection::NotPossible(why)) if why == "no such approval"));
        assert_eq!((*back.summary, back.outcome), (summary, Some((ended, Json::null()))));
        assert!(matches!(over_the_wire(done(&Done::Existed, None)).unwrap().done, Done::Existed));
    }

    #[test]
    fn errors_come_back_as_they_were() {
        let error = Error::not_found("run x").with_reason("GONE").with_help("look elsewhere");
        let back = over_the_wire(failed(&error)).err().unwrap();
        assert_eq!((back.code, back.message, back.reason, back.help), (error.code, error.message, error.reason, error.help));
    }

    #[test]
    fn an_answer_without_a_result_is_no_answer() {
        assert!(answer(wire::ForwardAnswer { id: 1, result: None }).is_none());
    }
}
