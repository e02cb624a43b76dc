//! What every task queue must do. A backend is tested by adding it to `backends!`.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod random;
#[path = "../redis/server.rs"]
mod server;

use futures::future::BoxFuture;
use std::collections::HashSet;
use troupe_proto::{common::v1::Record, scheduler::v1::Task};
use troupe_scheduler::queue::{
    Cancelled, Claim, Ended, Enqueued, Handle, Limit, MemoryQueue, NewTask, QueueKey, QueueSettings, QueueStatus, RedisQueue,
    RedisQueueSettings, Released, TaskKey, TaskQueue, TaskState,
};
use troupe_service_kit::Tasks;

const NOW: u64 = 1_800_000_000_000;

type Queue = Box<dyn TaskQueue>;

fn settings() -> QueueSettings {
    QueueSettings { lease: 30_000, aging: 30_000, max_deliveries: 3, max_tasks: 1_000, max_namespace_tasks: 1_000 }
}

fn memory(settings: QueueSettings) -> BoxFuture<'static, Queue> {
    let queue: Queue = Box::new(MemoryQueue::new(settings));
    Box::pin(std::future::ready(queue))
}

fn redis(settings: QueueSettings) -> BoxFuture<'static, Queue> {
    Box::pin(async move {
        let (config, tasks) = (server::config(&server::url()), Tasks::new());
        let link = server::link(&config, &tasks).await;
        let settings = RedisQueueSettings { queue: settings, prefix: config.prefix.clone(), look: config.look() };
        let queue: Queue = Box::new(RedisQueue::new(settings, link, &tasks));
        queue
    })
}

macro_rules! backends {
    ($($backend:ident: $($test:ident)*;)*) => {
        $(mod $backend {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::$backend).await;
            })*
        })*
    };
}

backends! {
    memory: order_is_by_aged_priority_then_age enqueue_is_idempotent a_newer_attempt_replaces delayed_tasks_become_ready
        leases_expire_and_progress_renews_them lost_deliveries_come_back_until_they_are_too_many old_fences_do_nothing
        held_deliveries_are_taken_up_again records_travel_with_redeliveries time_limits_end_tasks cancel_forgets limits_are_kept
        queues_and_tasks_can_be_looked_at a_settled_task_holds_its_place a_held_task_starts_leased
        deliveries_from_before_a_loss_go_on fences_grow a_hundred_thousand_tasks_pass_through;
    redis: order_is_by_aged_priority_then_age enqueue_is_idempotent a_newer_attempt_replaces delayed_tasks_become_ready
        leases_expire_and_progress_renews_them lost_deliveries_come_back_until_they_are_too_many old_fences_do_nothing
        held_deliveries_are_taken_up_again records_travel_with_redeliveries time_limits_end_tasks cancel_forgets limits_are_kept
        queues_and_tasks_can_be_looked_at a_settled_task_holds_its_place a_held_task_starts_leased
        deliveries_from_before_a_loss_go_on fences_grow a_hundred_thousand_tasks_pass_through;
}

type Make = fn(QueueSettings) -> BoxFuture<'static, Queue>;

fn key(id: &str) -> TaskKey {
    TaskKey::new("default", &format!("run/{id}"))
}

