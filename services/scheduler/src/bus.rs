//! The event bus behind its trait: topics with a short memory, cursors, and subscribers that cannot hold anybody up.

pub mod memory;
pub mod redis;

pub use memory::{BusSettings, MemoryBus};
pub use redis::RedisBus;

use async_trait::async_trait;
use futures::stream::BoxStream;
use troupe_domain::{Code, Error};
use troupe_proto::scheduler::v1::{Event, SubscribeResponse};

/// Events in order. An error ends the stream; with the last cursor one may subscribe again.
pub type EventStream = BoxStream<'static, Result<SubscribeResponse, Error>>;

/// The cursor that stands for "only what is new".
pub const ONLY_NEW: &str = "$";

/// Topics of events. Not durable: retention is bounded by count, age, bytes and the number of topics.
#[async_trait]
pub trait EventBus: Send + Sync + 'static {
    /// Gives events to their topics, in order. Those with `retain` are kept for late subscribers; others reach only who is there.
    async fn publish(&self, events: Vec<Event>) -> Result<(), Error>;
    /// What is retained after `cursor` (empty: all of it, `"$"`: nothing), then new events. A subscriber that reads too slowly gets
    /// [`lagged`] after what it had been given, and no event twice. Errors: INVALID_ARGUMENT for a cursor that is none,
    /// RESOURCE_EXHAUSTED for too many subscribers.
    async fn subscribe(&self, topic: &str, cursor: &str) -> Result<EventStream, Error>;
}

/// The end of a subscription that was too slow.
pub fn lagged() -> Error {
    let mut error = Error::new(Code::ResourceExhausted, "the subscriber read more slowly than events came, and some were left out")
        .with_reason("LAGGED")
        .with_help("subscribe again with the last cursor you got");
    error.retry_after_ms = Some(0);
    error
}
