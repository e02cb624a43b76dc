//! Chunks of a run, from the event bus. While the bus is away there are none.

use crate::backoff::Backoff;
use futures::FutureExt;
use tokio::time::Instant;
use tonic::Streaming;
use troupe_proto::scheduler::v1::{SubscribeRequest, SubscribeResponse, scheduler_client::SchedulerClient};
use troupe_wire::Transport;

pub(super) type Chunk = SubscribeResponse;

pub(super) struct Chunks {
    client: SchedulerClient<Transport>,
    /// `None`: the watcher wants none.
    topic: Option<String>,
    cursor: String,
    stream: Option<Streaming<SubscribeResponse>>,
    backoff: Backoff,
    retry_at: Instant,
}

impl Chunks {
    pub(super) fn new(client: SchedulerClient<Transport>, topic: Option<String>, cursor: String) -> Self {
        Self { client, topic, cursor, stream: None, backoff: Backoff::default(), retry_at: Instant::now() }
    }

    /// The next chunk, whenever it comes. May be cancelled without losing one.
    pub(super) async fn next(&mut self) -> Chunk {
        let Some(topic) = self.topic.clone() else { return std::future::pending().await };
        loop {
            let Some(stream) = &mut self.stream else {
                tokio::time::sleep_until(self.retry_at).await;
                let request = SubscribeRequest { topic: topic.clone(), cursor: self.cursor.clone() };
                match self.client.subscribe(request).await {
                    Ok(answer) => self.stream = Some(answer.into_inner()),
                    Err(cause) => self.pause(&cause),
                }
                continue;
            };
            match stream.message().await {
                Ok(Some(chunk)) => {
                    self.backoff.reset();
                    self.cursor.clone_from(&chunk.cursor);
                    return chunk;
                }
                Ok(None) => self.pause(&tonic::Status::unavailable("the subscription ended")),
                Err(cause) => self.pause(&cause),
            }
        }
    }

    /// A chunk that has come already.
    pub(super) fn ready(&mut self) -> Option<Chunk> {
        self.stream.as_ref()?;
        self.next().now_or_never()
    }

    fn pause(&mut self, cause: &tonic::Status) {
        tracing::debug!(%cause, "chunks cannot be read");
        self.stream = None;
        self.retry_at = Instant::now() + self.backoff.next();
    }
}
