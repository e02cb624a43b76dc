//! The queue in Redis when Redis is flushed, restarted, cut off or stopped, and when two schedulers share it.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod server;
mod several;

use std::{collections::HashSet, time::Duration};
use tokio::sync::mpsc::Receiver;
use troupe_domain::Code;
use troupe_proto::scheduler::v1::Task;
use troupe_scheduler::{
    link::{Link, RedisConfig},
    queue::{
        Claim, Enqueued, Handle, NewTask, QueueEvent, QueueKey, QueueSettings, RedisQueue, RedisQueueSettings, Released, TaskKey, TaskQueue,
    },
};
use troupe_service_kit::Tasks;
use troupe_testkit::Redis;

const NOW: u64 = 1_800_000_000_000;
const LEASE: u64 = 30_000;

/// One scheduler's queue.
struct Replica {
    queue: RedisQueue,
    events: Receiver<QueueEvent>,
    link: Link,
    _tasks: Tasks,
}

impl Replica {
    async fn on(config: &RedisConfig) -> Self {
        let tasks = Tasks::new();
        let link = server::link(config, &tasks).await;
        let queue = QueueSettings { lease: LEASE, aging: 30_000, max_deliveries: 3, max_tasks: 10_000, max_namespace_tasks: 10_000 };
        let settings = RedisQueueSettings { queue, prefix: config.prefix.clone(), look: config.look() };
        let mut queue = RedisQueue::new(settings, link.clone(), &tasks);
        let events = queue.events().unwrap();
        Self { queue, events, link, _tasks: tasks }
    }

    async fn add(&mut self, ids: impl IntoIterator<Item = String>) -> Vec<Enqueued> {
        self.queue.enqueue(ids.into_iter().map(|id| task(&id)).collect(), NOW).await.unwrap()
    }

    async fn take(&mut self, max: usize, now: u64) -> Vec<Handle> {
        let taken = self.queue.take(&queue_key(), max, now).await.unwrap();
        taken.deliveries.into_iter().map(|delivery| Handle { key: delivery.key, fence: delivery.fence }).collect()
    }

    /// Looks around as the core does until a look succeeds.
    async fn look(&mut self) {
        let work = async {
            while self.queue.tick(NOW).await.is_err() {
                self.events.recv().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), work).await.expect("redis comes back");
    }

    /// Looks around until it says that tasks were lost.
    async fn loses(&mut self) {
        let work = async {
            while self.events.recv().await.unwrap() != QueueEvent::Lost {
                // It may be away still.
                let _ = self.queue.tick(NOW).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), work).await.expect("the loss is seen");
    }

    fn has_lost(&mut self) -> bool {
        std::iter::from_fn(|| self.events.try_recv().ok()).any(|event| event == QueueEvent::Lost)
    }
}

fn queue_key() -> QueueKey {
    QueueKey::agent("default", "a")
}

fn key(id: &str) -> TaskKey {
    TaskKey::new("default", &format!("run/{id}"))
}

