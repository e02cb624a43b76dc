//! The queue in Redis, which several schedulers share. Each operation is one script for many tasks of one namespace, whose keys have one
//! hash tag; where that takes several scripts, they are sent together. See `redis/scripts/shared.lua` for the keys.
//!
//! Redis may lose everything, or what was written last. Each answer carries the namespace's generation and how many scripts of this scheduler
//! were run there: where one is another or the other goes back, the queue says [`QueueEvent::Lost`]. What could not be written while Redis was away, though
//! it had happened, is written when it is back.

mod call;
mod enqueue;
mod later;
mod owed;
mod signals;
mod space;
mod take;

use super::{
    Cancelled, Claim, Due, Ended, Enqueued, Fences, Handle, MAX_POSITION, NewTask, QueueEvent, QueueKey, QueueSettings, QueueStats,
    QueueStatus, Released, Taken, TaskKey, TaskQueue, TaskState, TaskView,
};
use crate::{
    clock::Millis,
    link::{
        Link,
        reply::{array, fields, maybe_number, number, text},
    },
};
use async_trait::async_trait;
use call::{Args, Scripts, fence_text};
use later::Later;
use owed::Owed;
use redis::Value;
use space::Space;
use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};
use troupe_domain::Error;
use troupe_proto::common::v1::Record;
use troupe_service_kit::Tasks;

/// Bytes of tasks after which a script takes no more.
const MOST_BYTES: usize = 8 << 20;

/// Due tasks looked at in one script.
const DUE_AT_ONCE: usize = 500;

/// Ready tasks that are looked at for [`QueueStats::oldest`].
const OLDEST_AMONG: usize = 100;

/// How long the ends of attempts are remembered: dispatches are not under way for longer.
const REMEMBERED: Millis = 10_000;

/// When a failed look is tried again at the earliest.
const RETRY: Millis = 200;

/// Redis counts exactly up to 2^53; no time of a task is later than this (in the year 128,000).
const LATEST: Millis = 4_000_000_000_000_000;

/// How a queue uses its Redis.
#[derive(Clone, Debug)]
pub struct RedisQueueSettings {
    pub queue: QueueSettings,
    /// What all keys begin with.
    pub prefix: String,
    /// How often to look for what others have changed.
    pub look: Duration,
}

/// See the module.
pub struct RedisQueue {
    link: Link,
    settings: QueueSettings,
    prefix: Arc<str>,
    /// Tells this scheduler's announcements from others'.
    me: String,
    look: Duration,
    fences: Fences,
    last_fence: u64,
    spaces: HashMap<Box<str>, Space>,
    listed: Option<Instant>,
    /// What this scheduler has settled and not removed. It holds their places while it lives.
    settled: HashMap<TaskKey, u64>,
    renewed: Millis,
    owed: Owed,
    later: Later,
    /// The last time that somebody told.
    now: Millis,
    /// No look before then.
    next_look: Millis,
    /// The connection that was last looked through.
    connection: u64,
    events: mpsc::Sender<QueueEvent>,
    to_core: Option<mpsc::Receiver<QueueEvent>>,
}

/// Events that wait for the core; one of those that look everywhere makes up for any that found no room.
const EVENTS: usize = 1_024;

impl RedisQueue {
    /// A queue on this connection; its listening to others ends with `tasks`.
    pub fn new(settings: RedisQueueSettings, link: Link, tasks: &Tasks) -> Self {
        let (events, to_core) = mpsc::channel(EVENTS);
        let me = uuid::Uuid::now_v7().simple().to_string();
        let prefix: Arc<str> = settings.prefix.into();
        let (stop, signals) = (tasks.token().clone(), signals::Signals::new(&prefix, &me, link.clone(), events.clone()));
        tasks.spawn("scheduler-signals", stop.clone().run_until_cancelled_owned(signals.listen()));
        tasks.spawn("scheduler-looks", stop.run_until_cancelled_owned(signals::look(settings.look, link.clone(), events.clone())));
        Self {
            link,
            settings: settings.queue,
            prefix,
            me,
            look: settings.look,
            fences: Fences::default(),
            last_fence: 0,
            spaces: HashMap::new(),
            listed: None,
            settled: HashMap::new(),
            renewed: 0,
            owed: Owed::default(),
            later: Later::default(),
            now: 0,
            next_look: 0,
            connection: 0,
            events,
            to_core: Some(to_core),
        }
    }

