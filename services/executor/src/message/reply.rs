//! Who waits for an answer, and how it gets there.

use super::{Answer, Done};
use crate::{peers::convert, run::Run};
use tokio::sync::{mpsc, oneshot};
use troupe_domain::{Code, Error, Result};
use troupe_engine::Rejection;
use troupe_proto::executor::v1::{self as wire, ForwardAnswer, ReportAck};

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