fn queue_key() -> QueueKey {
    QueueKey::agent("default", "a")
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

fn attempt(id: &str, attempt: u32) -> NewTask {
    let mut new = task(id);
    new.task.attempt = attempt;
    new
}

async fn add(queue: &mut Queue, tasks: Vec<NewTask>) -> Vec<Enqueued> {
    queue.enqueue(tasks, NOW).await.unwrap()
}

/// Takes up to `max` tasks; their ids and fences.
async fn take(queue: &mut Queue, max: usize, now: u64) -> Vec<(String, Handle)> {
    let taken = queue.take(&queue_key(), max, now).await.unwrap();
    taken.deliveries.into_iter().map(|d| (d.key.step().to_owned(), Handle { key: d.key, fence: d.fence })).collect()
}

async fn take_one(queue: &mut Queue, now: u64) -> Handle {
    take(queue, 1, now).await.pop().expect("a ready task").1
}

fn handles_of(ended: Vec<Ended>) -> Vec<Handle> {
    ended.into_iter().map(|ended| ended.handle).collect()
}

fn ids(taken: &[(String, Handle)]) -> Vec<&str> {
    taken.iter().map(|(id, _)| id.as_str()).collect()
}

async fn order_is_by_aged_priority_then_age(make: Make) {
    let mut queue = make(settings()).await;
    let with = |id: &str, priority: u32, since: u64| {
        let mut new = task(id);
        new.task.priority = priority;
        NewTask { since, ..new }
    };
    add(
        &mut queue,
        vec![
            with("low-but-very-old", 3, NOW - 91_000),
            with("urgent", 0, NOW),
            with("low", 5, NOW),
            with("first", 1, NOW),
            with("second", 1, NOW),
            with("aged-a-level", 1, NOW - 30_000 - 1),
        ],
    )
    .await;
    let taken = take(&mut queue, 9, NOW).await;
    assert_eq!(ids(&taken), ["low-but-very-old", "aged-a-level", "urgent", "first", "second", "low"]);
}

async fn enqueue_is_idempotent(make: Make) {
    let mut queue = make(settings()).await;
    assert_eq!(
        add(&mut queue, vec![attempt("a", 2), attempt("a", 2), attempt("a", 1)]).await,
        [Enqueued::Added, Enqueued::Ignored, Enqueued::Ignored]
    );
    assert_eq!(take(&mut queue, 9, NOW).await.len(), 1);
    assert_eq!(add(&mut queue, vec![attempt("a", 2)]).await, [Enqueued::Ignored], "also while it runs");
    assert_eq!(queue.len(), 1);
    let mut other = attempt("a", 1);
    other.key = TaskKey::new("other", "run/a");
    assert_eq!(add(&mut queue, vec![other]).await, [Enqueued::Added], "another namespace's task of the same id is another task");
}

async fn a_newer_attempt_replaces(make: Make) {
    let mut queue = make(settings()).await;
    add(&mut queue, vec![attempt("a", 1)]).await;
    assert_eq!(add(&mut queue, vec![attempt("a", 2)]).await, [Enqueued::Replaced(None)]);
    let second = take_one(&mut queue, NOW).await;
    assert_eq!(add(&mut queue, vec![attempt("a", 3)]).await, [Enqueued::Replaced(Some(second.fence))]);
    assert_eq!(queue.claim(std::slice::from_ref(&second), NOW).await.unwrap(), [Claim::Stale]);
    assert_eq!(queue.settle(std::slice::from_ref(&second)).await.unwrap(), [false]);
    let third = queue.take(&queue_key(), 9, NOW).await.unwrap().deliveries;
    assert_eq!((third.len(), third[0].task.attempt, third[0].number), (1, 3, 1));
    assert!(third[0].fence > second.fence);
}

async fn delayed_tasks_become_ready(make: Make) {
    let mut queue = make(settings()).await;
    add(&mut queue, vec![NewTask { not_before: Some(NOW + 5_000), ..task("later") }]).await;
    assert!(take(&mut queue, 1, NOW).await.is_empty());
    assert_eq!(queue.next_due(), Some(NOW + 5_000));
    assert!(queue.tick(NOW + 4_999).await.unwrap().ready.is_empty());
    assert_eq!(queue.tick(NOW + 5_000).await.unwrap().ready, [queue_key()]);
    assert_eq!(ids(&take(&mut queue, 1, NOW + 5_000).await), ["later"]);
}

async fn leases_expire_and_progress_renews_them(make: Make) {
    let mut queue = make(settings()).await;
    add(&mut queue, vec![task("a")]).await;
    let handle = take_one(&mut queue, NOW).await;
    assert!(queue.tick(NOW + 29_999).await.unwrap().expired.is_empty());
    assert_eq!(queue.extend(std::slice::from_ref(&handle), NOW + 29_999).await.unwrap(), [true]);
    assert!(queue.tick(NOW + 30_000).await.unwrap().expired.is_empty(), "it made progress");
    let due = queue.tick(NOW + 59_999).await.unwrap();
    assert_eq!(handles_of(due.expired), std::slice::from_ref(&handle));
    let wrong = Handle { fence: handle.fence + 1, ..handle };
    assert_eq!(queue.extend(&[wrong], NOW).await.unwrap(), [false]);
}

async fn lost_deliveries_come_back_until_they_are_too_many(make: Make) {
    let mut queue = make(settings()).await;
    add(&mut queue, vec![task("a"), NewTask { since: NOW + 1, ..task("b") }]).await;
    for number in 1..=3 {
        let delivery = queue.take(&queue_key(), 1, NOW).await.unwrap().deliveries.pop().unwrap();
        assert_eq!((delivery.key.step(), delivery.number), ("a", number), "it keeps its place before b");
        assert_eq!(delivery.avoid.as_deref(), (number > 1).then_some("w1"));
        let handle = Handle { key: delivery.key, fence: delivery.fence };
        let outcome = queue.release(&[(handle, Some("w1".into()))], NOW).await.unwrap();
        assert_eq!(outcome, [if number < 3 { Released::Requeued } else { Released::Exhausted }]);
    }
    assert_eq!(ids(&take(&mut queue, 9, NOW).await), ["b"]);
    assert!(matches!(queue.view(&[key("a")]).await.unwrap()[0].as_ref().unwrap().state, TaskState::Settled { .. }));
}

async fn old_fences_do_nothing(make: Make) {
    let mut queue = make(settings()).await;
    add(&mut queue, vec![task("a")]).await;
    let old = take_one(&mut queue, NOW).await;
    queue.release(&[(old.clone(), None)], NOW).await.unwrap();
    let new = take_one(&mut queue, NOW).await;
    assert!(new.fence > old.fence);
    assert_eq!(queue.release(&[(old.clone(), None)], NOW).await.unwrap(), [Released::Stale]);
    assert_eq!(queue.settle(std::slice::from_ref(&old)).await.unwrap(), [false]);
    assert_eq!(queue.claim(std::slice::from_ref(&old), NOW).await.unwrap(), [Claim::Stale]);
    queue.remove(&[old]).await.unwrap();
    assert_eq!(queue.len(), 1);
    assert_eq!(queue.settle(&[new]).await.unwrap(), [true]);
}

async fn held_deliveries_are_taken_up_again(make: Make) {
    let mut queue = make(settings()).await;
    add(&mut queue, vec![task("a")]).await;
    let handle = take_one(&mut queue, NOW).await;
    queue.release(&[(handle.clone(), None)], NOW).await.unwrap();
    assert_eq!(queue.claim(std::slice::from_ref(&handle), NOW).await.unwrap(), [Claim::Leased]);
    assert!(take(&mut queue, 9, NOW).await.is_empty(), "it is not ready any more");
    assert_eq!(queue.settle(std::slice::from_ref(&handle)).await.unwrap(), [true]);
    assert_eq!(queue.claim(std::slice::from_ref(&handle), NOW).await.unwrap(), [Claim::Settled]);
    let nobodys = Handle { key: key("nobody"), fence: 7 };
    assert_eq!(queue.claim(&[nobodys], NOW).await.unwrap(), [Claim::Unknown]);
}

/// Only for backends that can lose deliveries: they are all gone when the process is.
async fn deliveries_from_before_a_loss_go_on(make: Make) {
    let mut before = make(settings()).await;
    add(&mut before, vec![task("a")]).await;
    let old = take_one(&mut before, NOW).await;
    before.release(&[(old.clone(), None)], NOW).await.unwrap();
    let new = take_one(&mut before, NOW).await;

    let mut queue = make(settings()).await;
    add(&mut queue, vec![task("a"), attempt("b", 2)]).await;
    assert!(!queue.resume(&Handle { key: key("b"), fence: old.fence }, 1, NOW).await.unwrap(), "an older attempt");
    assert!(queue.resume(&old, 1, NOW).await.unwrap());
    assert_eq!(ids(&take(&mut queue, 9, NOW).await), ["b"], "the worker has it");
    assert!(queue.resume(&new, 1, NOW).await.unwrap(), "a newer delivery counts more");
    assert!(!queue.resume(&old, 1, NOW).await.unwrap());
    assert_eq!(queue.claim(std::slice::from_ref(&new), NOW).await.unwrap(), [Claim::Leased]);
    queue.release(&[(new.clone(), None)], NOW).await.unwrap();
    let third = take_one(&mut queue, NOW).await;
    assert!(third.fence > new.fence);
    assert!(!queue.resume(&new, 1, NOW).await.unwrap(), "it was delivered since");

    let mut queue = make(settings()).await;
    let mut known = task("a");
    known.task.last_fence = new.fence + (1 << 40);
    add(&mut queue, vec![known.clone()]).await;
    assert!(!queue.resume(&new, 1, NOW).await.unwrap(), "the run has seen a greater fence");
    assert!(take_one(&mut queue, NOW).await.fence > known.task.last_fence);
}

async fn records_travel_with_redeliveries(make: Make) {
    let mut queue = make(settings()).await;
    add(&mut queue, vec![task("a")]).await;
    let handle = take_one(&mut queue, NOW).await;
    let record = |index: u32, name: &str| (key("a"), Record { index, name: name.into(), ..Record::default() });
    queue.record(vec![record(1, "one"), record(0, "zero"), record(1, "again")]).await.unwrap();
    queue.release(&[(handle, None)], NOW).await.unwrap();
    let delivery = queue.take(&queue_key(), 1, NOW).await.unwrap().deliveries.pop().unwrap();
    let names: Vec<&str> = delivery.task.records.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["zero", "one"]);
}

