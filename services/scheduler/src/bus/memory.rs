//! The event bus of one process.

mod topic;

use super::{EventBus, EventStream, ONLY_NEW, lagged};
use crate::clock::{Clock, Millis};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::mpsc;
use topic::{Stored, Subscriber, Topic};
use troupe_domain::{Code, Error};
use troupe_proto::scheduler::v1::{Event, SubscribeResponse};

/// Bounds of a [`MemoryBus`].
#[derive(Clone, Debug)]
pub struct BusSettings {
    /// Events kept in one topic.
    pub events: usize,
    /// Bytes kept in one topic.
    pub topic_bytes: usize,
    /// How long an event is kept.
    pub age: Millis,
    /// Topics that keep events; the one published to longest ago goes first.
    pub topics: usize,
    /// Bytes kept in all.
    pub bytes: usize,
    /// Events waiting for one subscriber before it is told that it lagged.
    pub subscriber_queue: usize,
    /// Subscribers in all.
    pub subscribers: usize,
}

/// Topics in memory. Publishing never waits for a subscriber.
#[derive(Clone)]
pub struct MemoryBus {
    settings: Arc<BusSettings>,
    clock: Clock,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    topics: HashMap<Arc<str>, Topic>,
    /// The topics that keep events, by their newest event.
    recency: BTreeMap<u64, Arc<str>>,
    /// Of the last event. It begins at the clock, so that cursors grow over restarts and over topics that were forgotten.
    seq: u64,
    bytes: usize,
    subscribers: usize,
}

impl MemoryBus {
    pub fn new(settings: BusSettings, clock: Clock) -> Self {
        let shared = Shared { seq: clock.now() << 20, ..Shared::default() };
        Self { settings: Arc::new(settings), clock, shared: Arc::new(Mutex::new(shared)) }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing in the sections under this lock panics half-way through a change.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Topics (with events or subscribers) and bytes held.
    pub fn size(&self) -> (usize, usize) {
        let shared = self.lock();
        (shared.topics.len(), shared.bytes)
    }
}

impl Shared {
    fn publish(&mut self, event: Event, settings: &BusSettings, now: Millis) {
        let known = self.topics.get_key_value(event.topic.as_str()).map(|(name, _)| Arc::clone(name));
        if known.is_none() && !event.retain {
            return;
        }
        let name = known.unwrap_or_else(|| event.topic.as_str().into());
        self.seq += 1;
        let stored = Stored { seq: self.seq, at: now, event: Arc::new(event) };
        let topic = self.topics.entry(Arc::clone(&name)).or_default();
        topic.give(&stored);
        if stored.event.retain {
            self.recency.remove(&topic.newest());
            self.bytes -= topic.bytes();
            topic.keep(stored, settings, now);
            self.bytes += topic.bytes();
            self.recency.insert(topic.newest(), name);
            self.shrink(settings, now);
        }
    }

    /// Empties the topics that are too old or too many, oldest first.
    fn shrink(&mut self, settings: &BusSettings, now: Millis) {
        while let Some((_, name)) = self.recency.first_key_value() {
            let over = self.recency.len() > settings.topics || self.bytes > settings.bytes;
            let old = self.topics.get(name).is_none_or(|topic| topic.newest_at() + settings.age < now);
            if !over && !old {
                return;
            }
            let Some((_, name)) = self.recency.pop_first() else { return };
            if let Some(topic) = self.topics.get_mut(&name) {
                self.bytes -= topic.bytes();
                topic.clear();
                if !topic.has_subscribers() {
                    self.topics.remove(&name);
                }
            }
        }
    }

    fn subscribe(&mut self, name: &str, after: Option<u64>, settings: &BusSettings, now: Millis) -> Result<Subscriber, Error> {
        if self.subscribers >= settings.subscribers {
            let text = format!("there are {} subscribers already, no more are allowed", settings.subscribers);
            return Err(Error::new(Code::ResourceExhausted, text).with_help("close some streams, or raise scheduler.bus.subscribers"));
        }
        self.subscribers += 1;
        let topic = self.topics.entry(name.into()).or_default();
        let past = after.map(|seq| topic.after(seq, now.saturating_sub(settings.age))).unwrap_or_default();
        let (sender, receiver) = mpsc::channel(settings.subscriber_queue.max(1));
        let lagged = topic.join(sender);
        Ok(Subscriber { past: past.into(), receiver, lagged })
    }

    fn unsubscribe(&mut self, name: &str) {
        self.subscribers -= 1;
        if self.topics.get_mut(name).is_some_and(|topic| !topic.has_subscribers() && topic.bytes() == 0) {
            self.topics.remove(name);
        }
    }
}

/// Gives the place back, however the subscription ends.
struct Seat {
    bus: MemoryBus,
    topic: Box<str>,
    /// Dropped before the topic is looked at: a field of the seat, so that the order is certain.
    subscriber: Option<Subscriber>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.subscriber = None;
        self.bus.lock().unsubscribe(&self.topic);
    }
}

#[async_trait]
impl EventBus for MemoryBus {
    async fn publish(&self, events: Vec<Event>) -> Result<(), Error> {
        let now = self.clock.now();
        let mut shared = self.lock();
        for event in events {
            shared.publish(event, &self.settings, now);
        }
        Ok(())
    }

    async fn subscribe(&self, topic: &str, cursor: &str) -> Result<EventStream, Error> {
        let after = match cursor {
            "" => Some(0),
            ONLY_NEW => None,
            text => Some(text.parse().map_err(|_| {
                Error::invalid_field("cursor", "is not one of this bus")
                    .with_help("leave it empty, use '$', or send one that a response carried")
            })?),
        };
        let subscriber = self.lock().subscribe(topic, after, &self.settings, self.clock.now())?;
        let seat = Seat { bus: self.clone(), topic: topic.into(), subscriber: Some(subscriber) };
        Ok(stream::unfold(seat, next).boxed())
    }
}

async fn next(mut seat: Seat) -> Option<(Result<SubscribeResponse, Error>, Seat)> {
    let subscriber = seat.subscriber.as_mut()?;
    let stored = match subscriber.past.pop_front() {
        Some(stored) => Some(stored),
        None => subscriber.receiver.recv().await,
    };
    let item = match stored {
        Some(stored) => Ok(SubscribeResponse { cursor: stored.seq.to_string(), event: Some((*stored.event).clone()) }),
        None if subscriber.has_lagged() => Err(lagged()),
        None => return None,
    };
    if item.is_err() {
        seat.subscriber = None;
    }
    Some((item, seat))
}