    fn scripts() -> &'static Scripts {
        static SCRIPTS: OnceLock<Scripts> = OnceLock::new();
        SCRIPTS.get_or_init(Scripts::new)
    }

    /// A settled task is another's to deliver again when nobody has spoken for it for so long.
    fn hold(&self) -> Millis {
        self.settings.lease
    }

    fn least_fence(&mut self, now: Millis) -> Vec<u8> {
        fence_text(self.fence(now))
    }

    fn ended(namespace: &str, values: Value) -> Result<Vec<Ended>, Error> {
        let one = |value| {
            let [id, fence, attempt, queue] = fields(value)?;
            Ok(Ended {
                handle: Handle { key: TaskKey::new(namespace, &text(id)?), fence: number(fence)? },
                attempt: u32::try_from(number(attempt)?).unwrap_or(u32::MAX),
                queue: QueueKey::named(namespace, &text(queue)?),
            })
        };
        array(values)?.into_iter().map(one).collect()
    }

    /// All that is due in one namespace. Nothing, and only what is ready, while `lenient`.
    async fn tick_in(&mut self, namespace: &str, now: Millis, lenient: bool, due: &mut Due) -> Result<(), Error> {
        loop {
            let most = if lenient { 0 } else { DUE_AT_ONCE };
            let mut args = Args::default();
            args.number(self.settings.lease).number(self.hold()).bytes(self.least_fence(now)).number(most as u64);
            let body = self.ask(namespace, &Self::scripts().tick, false, args).await?;
            let [ready, expired, timed_out, overdue, more] = fields(body)?;
            for queue in array(ready)? {
                due.ready.push(QueueKey::named(namespace, &text(queue)?));
            }
            due.expired.extend(Self::ended(namespace, expired)?);
            for (list, values) in [(&mut due.timed_out, timed_out), (&mut due.overdue, overdue)] {
                for ended in Self::ended(namespace, values)? {
                    self.last_fence = self.last_fence.max(ended.handle.fence);
                    self.settled.insert(ended.handle.key.clone(), ended.handle.fence);
                    list.push(ended);
                }
            }
            if lenient || number(more)? == 0 {
                return Ok(());
            }
        }
    }

    async fn look(&mut self, now: Millis) -> Result<Due, Error> {
        let connection = self.link.state().borrow().connections;
        // Signs of life could not be written while Redis was away: leases end only when everybody has had time to write theirs.
        let lenient = std::mem::replace(&mut self.connection, connection) != connection && connection > 1;
        self.pay(now).await?;
        self.renew(now).await?;
        self.list_namespaces().await?;
        let mut due = Due::default();
        let namespaces: Vec<Box<str>> = self.spaces.keys().cloned().collect();
        for namespace in namespaces {
            self.tick_in(&namespace, now, lenient, &mut due).await?;
        }
        if lenient {
            self.next_look = now + 2 * troupe_wire::millis(self.look);
        }
        due.ready.sort_unstable();
        due.ready.dedup();
        Ok(due)
    }

    fn view_of(namespace: &str, value: Value) -> Result<Option<TaskView>, Error> {
        let items = array(value)?;
        if items.is_empty() {
            return Ok(None);
        }
        let [queue, state, attempt, fence, ready_at, until, rank] = fields(Value::Array(items))?;
        let fence = number(fence)?;
        let state = match text(state)?.as_str() {
            "D" => TaskState::Delayed { until: number(ready_at)? },
            "R" => TaskState::Ready { position: (number(rank)? as usize + 1).min(MAX_POSITION) },
            "L" => TaskState::Leased { fence, until: number(until)? },
            _ => TaskState::Settled { fence },
        };
        let attempt = u32::try_from(number(attempt)?).unwrap_or(u32::MAX);
        Ok(Some(TaskView { queue: QueueKey::named(namespace, &text(queue)?), state, attempt }))
    }
}