async fn time_limits_end_tasks(make: Make) {
    let mut queue = make(QueueSettings { lease: 1_000_000, ..settings() }).await;
    let limited = |id: &str, timeout: u64, deadline: Option<u64>| NewTask { timeout, deadline, ..task(id) };
    add(&mut queue, vec![limited("slow", 10_000, None), limited("late", 600_000, Some(NOW + 20_000))]).await;
    let handles = take(&mut queue, 2, NOW).await;
    add(&mut queue, vec![limited("never-ran", 600_000, Some(NOW + 15_000))]).await;
    let due = queue.tick(NOW + 10_000).await.unwrap();
    assert_eq!(due.timed_out.iter().map(|e| &e.handle).collect::<Vec<_>>(), [&handles[0].1]);
    let due = queue.tick(NOW + 20_000).await.unwrap();
    assert_eq!(due.overdue.iter().map(|e| e.handle.key.step()).collect::<Vec<_>>(), ["never-ran", "late"]);
    assert!(due.overdue.iter().all(|ended| ended.handle.fence > 0 && ended.attempt == 1));
    assert_eq!(queue.next_due(), None);
    assert_eq!(queue.len(), 3, "all are kept until they are reported");
}

async fn cancel_forgets(make: Make) {
    let mut queue = make(settings()).await;
    add(&mut queue, vec![task("a"), NewTask { since: NOW + 1, ..task("b") }]).await;
    let handle = take_one(&mut queue, NOW).await;
    let cancelled = |fence: Option<u64>| Some(Cancelled { queue: queue_key(), fence });
    let answer = queue.cancel(&[key("a"), key("b"), key("c")]).await.unwrap();
    assert_eq!(answer, [cancelled(Some(handle.fence)), cancelled(None), None]);
    assert!(queue.is_empty() && queue.next_due().is_none());
    assert!(queue.list("default").await.unwrap().is_empty());
}

