//! The stream of records and results to the executor. An item stays here until the executor's answer is final; a lost stream is opened
//! again and everything unanswered is sent again.

use crate::{core::Message, metrics};
use prost::Message as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Status, Streaming};
use troupe_proto::executor::v1::{
    Applied, ReportAck, ReportItem, ReportRequest, ReportResponse, effect_service_client::EffectServiceClient,
};
use troupe_wire::{Backoff, MAX_MESSAGE, Transport};

/// Bytes in one request; a single larger item goes alone.
const BATCH_BYTES: usize = 4 << 20;

/// Between attempts to open the stream, and before an item that was not durable is sent again.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Requests handed to the transport that it has not taken yet. Few: what waits here cannot join a batch.
const IN_FLIGHT: usize = 4;

/// See the module.
pub struct Reporter {
    pub transport: Transport,
    pub batch: usize,
    pub inbox: mpsc::UnboundedReceiver<ReportItem>,
    pub core: mpsc::Sender<Message>,
    /// Why there is no stream; empty while there is one, or none is needed.
    pub state: watch::Sender<String>,
}

/// Items without a final answer.
#[derive(Default)]
struct Unanswered {
    items: BTreeMap<u64, (ReportItem, Backoff)>,
    /// What is to be sent, in the order of the ids.
    to_send: BTreeSet<u64>,
    /// What is to be sent again later.
    later: BTreeSet<(Instant, u64)>,
}

impl Unanswered {
    fn add(&mut self, item: ReportItem) {
        self.to_send.insert(item.id);
        self.items.insert(item.id, (item, backoff()));
    }

    fn restart(&mut self) {
        self.later.clear();
        self.to_send.extend(self.items.keys().copied());
    }

    /// The next request, of what is to be sent; `None`: nothing is.
    fn request(&mut self, most: usize) -> Option<ReportRequest> {
        let (mut items, mut bytes) = (Vec::new(), 0);
        while items.len() < most
            && let Some(id) = self.to_send.pop_first()
        {
            let Some((item, _)) = self.items.get(&id) else { continue };
            bytes += item.encoded_len();
            if bytes > BATCH_BYTES && !items.is_empty() {
                self.to_send.insert(id);
                break;
            }
            items.push(item.clone());
        }
        (!items.is_empty()).then_some(ReportRequest { items })
    }

    /// Takes answers and gives back those that are final.
    fn answer(&mut self, acks: Vec<ReportAck>, now: Instant) -> Vec<ReportAck> {
        let mut last = Vec::with_capacity(acks.len());
        for ack in acks {
            match (ack.applied(), self.items.get_mut(&ack.id)) {
                (_, None) => {}
                (Applied::Retry | Applied::Unspecified, Some((_, backoff))) => {
                    self.later.insert((now + backoff.next(), ack.id));
                }
                (_, Some(_)) => {
                    self.items.remove(&ack.id);
                    self.to_send.remove(&ack.id);
                    last.push(ack);
                }
            }
        }
        last
    }

    fn wake_at(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    fn wake(&mut self, now: Instant) {
        while let Some((at, id)) = self.later.first().copied()
            && at <= now
        {
            self.later.pop_first();
            if self.items.contains_key(&id) {
                self.to_send.insert(id);
            }
        }
    }
}

/// Of streams and items.
pub(crate) const fn backoff() -> Backoff {
    Backoff::new(FIRST_WAIT, LONGEST_WAIT)
}

impl Reporter {
    /// Runs until the core has gone.
    pub async fn run(mut self) {
        let mut unanswered = Unanswered::default();
        let mut backoff = backoff();
        loop {
            // The stream is opened when there is something to say; until then none is missed.
            if unanswered.items.is_empty() {
                self.state.send_replace(String::new());
                let Some(item) = self.inbox.recv().await else { return };
                unanswered.add(item);
            }
            unanswered.restart();
            let Err(status) = self.stream(&mut unanswered, &mut backoff).await else { return };
            metrics::error("report_stream");
            tracing::warn!(status = status.message(), waiting = unanswered.items.len(), "the stream to the executor was lost");
            self.state.send_replace(format!("{:?}: {}", status.code(), status.message()));
            backoff.wait().await;
        }
    }

