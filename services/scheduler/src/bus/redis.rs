//! The event bus in Redis, which several schedulers share: a stream for each topic, and one reader in each process that waits for all
//! topics of its subscribers at once. Cursors are the streams' ids.
//!
//! Retention: about [`BusSettings::events`] events a topic, fewer where they are large, and [`BusSettings::age`]. The topics in all are
//! bounded by their age and by the server's memory. An event that is not to be kept goes into its topic's stream too, but only where there
//! is one; who comes later skips it.

mod reader;

use super::{BusSettings, EventBus, EventStream, ONLY_NEW, lagged};
use crate::{
    clock::Millis,
    link::{
        Link,
        reply::{array, bytes, fields, text},
    },
};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use prost::Message;
use reader::{Reader, Seat};
use redis::{Pipeline, Value};
use std::{collections::HashSet, collections::VecDeque, sync::Arc};
use troupe_domain::{Code, Error};
use troupe_proto::scheduler::v1::{Event, SubscribeResponse};
use troupe_service_kit::Tasks;

/// Where in a topic an event is: milliseconds, and a number within them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Id(u64, u64);

impl Id {
    fn parse(text: &str) -> Option<Self> {
        let (ms, seq) = text.split_once('-').unwrap_or((text, "0"));
        Some(Self(ms.parse().ok()?, seq.parse().ok()?))
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// An event at its place.
#[derive(Clone, Debug)]
struct Entry {
    id: Id,
    /// `None`: a subscriber's mark.
    event: Option<Arc<Event>>,
}

/// What an entry's only field is called.
const EVENT: &str = "e";
const MARK: &str = "m";

/// See the module. Clones share the reader.
#[derive(Clone)]
pub struct RedisBus {
    settings: Arc<BusSettings>,
    link: Link,
    reader: Arc<Reader>,
}

impl RedisBus {
    /// A bus on this connection; its reader has its own, and ends with `tasks`.
    pub fn new(settings: BusSettings, prefix: &str, link: Link, tasks: &Tasks) -> Self {
        let reader = Arc::new(Reader::new(prefix, settings.age, link.clone()));
        let stop = tasks.token().clone();
        tasks.spawn("scheduler-bus", stop.clone().run_until_cancelled_owned(Arc::clone(&reader).run()));
        tasks.spawn("scheduler-bus-topics", stop.run_until_cancelled_owned(Arc::clone(&reader).keep_topics()));
        Self { settings: Arc::new(settings), link, reader }
    }

    /// So many events of this size are kept in a topic.
    fn most(&self, size: usize) -> usize {
        (self.settings.topic_bytes / size.max(1)).clamp(1, self.settings.events.max(1))
    }

    /// Marks a place in the topic: what comes after it is new.
    async fn mark(&self, topic: &str) -> Result<Id, Error> {
        let mut commands = Pipeline::new();
        add_mark(&mut commands, &self.reader.key(topic), self.settings.events, self.settings.age);
        let answer = self.link.run_all(&commands).await?.into_iter().next().unwrap_or_default();
        Id::parse(&text(answer)?).ok_or_else(Error::internal)
    }

    /// What is kept after `after`, up to `until`.
    async fn past(&self, topic: &str, after: Id, until: Id) -> Result<VecDeque<Entry>, Error> {
        let oldest = Id(until.0.saturating_sub(self.settings.age), 0).max(after);
        // Marks and events that are not kept take places too.
        let most = self.settings.events.saturating_mul(4);
        let mut command = redis::cmd("XREVRANGE");
        command.arg(self.reader.key(topic)).arg(until.to_string()).arg(format!("({oldest}")).arg("COUNT").arg(most);
        let entries = array(self.link.run(&command).await?)?.into_iter().map(entry_of).collect::<Result<Vec<_>, _>>()?;
        let kept = entries.into_iter().filter(|entry| entry.event.as_ref().is_some_and(|event| event.retain));
        let mut kept: VecDeque<Entry> = kept.take(self.settings.events).collect();
        kept.make_contiguous().reverse();
        Ok(kept)
    }
}

fn add_mark(commands: &mut Pipeline, key: &str, events: usize, age: Millis) {
    commands.cmd("XADD").arg(key).arg("MAXLEN").arg("~").arg(events.max(1)).arg("*").arg(MARK).arg("");
    commands.cmd("PEXPIRE").arg(key).arg(age);
}

fn entry_of(value: Value) -> Result<Entry, Error> {
    let [id, pairs] = fields(value)?;
    let id = Id::parse(&text(id)?).ok_or_else(Error::internal)?;
    let [name, data] = fields(pairs)?;
    let event = if text(name)? == EVENT {
        // An event that this version cannot read is left out.
        Event::decode(bytes::Bytes::from(bytes(data)?)).ok().map(Arc::new)
    } else {
        None
    };
    Ok(Entry { id, event })
}

#[async_trait]
impl EventBus for RedisBus {
    async fn publish(&self, events: Vec<Event>) -> Result<(), Error> {
        if events.is_empty() {
            return Ok(());
        }
        let mut commands = Pipeline::new();
        let mut kept = HashSet::new();
        for event in &events {
            let (key, data) = (self.reader.key(&event.topic), event.encode_to_vec());
            let command = commands.cmd("XADD").arg(&key);
            if !event.retain && !kept.contains(&key) {
                command.arg("NOMKSTREAM");
            }
            command.arg("MAXLEN").arg("~").arg(self.most(data.len())).arg("*").arg(EVENT).arg(data);
            if event.retain {
                kept.insert(key);
            }
        }
        for key in kept {
            commands.cmd("PEXPIRE").arg(key).arg(self.settings.age).ignore();
        }
        self.link.run_all(&commands).await.map(drop)
    }

    async fn subscribe(&self, topic: &str, cursor: &str) -> Result<EventStream, Error> {
        let after = match cursor {
            "" => Some(Id::default()),
            ONLY_NEW => None,
            text => Some(Id::parse(text).ok_or_else(|| {
                Error::invalid_field("cursor", "is not one of this bus")
                    .with_help("leave it empty, use '$', or send one that a response carried")
            })?),
        };
        let mut seat = Reader::join(&self.reader, topic, &self.settings)?;
        let mark = self.mark(topic).await?;
        let past = match after {
            Some(after) => self.past(topic, after, mark).await?,
            None => VecDeque::new(),
        };
        seat.begin(past, mark).await?;
        Ok(stream::unfold(seat, next).boxed())
    }
}

async fn next(mut seat: Seat) -> Option<(Result<SubscribeResponse, Error>, Seat)> {
    loop {
        let Some(entry) = seat.next().await else {
            if !seat.has_lagged() {
                return None;
            }
            return Some((Err(lagged()), seat.end()));
        };
        let Some(event) = entry.event else { continue };
        return Some((Ok(SubscribeResponse { cursor: entry.id.to_string(), event: Some((*event).clone()) }), seat));
    }
}

fn too_many(most: usize) -> Error {
    Error::new(Code::ResourceExhausted, format!("there are {most} subscribers already, no more are allowed"))
        .with_help("close some streams, or raise scheduler.bus.subscribers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_and_read_back() {
        let id = Id::parse("1526919030474-55").expect("an id");
        assert_eq!((id, id.to_string().as_str()), (Id(1_526_919_030_474, 55), "1526919030474-55"));
        assert!(Id(1, 9) < Id(2, 0) && Id(2, 0) < Id(2, 1));
        assert_eq!(Id::parse("yesterday"), None);
    }
}