async fn limits_are_kept(make: Make) {
    let mut queue = make(QueueSettings { max_tasks: 3, max_namespace_tasks: 2, ..settings() }).await;
    let elsewhere = |id: &str| NewTask { key: TaskKey::new("other", &format!("run/{id}")), ..task(id) };
    let outcomes = add(&mut queue, vec![task("a"), task("b"), task("c"), elsewhere("d"), elsewhere("e")]).await;
    assert_eq!(outcomes, [Enqueued::Added, Enqueued::Added, Enqueued::Full(Limit::Namespace), Enqueued::Added, Enqueued::Full(Limit::All)]);
    queue.cancel(&[key("a")]).await.unwrap();
    assert_eq!(add(&mut queue, vec![task("c")]).await, [Enqueued::Added]);
    assert_eq!(add(&mut queue, vec![attempt("c", 2)]).await, [Enqueued::Replaced(None)], "a replacement needs no more room");
}

async fn queues_and_tasks_can_be_looked_at(make: Make) {
    let mut queue = make(settings()).await;
    let later = NewTask { not_before: Some(NOW + 9), ..task("later") };
    add(&mut queue, vec![task("a"), NewTask { since: NOW - 7, ..task("b") }, task("c"), later]).await;
    let handle = take_one(&mut queue, NOW).await;
    assert_eq!(handle.key, key("b"));
    let stats = queue.list("default").await.unwrap();
    assert_eq!(stats.len(), 1);
    assert_eq!((stats[0].ready, stats[0].delayed, stats[0].active, stats[0].oldest), (2, 1, 1, Some(NOW)));
    assert!(queue.list("other").await.unwrap().is_empty());
    let views = queue.view(&[key("b"), key("c"), key("later"), key("nobody")]).await.unwrap();
    let states: Vec<Option<TaskState>> = views.into_iter().map(|view| view.map(|view| view.state)).collect();
    assert_eq!(
        states,
        [
            Some(TaskState::Leased { fence: handle.fence, until: NOW + 30_000 }),
            Some(TaskState::Ready { position: 2 }),
            Some(TaskState::Delayed { until: NOW + 9 }),
            None
        ]
    );
    let missing = QueueKey::agent("default", "nobody");
    let statuses = queue.status(&[queue_key(), missing]).await.unwrap();
    assert_eq!((statuses[0].ready, statuses[0].head), (2, NOW));
    assert_eq!(statuses[1], QueueStatus::default());
}