    /// One stream, until it is lost (`Err`) or the core has gone (`Ok`).
    async fn stream(&mut self, unanswered: &mut Unanswered, backoff: &mut Backoff) -> Result<(), Status> {
        let mut client =
            EffectServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        let (requests, receiver) = mpsc::channel(IN_FLIGHT);
        // The first request goes along: a server may wait for it before it answers.
        if let Some(request) = unanswered.request(self.batch) {
            let _ = requests.try_send(request);
        }
        let mut answers: Streaming<ReportResponse> = client.report(ReceiverStream::new(receiver)).await?.into_inner();
        let mut fresh = Vec::new();
        loop {
            let wake = unanswered.wake_at();
            tokio::select! {
                answer = answers.next() => {
                    let response = answer.unwrap_or_else(|| Err(Status::unavailable("the executor closed the stream")))?;
                    backoff.reset();
                    self.state.send_if_modified(|state| !std::mem::take(state).is_empty());
                    let last = unanswered.answer(response.acks, Instant::now());
                    if !last.is_empty() && self.core.send(Message::Acks(last)).await.is_err() {
                        return Ok(());
                    }
                }
                count = self.inbox.recv_many(&mut fresh, self.batch) => {
                    if count == 0 {
                        return Ok(());
                    }
                    fresh.drain(..).for_each(|item| unanswered.add(item));
                }
                permit = requests.reserve(), if !unanswered.to_send.is_empty() => {
                    let permit = permit.map_err(|_| Status::unavailable("the executor closed the stream"))?;
                    if let Some(request) = unanswered.request(self.batch) {
                        permit.send(request);
                    }
                }
                () = sleep_until(wake), if wake.is_some() => unanswered.wake(Instant::now()),
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    tokio::time::sleep_until(at.unwrap_or_else(Instant::now)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: u64) -> ReportItem {
        ReportItem { id, report: None }
    }

    fn ack(id: u64, applied: Applied) -> ReportAck {
        ReportAck { id, applied: applied.into(), message: String::new() }
    }

    fn ids(request: Option<ReportRequest>) -> Vec<u64> {
        request.map(|request| request.items.iter().map(|item| item.id).collect()).unwrap_or_default()
    }

    #[test]
    fn a_large_item_goes_alone() {
        use troupe_proto::executor::v1::{TaskCompleted, TaskReport, task_report::Outcome};
        let large = |id: u64| {
            let outcome = Some(Outcome::Completed(TaskCompleted { output: vec![b'1'; 3 << 20].into() }));
            ReportItem { id, report: Some(TaskReport { outcome, ..TaskReport::default() }) }
        };
        let mut unanswered = Unanswered::default();
        unanswered.add(item(1));
        unanswered.add(large(2));
        unanswered.add(large(3));
        unanswered.add(item(4));
        assert_eq!(ids(unanswered.request(9)), [1, 2]);
        assert_eq!(ids(unanswered.request(9)), [3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn items_stay_until_their_answer_is_final() {
        let mut unanswered = Unanswered::default();
        (1..=3).for_each(|id| unanswered.add(item(id)));
        assert_eq!(ids(unanswered.request(2)), [1, 2]);
        assert_eq!(ids(unanswered.request(2)), [3]);
        assert_eq!(unanswered.request(2), None);
        let last = unanswered.answer(vec![ack(1, Applied::Yes), ack(2, Applied::Retry), ack(9, Applied::Yes)], Instant::now());
        assert_eq!(last.iter().map(|ack| ack.id).collect::<Vec<_>>(), [1]);
        tokio::time::advance(FIRST_WAIT).await;
        unanswered.wake(Instant::now());
        assert_eq!(ids(unanswered.request(2)), [2], "only the one that was not durable");
        unanswered.restart();
        assert_eq!(ids(unanswered.request(9)), [2, 3], "a new stream repeats all that is unanswered");
    }
}
