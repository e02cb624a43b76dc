//! Chunks of a run, from the event bus. While the bus is away there are none.

use crate::backoff::Backoff;
use futures::FutureExt;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Streaming;
use troupe_proto::scheduler::v1::{SubscribeRequest, SubscribeResponse, scheduler_client::SchedulerClient};
use troupe_wire::Transport;

/// How long the first subscription may take.
const OPEN: Duration = Duration::from_secs(1);

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

    /// Subscribes, so that what the bus holds is on its way; gives up soon where the bus is away.
    pub(super) async fn open(&mut self) {
        if let Some(topic) = self.topic.clone()
            && tokio::time::timeout(OPEN, self.subscribe(topic)).await.is_err()
        {
            self.pause(&tonic::Status::deadline_exceeded("the bus does not answer in time"));
        }
    }

    async fn subscribe(&mut self, topic: String) {
        let request = SubscribeRequest { topic, cursor: self.cursor.clone() };
        match self.client.subscribe(request).await {
            Ok(answer) => self.stream = Some(answer.into_inner()),
            Err(cause) => self.pause(&cause),
        }
    }

    /// The next chunk, whenever it comes. May be cancelled without losing one.
    pub(super) async fn next(&mut self) -> Chunk {
        let Some(topic) = self.topic.clone() else { return std::future::pending().await };
        loop {
            let Some(stream) = &mut self.stream else {
                tokio::time::sleep_until(self.retry_at).await;
                self.subscribe(topic.clone()).await;
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
