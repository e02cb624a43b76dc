//! What partitions are told, and how they answer.

use crate::{
    peers::convert,
    recovery::Lost,
    run::{Key, Run},
};
use bytes::Bytes;
use std::{collections::HashMap, sync::Arc};
use tokio::sync::{broadcast, mpsc, oneshot};
use troupe_domain::{Code, Error, Json, Result, RunId};
use troupe_engine::{
    Command, Definition, Event, EventKind, Rejection, RunState, Time,
    event::{ChildOutcome, Parent},
    run::Change,
};
use troupe_proto::{
    checkpoint::v1::RunSummary,
    executor::v1::{self as wire, ForwardAnswer, ReportAck},
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
    Resync(Lost, oneshot::Sender<()>),
}

/// What is to happen to a run, wherever it lives. Cheap to copy: it is kept until its answer is known, to be sent elsewhere if it must.
#[derive(Clone)]
pub(crate) enum Intent {
    /// `fresh`: the id was made up just now, so no such run can exist.
    Start {
        start: Arc<Start>,
        fresh: bool,
    },
    Apply(Arc<Event>),
}

impl Intent {
    pub(crate) fn apply(event: Event) -> Self {
        Self::Apply(Arc::new(event))
    }

    /// The operation on the run, where it is in memory here.
    pub(crate) fn op(self, reply: Reply) -> Op {
        match self {
            Self::Start { start, fresh } => Op::Start { start, fresh, reply },
            Self::Apply(event) => Op::Apply { event, reply },
        }
    }
}

pub(crate) enum Op {
    Start {
        start: Arc<Start>,
        /// The id was made up just now: no such run can exist.
        fresh: bool,
        reply: Reply,
    },
    Apply {
        event: Arc<Event>,
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
}

impl Start {
    pub(crate) fn parent(&self) -> Option<&Parent> {
        match &self.event.kind {
            EventKind::Started(started) => started.parent.as_ref(),
            _ => None,
        }
    }
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
    /// It was sent before, and what became of that was not known: what was found may be its own doing.
    pub(crate) repeated: bool,
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
    Report {
        id: u64,
        acks: mpsc::UnboundedSender<ReportAck>,
    },
    Call(oneshot::Sender<Result<Answer>>),
    /// Another executor, for one of its callers.
    Peer {
        id: u64,
        brief: bool,
        answers: mpsc::UnboundedSender<ForwardAnswer>,
    },
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

    /// `brief`: it does not want to know how the run is.
    pub(crate) fn peer(id: u64, brief: bool, answers: mpsc::UnboundedSender<ForwardAnswer>) -> Self {
        Self(Some(To::Peer { id, brief, answers }))
    }

    /// Of a timer of the partition itself.
    pub(crate) fn timer() -> Self {
        Self(Some(To::Timer))
    }

    pub(crate) fn is_timer(&self) -> bool {
        matches!(self.0, Some(To::Timer))
    }

    /// Whether it only matters what became of it, not how the run is then.
    pub(crate) fn is_brief(&self) -> bool {
        matches!(self.0, Some(To::Report { .. }))
    }

    /// Passes on what another executor answered.
    pub(crate) fn passed(mut self, answer: Result<Answer>) {
        match (self.0.take(), answer) {
            (Some(To::Call(sender)), answer) => {
                let _ = sender.send(answer);
            }
            (Some(To::Report { id, acks }), Ok(answer)) => acknowledge(id, &acks, &answer.done),
            (to, Err(error)) => Self(to).failed(error),
            (Some(To::Peer { .. } | To::Timer) | None, Ok(_)) => {}
        }
    }

    /// The run is there; `run` is its state now.
    pub(crate) fn done(mut self, done: Done, run: Option<&Run>) {
        match self.0.take() {
            Some(To::Report { id, acks }) => acknowledge(id, &acks, &done),
            Some(To::Call(sender)) => {
                let Some(run) = run else { return };
                let answer = Answer { summary: Box::new(run.summary.clone()), done, outcome: run.outcome(), repeated: false };
                let _ = sender.send(Ok(answer));
            }
            Some(To::Peer { id, brief, answers }) => {
                let run = run.filter(|_| !brief);
                let done = convert::done(&done, run.map(|run| (&run.summary, run.outcome())));
                // A stream that is gone tells its callers that nothing is known.
                let _ = answers.send(ForwardAnswer { id, result: Some(done) });
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
            Some(To::Peer { id, answers, .. }) => {
                let _ = answers.send(ForwardAnswer { id, result: Some(convert::failed(&error)) });
            }
            Some(To::Timer) | None => {}
        }
    }
}

fn acknowledge(id: u64, acks: &mpsc::UnboundedSender<ReportAck>, done: &Done) {
    let (applied, message) = applied(done);
    // A stream that is gone sends its items again on the next one.
    let _ = acks.send(ReportAck { id, applied: applied.into(), message });
}

impl Drop for Reply {
    fn drop(&mut self) {
        match self.0.take() {
            Some(To::Report { id, acks }) => {
                let message = "the partition's owner is changing".to_owned();
                let _ = acks.send(ReportAck { id, applied: wire::Applied::Retry.into(), message });
            }
            Some(To::Peer { id, answers, .. }) => {
                let _ = answers.send(ForwardAnswer { id, result: None });
            }
            Some(To::Call(_) | To::Timer) | None => {}
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
