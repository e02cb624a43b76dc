//! The reader of one process: it waits for all topics that have subscribers here, and gives each what is its.

use super::{BusSettings, Entry, Id, add_mark, entry_of, too_many};
use crate::{
    clock::Millis,
    link::{
        Connection, Link,
        reply::{array, fields, text},
    },
    metrics,
    report::backoff,
};
use redis::{Pipeline, RedisResult, Value};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, mpsc};
use troupe_domain::Error;

/// One call waits so long at most, in milliseconds.
const BLOCK: Millis = 2_000;

/// Beyond this a call that should have come back is taken for lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Entries of one topic in one answer.
const AT_ONCE: usize = 1_000;

/// Between looks at whether the topics are still there, at most.
const KEEP: Duration = Duration::from_secs(2);

/// Length of a topic's stream when only its mark is written anew.
const EVENTS_AFTER_LOSS: usize = 1_000;

pub(super) struct Reader {
    prefix: Box<str>,
    /// The stream that ends a wait when topics have come.
    wake: String,
    age: Millis,
    link: Link,
    shared: Mutex<Shared>,
    /// There are topics to read.
    some: Notify,
}

#[derive(Default)]
struct Shared {
    topics: HashMap<Box<str>, Topic>,
    subscribers: usize,
    last_seat: u64,
}

#[derive(Default)]
struct Topic {
    /// Read so far; `None`: nobody knows yet where to begin.
    position: Option<Id>,
    seats: Vec<(u64, mpsc::Sender<Entry>, Arc<AtomicBool>)>,
}

/// A subscriber's place. Dropped, it is free.
pub(super) struct Seat {
    reader: Arc<Reader>,
    topic: Box<str>,
    number: u64,
    past: VecDeque<Entry>,
    /// Nothing up to here is given (again).
    last: Id,
    receiver: Option<mpsc::Receiver<Entry>>,
    lagged: Arc<AtomicBool>,
}

impl Reader {
    pub(super) fn new(prefix: &str, age: Millis, link: Link) -> Self {
        let wake = format!("{{{prefix}:bus}}:wake:{}", uuid::Uuid::now_v7().simple());
        Self { prefix: prefix.into(), wake, age, link, shared: Mutex::default(), some: Notify::new() }
    }

    /// All topics have one hash tag: a blocking read is of one slot.
    pub(super) fn key(&self, topic: &str) -> String {
        format!("{{{}:bus}}:{topic}", self.prefix)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing in the sections under this lock panics half-way through a change.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn join(this: &Arc<Self>, topic: &str, settings: &BusSettings) -> Result<Seat, Error> {
        let mut shared = this.lock();
        if shared.subscribers >= settings.subscribers {
            return Err(too_many(settings.subscribers));
        }
        shared.subscribers += 1;
        shared.last_seat += 1;
        let number = shared.last_seat;
        let (sender, receiver) = mpsc::channel(settings.subscriber_queue.max(1));
        let lagged = Arc::new(AtomicBool::new(false));
        shared.topics.entry(topic.into()).or_default().seats.push((number, sender, Arc::clone(&lagged)));
        drop(shared);
        let reader = Arc::clone(this);
        Ok(Seat { reader, topic: topic.into(), number, past: VecDeque::new(), last: Id::default(), receiver: Some(receiver), lagged })
    }

    /// Reads for ever.
    pub(super) async fn run(self: Arc<Self>) {
        let mut backoff = backoff();
        loop {
            self.link.ready().await;
            match self.session(&mut backoff).await {
                Ok(()) => {}
                Err(error) => {
                    metrics::error("bus_reader");
                    tracing::warn!(%error, "events cannot be read from redis");
                }
            }
            backoff.wait().await;
        }
    }

    async fn session(&self, backoff: &mut troupe_wire::Backoff) -> RedisResult<()> {
        let mut connection = self.link.servers().reader(self.link.timeout()).await?;
        let mut woken = Id::default();
        loop {
            let asked = self.positions();
            if asked.is_empty() {
                self.some.notified().await;
                continue;
            }
            let answer = self.read(&mut connection, &asked, woken).await?;
            backoff.reset();
            for pair in streams(answer) {
                let Ok((key, entries)) = pair else { continue };
                if key == self.wake {
                    woken = entries.last().map_or(woken, |last| last.id);
                } else if let Some((topic, position)) = asked.iter().find(|(topic, _)| self.key(topic) == key) {
                    self.give(topic, *position, entries);
                }
            }
        }
    }

    async fn read(&self, connection: &mut Connection, asked: &[(Box<str>, Id)], woken: Id) -> RedisResult<Value> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(AT_ONCE).arg("BLOCK").arg(BLOCK).arg("STREAMS").arg(&self.wake);
        for (topic, _) in asked {
            command.arg(self.key(topic));
        }
        command.arg(woken.to_string());
        for (_, position) in asked {
            command.arg(position.to_string());
        }
        let answer = tokio::time::timeout(PATIENCE, command.query_async(connection)).await;
        answer.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
    }