#[async_trait]
impl TaskQueue for RedisQueue {
    async fn enqueue(&mut self, tasks: Vec<NewTask>, now: Millis) -> Result<Vec<Enqueued>, Error> {
        self.now = now;
        let mut out = vec![Enqueued::Ignored; tasks.len()];
        for (namespace, places) in call::by_namespace(&tasks, |new| &new.key) {
            let of_it: Vec<&NewTask> = places.iter().map(|at| &tasks[*at]).collect();
            let outcomes = self.enqueue_in(&namespace, &of_it, now).await?;
            places.into_iter().zip(outcomes).for_each(|(at, outcome)| out[at] = outcome);
        }
        Ok(out)
    }

    async fn enqueue_and_take(
        &mut self,
        tasks: Vec<NewTask>,
        queue: &QueueKey,
        max: usize,
        now: Millis,
    ) -> Result<(Vec<Enqueued>, Taken), Error> {
        self.enqueue_then_take(tasks, queue, max, now).await
    }

    fn fence(&mut self, now: Millis) -> u64 {
        self.last_fence = self.fences.next(now, self.last_fence);
        self.last_fence
    }

    async fn cancel(&mut self, keys: &[TaskKey]) -> Result<Vec<Option<Cancelled>>, Error> {
        let write = |_: &Self, key: &TaskKey, args: &mut Args| {
            args.text(key.task_id()).text("").number(0);
        };
        let mut head = Args::default();
        head.number(0);
        let answers = self.each(&Self::scripts().remove, &head, keys, |key| key, write).await?;
        let cancelled = keys.iter().zip(answers).map(|(key, value)| {
            self.settled.remove(key);
            let items = array(value)?;
            if items.is_empty() {
                return Ok(None);
            }
            let [queue, fence] = fields(Value::Array(items))?;
            Ok(Some(Cancelled { queue: QueueKey::named(key.namespace(), &text(queue)?), fence: maybe_number(fence)? }))
        });
        cancelled.collect()
    }

    async fn take(&mut self, queue: &QueueKey, max: usize, now: Millis) -> Result<Taken, Error> {
        self.now = now;
        let args = self.take_args(queue, max, now);
        let answer = self.ask(queue.namespace(), &Self::scripts().take, false, args).await?;
        self.taken(queue, answer)
    }

    async fn status(&mut self, queues: &[QueueKey]) -> Result<Vec<QueueStatus>, Error> {
        let keys: Vec<(TaskKey, &QueueKey)> = queues.iter().map(|queue| (TaskKey::new(queue.namespace(), ""), queue)).collect();
        let write = |_: &Self, (_, queue): &(TaskKey, &QueueKey), args: &mut Args| {
            args.text(queue.name());
        };
        let answers = self.each(&Self::scripts().status, &Args::default(), &keys, |(key, _)| key, write).await?;
        let status = |value| {
            let [ready, head] = fields(value)?;
            Ok(QueueStatus { ready: number(ready)? as usize, head: maybe_number(head)?.unwrap_or(0) })
        };
        answers.into_iter().map(status).collect()
    }

    async fn extend(&mut self, handles: &[Handle], now: Millis) -> Result<Vec<bool>, Error> {
        self.now = now;
        let mut head = Args::default();
        head.number(self.settings.lease);
        let answers = self.each(&Self::scripts().extend, &head, handles, |handle| &handle.key, call::write_handle).await;
        let answers = answers.inspect_err(|_| self.owed.extend(handles))?;
        answers.into_iter().map(|value| Ok(number(value)? == 1)).collect()
    }

    async fn claim(&mut self, handles: &[Handle], now: Millis) -> Result<Vec<Claim>, Error> {
        self.now = now;
        let mut head = Args::default();
        head.number(self.settings.lease);
        let answers = self.each(&Self::scripts().claim, &head, handles, |handle| &handle.key, call::write_handle).await?;
        let claim = |value| {
            Ok(match text(value)?.as_str() {
                "L" => Claim::Leased,
                "S" => Claim::Settled,
                "X" => Claim::Stale,
                _ => Claim::Unknown,
            })
        };
        answers.into_iter().map(claim).collect()
    }

