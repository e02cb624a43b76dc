//! The way of chunks to the bus: bounded, and the oldest give way. Results never come this way.

use crate::{bus::EventBus, metrics};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Notify;
use troupe_proto::scheduler::v1::Event;

/// The largest chunk, in bytes; the SDKs cut longer ones.
pub const MAX_CHUNK: usize = 256 << 10;

/// Bytes that may wait.
const MAX_WAITING: usize = 64 << 20;

/// Events in one call of the bus.
const BATCH: usize = 512;

/// Events between the scheduling core and the bus. Clones share the queue.
#[derive(Clone)]
pub struct Chunks {
    most: usize,
    waiting: Arc<Mutex<Waiting>>,
    ready: Arc<Notify>,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Event>,
    bytes: usize,
}

impl Waiting {
    fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.bytes -= event.data.len();
        Some(event)
    }
}

impl Chunks {
    /// At most `most` events wait.
    pub fn new(most: usize) -> Self {
        Self { most, waiting: Arc::default(), ready: Arc::default() }
    }

    /// Adds an event; answers how many old ones had to give way.
    pub fn push(&self, event: Event) -> usize {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.bytes += event.data.len();
        waiting.events.push_back(event);
        let mut dropped = 0;
        while waiting.events.len() > self.most || waiting.bytes > MAX_WAITING {
            waiting.pop();
            dropped += 1;
        }
        drop(waiting);
        self.ready.notify_one();
        dropped
    }

    fn take(&self) -> Vec<Event> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| waiting.pop()).take(BATCH).collect()
    }

    /// Publishes what comes, for ever.
    pub async fn publish(self, bus: Arc<dyn EventBus>) {
        loop {
            let events = self.take();
            if events.is_empty() {
                self.ready.notified().await;
            } else if let Err(error) = bus.publish(events).await {
                metrics::error("bus");
                tracing::warn!(%error, "chunks were not published");
            }
        }
    }
}

/// A chunk's data as an event carries it: JSON. Texts and logs become JSON strings, and so does what is no JSON.
pub fn json_of(kind: &str, data: Bytes) -> Bytes {
    let is_text = matches!(kind, "text" | "log");
    if !is_text && serde_json::from_slice::<serde::de::IgnoredAny>(&data).is_ok() {
        return data;
    }
    serde_json::Value::String(String::from_utf8_lossy(&data).into_owned()).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_give_way() {
        let chunks = Chunks::new(2);
        let event = |step: &str| Event { step: step.into(), ..Event::default() };
        assert_eq!(chunks.push(event("a")) + chunks.push(event("b")), 0);
        assert_eq!(chunks.push(event("c")), 1);
        let left: Vec<String> = chunks.take().into_iter().map(|event| event.step).collect();
        assert_eq!(left, ["b", "c"]);
    }

    #[test]
    fn data_of_an_event_is_json() {
        assert_eq!(json_of("text", Bytes::from_static(b"42 \"x\"")), "\"42 \\\"x\\\"\"");
        assert_eq!(json_of("json", Bytes::from_static(b"{\"a\":1}")), "{\"a\":1}");
        assert_eq!(json_of("usage", Bytes::from_static(b"{broken")), "\"{broken\"");
    }
}
