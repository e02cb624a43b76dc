//! What partitions are told, and how they answer.

use crate::run::{Key, Run};
use bytes::Bytes;
use std::{collections::HashMap, sync::Arc};
use tokio::sync::{broadcast, mpsc, oneshot};
use troupe_domain::{Code, Error, Json, Result, RunId};
use troupe_engine::{
    Command, Definition, Event, Rejection, RunState, Time,
    event::{ChildOutcome, Parent},
    run::Change,
};
use troupe_proto::{
    checkpoint::v1::RunSummary,
    executor::v1::{self as wire, ReportAck},
};

pub(crate) enum Message {
    /// Something for one run.
    Run { key: Key, op: Op, traceparent: String },
    /// Commands that a page of open runs has pending; they are issued for those runs that nothing else has touched since the scan began.
    Recovered(Vec<Recovered>),
    /// The scan of open runs is over.
    RecoveryDone,
    /// Effects may have been lost: runs in memory issue theirs again. The scan of the others follows the answer: what was before it is
    /// durable, and what comes after it is noticed.
    Resync(oneshot::Sender<()>),
}

pub(crate) enum Op {
    Start {
        start: Box<Start>,
        reply: Reply,
    },
    Apply {
        event: Box<Event>,
        reply: Reply,
    },
    /// The run as it is in memory; `None`: it is not there.
    View {
        reply: oneshot::Sender<Option<Box<wire::Run>>>,
    },
    /// Answered when the run's end is durable. The caller asks the journal after this whether that was so before.
    Wait {
        reply: oneshot::Sender<Arc<wire::Run>>,
    },
    /// Changes that become durable from now on.
    Watch {
        reply: oneshot::Sender<broadcast::Receiver<Arc<Live>>>,
    },
}

/// How a run begins.
pub(crate) struct Start {
    pub(crate) definition: Arc<Definition>,
    /// `Started` or `Forked`.
    pub(crate) event: Event,
    /// The state of a fork's checkpoint.
    pub(crate) fork: Option<RunState>,
    pub(crate) labels: HashMap<String, String>,
    pub(crate) priority: u32,
    pub(crate) parent: Option<Parent>,
    /// The id was made up just now: no such run can exist.
    pub(crate) fresh: bool,
}

pub(crate) struct Recovered {
    pub(crate) run: RunId,
    pub(crate) scope: Arc<Scope>,
    pub(crate) commands: Vec<Command>,
}

/// What effects need to know about the run they belong to.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) key: Key,
    pub(crate) workflow: String,
    pub(crate) traceparent: String,
}

/// A durable entry, as watchers see it.
pub(crate) struct Live {
    pub(crate) seq: u64,
    pub(crate) at: Time,
    pub(crate) changes: Vec<Change>,
    /// The run has ended with this entry.
    pub(crate) ended: bool,
}

/// The answer to a call, given once everything it says is durable.
pub(crate) struct Answer {
    /// The run after the call.
    pub(crate) summary: Box<RunSummary>,
    pub(crate) done: Done,
    /// Set where the run has ended.
    pub(crate) outcome: Option<(ChildOutcome, Json)>,
}

/// What a message did to a run that exists.
#[derive(Debug)]
pub(crate) enum Done {
    Created,
    /// A start found the run that it had made before.
    Existed,
    Applied,
    Rejected(Rejection),
}

/// Who waits for the answer. Dropping it without an answer tells a scheduler to send again, and a caller that it is not known.
pub(crate) struct Reply(Option<To>);

enum To {
    Report { id: u64, acks: mpsc::UnboundedSender<ReportAck> },
    Call(oneshot::Sender<Result<Answer>>),
    Timer,
}

impl Reply {
    pub(crate) fn report(id: u64, acks: mpsc::UnboundedSender<ReportAck>) -> Self {
        Self(Some(To::Report { id, acks }))
    }