    async fn resume(&mut self, handle: &Handle, attempt: u32, now: Millis) -> Result<bool, Error> {
        self.now = now;
        let mut args = Args::default();
        args.number(self.settings.lease).text(handle.key.task_id()).number(attempt.into()).bytes(fence_text(handle.fence));
        Ok(number(self.ask(handle.key.namespace(), &Self::scripts().resume, false, args).await?)? == 1)
    }

    async fn release(&mut self, handles: &[(Handle, Option<Arc<str>>)], now: Millis) -> Result<Vec<Released>, Error> {
        self.now = now;
        self.give_back(handles).await.inspect_err(|_| self.owed.release(handles))
    }

    async fn settle(&mut self, handles: &[Handle]) -> Result<Vec<bool>, Error> {
        // From here on this scheduler answers for them, whether it could be written or not.
        self.settle_now(handles).await.inspect_err(|_| self.owed.settle(handles))
    }

    async fn remove(&mut self, handles: &[Handle]) -> Result<(), Error> {
        let handles: Vec<(Handle, u32)> = handles.iter().map(|handle| (handle.clone(), 0)).collect();
        self.remove_soon(&handles, 0).await;
        Ok(())
    }

    async fn finish(&mut self, ended: &[(Handle, u32)]) -> Result<(), Error> {
        self.remove_soon(ended, REMEMBERED).await;
        Ok(())
    }

    async fn flush(&mut self) {
        self.heed_all().await;
    }

    async fn record(&mut self, records: Vec<(TaskKey, Record)>) -> Result<(), Error> {
        self.record_now(&records).await.inspect_err(|_| self.owed.record(&records))
    }

    async fn tick(&mut self, now: Millis) -> Result<Due, Error> {
        self.now = now;
        self.look(now).await.inspect_err(|_| self.next_look = now + RETRY)
    }

    fn next_due(&self) -> Option<Millis> {
        self.spaces.values().filter_map(|space| space.due).min().map(|at| at.max(self.next_look))
    }

    async fn list(&mut self, namespace: &str) -> Result<Vec<QueueStats>, Error> {
        let mut args = Args::default();
        args.number(OLDEST_AMONG as u64);
        let answers = array(self.ask(namespace, &Self::scripts().list, false, args).await?)?;
        let stats = |value| {
            let [queue, ready, delayed, active, oldest] = fields(value)?;
            Ok(QueueStats {
                queue: QueueKey::named(namespace, &text(queue)?),
                ready: number(ready)? as usize,
                delayed: number(delayed)? as usize,
                active: number(active)? as usize,
                oldest: maybe_number(oldest)?,
            })
        };
        let mut all = answers.into_iter().map(stats).collect::<Result<Vec<_>, Error>>()?;
        all.sort_unstable_by(|a, b| a.queue.cmp(&b.queue));
        Ok(all)
    }

    async fn view(&mut self, keys: &[TaskKey]) -> Result<Vec<Option<TaskView>>, Error> {
        let write = |_: &Self, key: &TaskKey, args: &mut Args| {
            args.text(key.task_id());
        };
        let answers = self.each(&Self::scripts().view, &Args::default(), keys, |key| key, write).await?;
        keys.iter().zip(answers).map(|(key, value)| Self::view_of(key.namespace(), value)).collect()
    }

    fn len(&self) -> usize {
        self.spaces.values().map(|space| space.count).sum()
    }

    fn events(&mut self) -> Option<mpsc::Receiver<QueueEvent>> {
        self.to_core.take()
    }

    async fn restore(&mut self, held: &[(Handle, u32)], now: Millis) -> Result<(), Error> {
        self.now = now;
        let mut head = Args::default();
        head.number(self.settings.lease);
        let write = |_: &Self, (handle, attempt): &(Handle, u32), args: &mut Args| {
            args.text(handle.key.task_id()).number((*attempt).into()).bytes(fence_text(handle.fence));
        };
        self.each_in(&Self::scripts().mark, &head, held, |(handle, _)| &handle.key, write).await
    }

    async fn stop_elsewhere(&mut self, stops: &[(Handle, String)]) -> Result<(), Error> {
        signals::tell(&self.link, &self.prefix, &self.me, stops).await
    }
}