    fn positions(&self) -> Vec<(Box<str>, Id)> {
        self.lock().topics.iter().filter_map(|(topic, state)| Some((topic.clone(), state.position?))).collect()
    }

    /// Gives entries to all who listen; who has no room left is cut off.
    fn give(&self, topic: &str, asked: Id, entries: Vec<Entry>) {
        let mut shared = self.lock();
        let Some(state) = shared.topics.get_mut(topic) else { return };
        // Somebody may have come in the meantime who needs what lies before.
        if state.position == Some(asked)
            && let Some(last) = entries.last()
        {
            state.position = Some(last.id);
        }
        for entry in entries.iter().filter(|entry| entry.event.is_some()) {
            state.seats.retain(|(_, sender, lagged)| match sender.try_send(entry.clone()) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    lagged.store(true, Ordering::Release);
                    false
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            });
        }
    }

    /// Keeps the streams of topics that have subscribers here: what is not to be kept goes only where there is one.
    pub(super) async fn keep_topics(self: Arc<Self>) {
        let every = KEEP.min(Duration::from_millis(self.age / 3)).max(Duration::from_millis(10));
        loop {
            tokio::time::sleep(every).await;
            // What fails now is tried again soon.
            let _ = self.touch().await;
        }
    }

    async fn touch(&self) -> Result<(), Error> {
        let keys: Vec<String> = self.lock().topics.keys().map(|topic| self.key(topic)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let mut commands = Pipeline::new();
        for key in &keys {
            commands.cmd("PEXPIRE").arg(key).arg(self.age);
        }
        let answers = self.link.run_all(&commands).await?;
        let mut marks = Pipeline::new();
        for (key, _) in keys.iter().zip(answers).filter(|(_, there)| *there == Value::Int(0)) {
            add_mark(&mut marks, key, EVENTS_AFTER_LOSS, self.age);
        }
        if !marks.is_empty() {
            self.link.run_all(&marks).await?;
        }
        Ok(())
    }

    /// Ends the wait that is going on, so that the next is for all topics.
    async fn wake(&self) -> Result<(), Error> {
        self.some.notify_one();
        let mut commands = Pipeline::new();
        add_mark(&mut commands, &self.wake, 1, 60_000);
        self.link.run_all(&commands).await.map(drop)
    }
}

/// The streams of an answer, by key.
fn streams(answer: Value) -> Vec<Result<(String, Vec<Entry>), Error>> {
    let pairs: Vec<(Value, Value)> = match answer {
        Value::Map(pairs) => pairs,
        other => array(other).unwrap_or_default().into_iter().filter_map(|pair| fields(pair).ok().map(|[key, list]| (key, list))).collect(),
    };
    let stream = |(key, list)| Ok((text(key)?, array(list)?.into_iter().map(entry_of).collect::<Result<Vec<_>, Error>>()?));
    pairs.into_iter().map(stream).collect()
}

impl Seat {
    /// The subscriber has `past`, and wants everything after `mark`.
    pub(super) async fn begin(&mut self, past: VecDeque<Entry>, mark: Id) -> Result<(), Error> {
        self.past = past;
        self.last = mark;
        let fresh = {
            let mut shared = self.reader.lock();
            let Some(topic) = shared.topics.get_mut(&self.topic) else { return Ok(()) };
            let fresh = topic.position.is_none();
            topic.position = Some(topic.position.map_or(mark, |known| known.min(mark)));
            fresh
        };
        if fresh { self.reader.wake().await } else { Ok(()) }
    }

    /// `None`: there is no more.
    pub(super) async fn next(&mut self) -> Option<Entry> {
        if let Some(entry) = self.past.pop_front() {
            return Some(entry);
        }
        loop {
            let entry = self.receiver.as_mut()?.recv().await?;
            if entry.id > self.last {
                self.last = entry.id;
                return Some(entry);
            }
        }
    }

    pub(super) fn has_lagged(&self) -> bool {
        self.receiver.is_some() && self.lagged.load(Ordering::Acquire)
    }

    pub(super) fn end(mut self) -> Self {
        self.receiver = None;
        self
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut shared = self.reader.lock();
        shared.subscribers -= 1;
        if let Some(topic) = shared.topics.get_mut(&self.topic) {
            topic.seats.retain(|(number, ..)| *number != self.number);
            if topic.seats.is_empty() {
                shared.topics.remove(&self.topic);
            }
        }
    }
}