    pub(crate) fn call() -> (Self, oneshot::Receiver<Result<Answer>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(To::Call(sender))), receiver)
    }

    /// Of a timer of the partition itself.
    pub(crate) fn timer() -> Self {
        Self(Some(To::Timer))
    }

    pub(crate) fn is_timer(&self) -> bool {
        matches!(self.0, Some(To::Timer))
    }

    /// The run is there; `run` is its state now.
    pub(crate) fn done(mut self, done: Done, run: Option<&Run>) {
        match self.0.take() {
            Some(To::Report { id, acks }) => {
                let (applied, message) = applied(&done);
                // A stream that is gone sends its items again on the next one.
                let _ = acks.send(ReportAck { id, applied: applied.into(), message });
            }
            Some(To::Call(sender)) => {
                let Some(run) = run else { return };
                let answer = Answer { summary: Box::new(run.summary.clone()), done, outcome: run.outcome() };
                let _ = sender.send(Ok(answer));
            }
            Some(To::Timer) | None => {}
        }
    }

    pub(crate) fn failed(mut self, error: Error) {
        match self.0.take() {
            Some(To::Report { id, acks }) => {
                let applied = match error.code {
                    // The run is not there (any more): nobody wants the result.
                    Code::NotFound => wire::Applied::Stale,
                    _ => wire::Applied::Retry,
                };
                let _ = acks.send(ReportAck { id, applied: applied.into(), message: error.message });
            }
            Some(To::Call(sender)) => {
                let _ = sender.send(Err(error));
            }
            Some(To::Timer) | None => {}
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(To::Report { id, acks }) = self.0.take() {
            let _ =
                acks.send(ReportAck { id, applied: wire::Applied::Retry.into(), message: "the partition's owner is changing".to_owned() });
        }
    }
}

fn applied(done: &Done) -> (wire::Applied, String) {
    match done {
        Done::Created | Done::Existed | Done::Applied => (wire::Applied::Yes, String::new()),
        Done::Rejected(rejection) => {
            let applied = match rejection {
                Rejection::Duplicate | Rejection::Already => wire::Applied::Duplicate,
                Rejection::Stale(_) | Rejection::Ended => wire::Applied::Stale,
                Rejection::NotPossible(_) | Rejection::Limit(_) => wire::Applied::Refused,
            };
            (applied, rejection.to_string())
        }
    }
}

/// The error that a refused call is answered with.
pub(crate) fn refusal(rejection: Rejection) -> Error {
    match rejection {
        Rejection::Limit(text) => Error::new(Code::ResourceExhausted, text).with_reason("LIMIT"),
        Rejection::Ended => Error::precondition("the run has ended").with_reason("RUN_ENDED"),
        Rejection::Duplicate => Error::conflict("it was applied before").with_reason("DUPLICATE"),
        Rejection::Already => Error::precondition("it is so already").with_reason("ALREADY"),
        Rejection::Stale(text) => Error::precondition(format!("it is stale: {text}")).with_reason("STALE"),
        Rejection::NotPossible(text) => Error::precondition(text).with_reason("NOT_POSSIBLE"),
    }
}

/// JSON of one change, as watchers get it.
pub(crate) fn change_json(change: &Change) -> Bytes {
    serde_json::to_vec(change).map(Bytes::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_nobody_answers_is_to_be_sent_again() {
        let (acks, mut answers) = mpsc::unbounded_channel();
        drop(Reply::report(7, acks.clone()));
        Reply::report(8, acks.clone()).done(Done::Rejected(Rejection::Ended), None);
        Reply::report(9, acks).failed(Error::not_found("run x"));
        let got: Vec<(u64, i32)> = std::iter::from_fn(|| answers.try_recv().ok()).map(|ack| (ack.id, ack.applied)).collect();
        let (retry, stale) = (i32::from(wire::Applied::Retry), i32::from(wire::Applied::Stale));
        assert_eq!(got, [(7, retry), (8, stale), (9, stale)]);
    }
}