async fn a_settled_task_holds_its_place(make: Make) {
    let mut queue = make(settings()).await;
    add(&mut queue, vec![task("a")]).await;
    let handle = take_one(&mut queue, NOW).await;
    assert_eq!(queue.settle(std::slice::from_ref(&handle)).await.unwrap(), [true]);
    assert_eq!(add(&mut queue, vec![task("a")]).await, [Enqueued::Ignored], "an executor that dispatches again must not run it twice");
    assert_eq!(queue.next_due(), None);
    queue.remove(&[handle]).await.unwrap();
    assert_eq!(add(&mut queue, vec![task("a")]).await, [Enqueued::Added]);
}

async fn a_held_task_starts_leased(make: Make) {
    let mut queue = make(settings()).await;
    add(&mut queue, vec![NewTask { held: Some(77), ..task("a") }]).await;
    assert!(take(&mut queue, 1, NOW).await.is_empty());
    assert_eq!(handles_of(queue.tick(NOW + 30_000).await.unwrap().expired), [Handle { key: key("a"), fence: 77 }]);
    assert_eq!(queue.settle(&[Handle { key: key("a"), fence: 77 }]).await.unwrap(), [true]);
}

async fn fences_grow(make: Make) {
    let mut queue = make(settings()).await;
    add(&mut queue, (0..100).map(|i| task(&i.to_string())).collect()).await;
    let fences: Vec<u64> = take(&mut queue, 100, NOW).await.into_iter().map(|(_, handle)| handle.fence).collect();
    assert_eq!(fences.len(), 100);
    assert!(fences.is_sorted() && fences.iter().collect::<HashSet<_>>().len() == 100);
    assert!(fences[0] >= NOW << 20);
}

/// With anything quadratic in it this would take minutes.
async fn a_hundred_thousand_tasks_pass_through(make: Make) {
    const MANY: usize = 100_000;
    let mut queue = make(QueueSettings { max_tasks: MANY, max_namespace_tasks: MANY, ..settings() }).await;
    let spread = |i: usize| NewTask { since: NOW - (i as u64 * 7919) % 60_000, ..task(&i.to_string()) };
    let outcomes = add(&mut queue, (0..MANY).map(spread).collect()).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Enqueued::Added));
    let mut passed = 0;
    while !queue.is_empty() {
        let handles: Vec<Handle> = take(&mut queue, 100, NOW).await.into_iter().map(|(_, handle)| handle).collect();
        assert!(queue.settle(&handles).await.unwrap().into_iter().all(|settled| settled));
        queue.remove(&handles).await.unwrap();
        passed += handles.len();
    }
    assert_eq!((passed, queue.next_due()), (MANY, None));
}