fn task(id: &str) -> NewTask {
    NewTask {
        key: key(id),
        queue: queue_key(),
        task: Box::new(Task { task_id: format!("run/{id}"), attempt: 1, ..Task::default() }),
        since: NOW,
        not_before: None,
        timeout: 600_000,
        deadline: None,
        held: None,
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn quick(url: &str) -> RedisConfig {
    RedisConfig { timeout: "300ms".into(), ..server::config(url) }
}

#[tokio::test]
async fn a_flush_is_seen_and_what_workers_have_is_not_delivered_again() {
    let server = Redis::start().unwrap();
    let config = server::config(&server.url());
    let (mut one, mut other) = (Replica::on(&config).await, Replica::on(&config).await);
    one.add(names(&["running", "waiting"])).await;
    let running = other.take(1, NOW).await.remove(0);
    other.queue.tick(NOW).await.unwrap();
    one.queue.tick(NOW).await.unwrap();
    one.link.run(&redis::cmd("FLUSHALL")).await.unwrap();
    one.loses().await;
    other.loses().await;
    assert_eq!((one.queue.len(), other.queue.len()), (0, 0));
    // The scheduler whose worker runs it says so; the executor dispatches both at the other one.
    other.queue.restore(&[(running.clone(), 1)], NOW).await.unwrap();
    assert_eq!(one.add(names(&["running", "waiting"])).await, [Enqueued::Added, Enqueued::Added]);
    let taken = one.take(9, NOW).await;
    assert_eq!(taken.iter().map(|handle| handle.key.step()).collect::<Vec<_>>(), ["waiting"]);
    assert!(taken[0].fence > running.fence, "fences grow over a flush");
    assert_eq!(other.queue.settle(std::slice::from_ref(&running)).await.unwrap(), [true]);
    assert!(!other.has_lost(), "one loss is told once");
}

#[tokio::test]
async fn a_restart_is_survived_and_seen() {
    let mut server = Redis::start().unwrap();
    let mut replica = Replica::on(&quick(&server.url())).await;
    replica.add(names(&["a"])).await;
    let before = replica.take(1, NOW).await.remove(0);
    server.kill().unwrap();
    for _ in 0..3 {
        let error = replica.queue.enqueue(vec![task("b")], NOW).await.unwrap_err();
        assert_eq!(error.code, Code::Unavailable);
    }
    server.begin().unwrap();
    replica.loses().await;
    replica.look().await;
    replica.add(names(&["a", "b"])).await;
    let after = replica.take(9, NOW).await;
    assert_eq!(after.len(), 2);
    assert!(after.iter().all(|handle| handle.fence > before.fence));
}

/// As in a fail-over to a copy that is behind: what was written last is gone, and others have gone on before its author asks again.
#[tokio::test]
async fn who_wrote_what_a_copy_does_not_have_sees_the_loss() {
    let server = Redis::start().unwrap();
    let config = RedisConfig { look: "1h".into(), ..server::config(&server.url()) };
    let (mut one, mut other) = (Replica::on(&config).await, Replica::on(&config).await);
    one.add(names(&["kept"])).await;
    other.queue.tick(NOW).await.unwrap();
    let keys: Vec<String> = redis::from_redis_value(one.link.run(redis::cmd("KEYS").arg("*")).await.unwrap()).unwrap();
    for key in &keys {
        one.link.run(redis::cmd("COPY").arg(key).arg(key).arg("DB").arg(1)).await.unwrap();
    }
    one.add(names(&["lost"])).await;
    one.link.run(redis::cmd("SWAPDB").arg(0).arg(1)).await.unwrap();
    for _ in 0..9 {
        other.queue.tick(NOW).await.unwrap();
    }
    assert!(!other.has_lost(), "all that it wrote is there");
    one.queue.tick(NOW).await.unwrap();
    assert!(one.has_lost());
    assert_eq!(one.add(names(&["kept", "lost"])).await, [Enqueued::Ignored, Enqueued::Added]);
}

#[tokio::test]
async fn what_happens_while_redis_hangs_is_written_afterwards() {
    let server = Redis::start().unwrap();
    let config = quick(&server.url());
    let mut replica = Replica::on(&config).await;
    replica.add(names(&["done", "given-back", "alive"])).await;
    let handles = replica.take(3, NOW).await;
    server.pause().unwrap();
    let [done, back, alive] = handles.as_slice() else { panic!("three were taken") };
    assert_eq!(replica.queue.settle(std::slice::from_ref(done)).await.unwrap_err().code, Code::Unavailable);
    replica.queue.remove(std::slice::from_ref(done)).await.expect("nobody waits for it");
    assert!(replica.queue.release(&[(back.clone(), None)], NOW).await.is_err());
    assert!(replica.queue.extend(std::slice::from_ref(alive), NOW + LEASE - 1).await.is_err());
    assert!(replica.queue.record(vec![(alive.key.clone(), Default::default())]).await.is_err());
    server.wake().unwrap();
    replica.look().await;
    assert!(!replica.has_lost(), "nothing was lost");
    assert_eq!(replica.queue.view(&[key("done")]).await.unwrap(), [None]);
    assert_eq!(replica.take(9, NOW).await.iter().map(|handle| handle.key.step()).collect::<Vec<_>>(), ["given-back"]);
    assert_eq!(replica.queue.claim(std::slice::from_ref(alive), NOW).await.unwrap(), [Claim::Leased]);
}

#[tokio::test]
async fn a_cut_connection_is_opened_again() {
    let server = Redis::start().unwrap();
    let config = server::config(&server.url());
    let mut replica = Replica::on(&config).await;
    replica.add(names(&["a"])).await;
    for _ in 0..5 {
        let witness = server::link(&config, &Tasks::new()).await;
        witness.run(redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("NORMAL").arg("SKIPME").arg("YES")).await.unwrap();
        replica.look().await;
    }
    assert!(!replica.has_lost());
    assert_eq!(replica.take(1, NOW).await.len(), 1);
}

#[tokio::test]
async fn two_schedulers_never_have_a_task_at_once() {
    const MANY: usize = 2_000;
    let config = server::config(&server::url());
    let mut giver = Replica::on(&config).await;
    giver.add((0..MANY).map(|i| i.to_string())).await;
    let drain = |mut replica: Replica| async move {
        let mut all = Vec::new();
        loop {
            let taken = replica.take(7, NOW).await;
            if taken.is_empty() {
                return all;
            }
            all.extend(taken);
        }
    };
    let (one, other) = tokio::join!(drain(Replica::on(&config).await), drain(Replica::on(&config).await));
    assert!(!one.is_empty() && !other.is_empty(), "both had some: {} and {}", one.len(), other.len());
    let keys: HashSet<&TaskKey> = one.iter().chain(&other).map(|handle| &handle.key).collect();
    let fences: HashSet<u64> = one.iter().chain(&other).map(|handle| handle.fence).collect();
    assert_eq!((one.len() + other.len(), keys.len(), fences.len()), (MANY, MANY, MANY));
}

#[tokio::test]
async fn what_a_scheduler_had_that_died_comes_back() {
    let config = server::config(&server::url());
    let (mut dead, mut alive) = (Replica::on(&config).await, Replica::on(&config).await);
    dead.add(names(&["running", "settled"])).await;
    let handles = dead.take(2, NOW).await;
    assert_eq!(dead.queue.settle(&handles[1..]).await.unwrap(), [true]);
    drop(dead);
    assert!(alive.queue.tick(NOW + LEASE - 1).await.unwrap().expired.is_empty());
    assert_eq!(alive.queue.len(), 2, "it has found the namespace that another one began");
    let expired = alive.queue.tick(NOW + LEASE + 1).await.unwrap().expired;
    let found: HashSet<&Handle> = expired.iter().map(|ended| &ended.handle).collect();
    assert_eq!(found, handles.iter().collect(), "also the one whose result nobody has written");
    let back: Vec<_> = expired.iter().map(|ended| (ended.handle.clone(), None)).collect();
    assert_eq!(alive.queue.release(&back, NOW).await.unwrap(), [Released::Requeued; 2]);
    let again = alive.take(9, NOW + LEASE + 1).await;
    assert!(again.len() == 2 && again.iter().all(|handle| handle.fence > handles[1].fence));
}

#[tokio::test]
async fn a_scheduler_that_lives_keeps_what_it_has_settled() {
    let config = server::config(&server::url());
    let (mut one, mut other) = (Replica::on(&config).await, Replica::on(&config).await);
    one.add(names(&["a"])).await;
    let handles = one.take(1, NOW).await;
    one.queue.settle(&handles).await.unwrap();
    for now in [LEASE / 2, LEASE, LEASE * 3 / 2, LEASE * 2].map(|after| NOW + after) {
        assert!(one.queue.tick(now).await.unwrap().expired.is_empty());
        assert!(other.queue.tick(now).await.unwrap().expired.is_empty());
    }
}

/// Who recovers a run dispatches what it had pending a moment ago.
#[tokio::test]
async fn a_dispatch_that_crosses_with_the_end_of_its_attempt_is_ignored() {
    let config = server::config(&server::url());
    let (mut one, mut other) = (Replica::on(&config).await, Replica::on(&config).await);
    one.add(names(&["a", "b", "c"])).await;
    let ended: Vec<(Handle, u32)> = one.take(2, NOW).await.into_iter().map(|handle| (handle, 1)).collect();
    one.queue.finish(&ended).await.unwrap();
    one.queue.flush().await;
    assert_eq!(other.add(names(&["a", "b", "c"])).await, [Enqueued::Ignored; 3]);
    let mut next = task("a");
    next.task.attempt = 2;
    assert_eq!(other.queue.enqueue(vec![next], NOW).await.unwrap(), [Enqueued::Added]);
    // What was removed without an end may come again, and so may what is new by the word of its run.
    let rest = other.take(9, NOW).await;
    other.queue.remove(&rest).await.unwrap();
    other.queue.flush().await;
    let mut new = task("b");
    new.task.first = true;
    assert_eq!(one.queue.enqueue(vec![task("c"), new], NOW).await.unwrap(), [Enqueued::Added; 2]);
}

#[tokio::test]
async fn schedulers_tell_each_other() {
    let config = RedisConfig { look: "1h".into(), ..server::config(&server::url()) };
    let (mut one, mut other) = (Replica::on(&config).await, Replica::on(&config).await);
    // Its first look means that it listens.
    assert_eq!(other.events.recv().await, Some(QueueEvent::Look));
    one.add(names(&["a"])).await;
    let stop = (Handle { key: key("a"), fence: 7 }, "why not".to_owned());
    one.queue.stop_elsewhere(std::slice::from_ref(&stop)).await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let event = tokio::time::timeout(Duration::from_secs(10), other.events.recv()).await.unwrap().unwrap();
        if event != QueueEvent::Look {
            heard.push(event);
        }
    }
    assert_eq!(heard, [QueueEvent::Ready(queue_key()), QueueEvent::Stop(stop.0, stop.1)]);
}
