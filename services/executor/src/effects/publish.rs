//! News for the event bus. It is best effort: while the bus is away, news is dropped; watchers read the journal.

use crate::backlog::Work;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use troupe_proto::scheduler::v1::{Event, PublishRequest, scheduler_client::SchedulerClient};
use troupe_wire::Transport;

const BATCH: usize = 512;

/// How long news is dropped after the bus was lost.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Publisher {
    pub(crate) client: SchedulerClient<Transport>,
    pub(crate) work: Work<Event>,
    pub(crate) token: CancellationToken,
}

impl Publisher {
    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let token = self.token.clone();
        loop {
            let lost = tokio::select! {
                () = token.cancelled() => return,
                lost = self.session() => lost,
            };
            let Some(cause) = lost else { return };
            tracing::debug!(%cause, "the event bus is away");
            tokio::select! {
                () = token.cancelled() => return,
                () = self.discard() => {}
            }
        }
    }

    /// Publishes until the stream is lost; `None`: there will be no more events.
    async fn session(&mut self) -> Option<tonic::Status> {
        let mut events = Vec::new();
        if !self.work.take(&mut events, BATCH).await {
            return None;
        }
        let (requests, outbound) = mpsc::channel(2);
        let _ = requests.try_send(PublishRequest { events: std::mem::take(&mut events) });
        let mut answers = match self.client.publish(ReceiverStream::new(outbound)).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return Some(status),
        };
        loop {
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(_)) => {}
                    Ok(None) => return Some(tonic::Status::unavailable("the publish stream ended")),
                    Err(status) => return Some(status),
                },
                more = forward(&mut self.work, &requests) => if !more { return None },
            }
        }
    }

    /// Drops what comes in for a while.
    async fn discard(&mut self) {
        let pause = tokio::time::sleep(PAUSE);
        tokio::pin!(pause);
        let mut events = Vec::new();
        loop {
            tokio::select! {
                () = &mut pause => return,
                more = self.work.take(&mut events, BATCH) => if more { events.clear() } else { return },
            }
        }
    }
}

/// Sends the next batch as soon as there is one and the stream has room. Nothing is taken before there is room, so it may be cancelled.
async fn forward(work: &mut Work<Event>, requests: &mpsc::Sender<PublishRequest>) -> bool {
    let Ok(permit) = requests.reserve().await else { return std::future::pending().await };
    let mut events = Vec::new();
    let more = work.take(&mut events, BATCH).await;
    if more {
        permit.send(PublishRequest { events });
    }
    more
}
