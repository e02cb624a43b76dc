//! What workers said of their tasks: each item goes to its run's partition, and its answer comes back once it is durable.

use super::{Api, MAX_TEXT, key};
use crate::message::{Intent, Reply};
use futures::{StreamExt, stream::BoxStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};
use troupe_domain::{Error, Result};
use troupe_engine::{Event, EventKind, event::Failure};
use troupe_proto::executor::v1::{self as wire, task_report::Outcome};

/// Answers of one message.
const ACKS: usize = 512;

/// The ways back to one scheduler.
struct Acks {
    /// Of records: a task waits for them.
    records: mpsc::UnboundedSender<wire::ReportAck>,
    /// Of ends: workers keep results until they come, and do other work meanwhile.
    ends: mpsc::UnboundedSender<wire::ReportAck>,
}

/// Serves one scheduler's stream. Answers come in any order; those that nobody waits for gather for a moment.
pub(super) fn serve(api: Api, mut items: Streaming<wire::ReportRequest>) -> BoxStream<'static, Result<wire::ReportResponse, Status>> {
    // As many answers wait here as the scheduler has items under way, which it bounds.
    let (records, at_once) = mpsc::unbounded_channel();
    let (ends, soon) = mpsc::unbounded_channel();
    let acks = Acks { records, ends };
    let tasks = api.shared.tasks.clone();
    tasks.clone().spawn("reports", async move {
        loop {
            let batch = tokio::select! {
                () = tasks.cancelled() => return,
                () = acks.ends.closed() => return,
                batch = items.message() => batch,
            };
            match batch {
                Ok(Some(batch)) => {
                    for item in batch.items {
                        api.take(item, &acks).await;
                    }
                }
                Ok(None) => return,
                Err(cause) => {
                    tracing::debug!(%cause, "a report stream was lost");
                    return;
                }
            }
        }
    });
    let soon = tokio_stream::StreamExt::chunks_timeout(UnboundedReceiverStream::new(soon), ACKS, troupe_wire::GATHER);
    let answers = futures::stream::select(UnboundedReceiverStream::new(at_once).ready_chunks(ACKS), soon);
    answers.map(|acks| Ok(wire::ReportResponse { acks })).boxed()
}

impl Api {
    /// Passes an item on; what cannot be passed on is answered at once.
    async fn take(&self, item: wire::ReportItem, acks: &Acks) {
        let id = item.id;
        let is_record = item.report.as_ref().is_some_and(|report| matches!(report.outcome, Some(Outcome::Recorded(_))));
        let acks = if is_record { &acks.records } else { &acks.ends };
        let refuse = |message: String| {
            // A stream that is gone sends its items again on the next one.
            let _ = acks.send(wire::ReportAck { id, applied: wire::Applied::Refused.into(), message });
        };
        let Some(report) = item.report else { return refuse("the report is empty".to_owned()) };
        let key = match key(&report.namespace, &report.run_id) {
            Ok(key) => key,
            Err(error) => return refuse(error.message),
        };
        let event = match self.event(report) {
            Ok(event) => event,
            Err(error) => return refuse(error.message),
        };
        let reply = Reply::report(id, acks.clone());
        // Where it cannot be sent, the reply is dropped with it, and that asks the scheduler to send it again.
        if let Err(cause) = self.shared.router.post(key, Intent::apply(event), String::new(), reply).await {
            tracing::debug!(%cause, "a report has no owner now");
        }
    }

    fn event(&self, report: wire::TaskReport) -> Result<Event> {
        let wire::TaskReport { step, attempt, fence, agent, worker, choice, outcome, .. } = report;
        match outcome {
            Some(Outcome::Recorded(recorded)) => {
                super::short(&recorded.name, "record.name", MAX_TEXT)?;
                let value = self.payload(&recorded.value, "record.value")?;
                Ok(Event::with(EventKind::TaskRecorded { step, attempt, fence, index: recorded.index, name: recorded.name }, value))
            }
            Some(Outcome::Completed(completed)) => {
                let output = self.payload(&completed.output, "output")?;
                Ok(Event::with(EventKind::TaskCompleted { step, attempt, fence, agent, worker, choice }, output))
            }
            Some(Outcome::Failed(failed)) => {
                let failure = failure(failed.failure.unwrap_or_default());
                Ok(Event::new(EventKind::TaskFailed { step, attempt, fence, agent, worker, choice, failure }))
            }
            None => Err(Error::invalid("the report says nothing of the task")),
        }
    }
}

/// A failure as it is journaled: never without a code, never with a text that nobody reads to its end.
fn failure(failure: troupe_proto::common::v1::Failure) -> Failure {
    let code = if failure.code.is_empty() { "UNKNOWN".to_owned() } else { cut(failure.code, 128) };
    Failure {
        code,
        message: cut(failure.message, 16 << 10),
        retryable: failure.retryable,
        retry_after_ms: Some(failure.retry_after_ms).filter(|ms| *ms > 0),
    }
}

fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("abc".into(), 3), "abc");
        assert_eq!(cut("abä".into(), 3), "ab…");
    }
}
