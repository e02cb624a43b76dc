//! New tasks that workers have before the queue does.

use crate::{harness::*, server};
use std::time::Duration;
use troupe_proto::{
    executor::v1::Applied,
    scheduler::v1::{Assignment, Task},
};
use troupe_scheduler::Config;
use troupe_testkit::Redis;

/// Longer than until the queue hears of a task, and of an end.
const NOTED: Duration = Duration::from_millis(300);

fn config(url: &str) -> Config {
    let mut config = Config { redis: server::config(url), ..Config::default() };
    config.redis.timeout = "300ms".into();
    config
}

fn again(step: &str) -> Task {
    Task { first: false, ..task(step) }
}

async fn done(worker: &mut Worker, assignment: &Assignment) {
    worker.complete(assignment).await;
    assert!(worker.ack().await.applied);
}

#[tokio::test]
async fn what_was_short_is_not_run_again_by_another_scheduler() {
    let config = config(&server::url());
    let (mut one, mut other) = (Scheduler::with(config.clone()).await, Scheduler::with(config).await);
    let mut worker = one.worker(hello("w", 1, &["a"])).await;
    let mut second = other.worker(hello("w2", 1, &["a"])).await;
    one.dispatch(vec![task("short")]).await;
    let assignment = worker.assignment().await;
    done(&mut worker, &assignment).await;
    one.dispatch(vec![again("short")]).await;
    worker.is_quiet_for(NOTED).await;
    other.dispatch(vec![again("short")]).await;
    second.is_quiet_for(NOTED).await;
    other.dispatch(vec![Task { attempt: 2, ..again("short") }]).await;
    assert_eq!(second.assignment().await.task.unwrap().attempt, 2);
}

#[tokio::test]
async fn new_tasks_are_done_while_redis_is_away_and_not_again_when_it_is_back() {
    let mut redis = Redis::start().unwrap();
    let config = config(&redis.url());
    let (mut one, mut other) = (Scheduler::with(config.clone()).await, Scheduler::with(config).await);
    let mut worker = one.worker(hello("w", 2, &["a"])).await;
    redis.kill().unwrap();
    one.dispatch(vec![task("short"), task("long")]).await;
    let (short, long) = (worker.assignment().await, worker.assignment().await);
    done(&mut worker, &short).await;
    one.misses_redis().await;
    redis.begin().unwrap();
    // The queue hears what it has missed before executors dispatch again: of the task that lasts first, then of the end, before it is asked.
    other.knows(&task("long"), "assigned").await;
    one.explain(&task("short")).await;
    let mut second = other.worker(hello("w2", 2, &["a"])).await;
    other.reopen().await;
    other.dispatch(vec![again("short"), again("long")]).await;
    second.is_quiet_for(NOTED).await;
    assert_eq!(other.explain(&task("long")).await.state, "assigned");
    done(&mut worker, &long).await;
}

#[tokio::test]
async fn a_worker_lost_at_once_costs_a_delivery() {
    let mut config = config(&server::url());
    config.max_deliveries = 2;
    let mut scheduler = Scheduler::with(config).await;
    for _ in 0..2 {
        let mut worker = scheduler.worker(hello("w", 1, &["a"])).await;
        if scheduler.try_explain(&task("deadly")).await.as_deref() == Some("unknown") {
            scheduler.dispatch(vec![task("deadly")]).await;
        }
        worker.assignment().await;
    }
    assert_eq!(scheduler.failure().await, ("WORKER_LOST".to_owned(), true));
}

#[tokio::test]
async fn a_worker_lost_while_redis_is_away_is_made_up_for() {
    let mut redis = Redis::start().unwrap();
    let mut scheduler = Scheduler::with(config(&redis.url())).await;
    let mut worker = scheduler.worker(hello("w", 1, &["a"])).await;
    redis.kill().unwrap();
    scheduler.dispatch(vec![task("one")]).await;
    let lost = worker.assignment().await;
    drop(worker);
    scheduler.misses_redis().await;
    redis.begin().unwrap();
    let mut worker = scheduler.worker(hello("w2", 1, &["a"])).await;
    let assignment = worker.assignment().await;
    assert!(assignment.fence > lost.fence);
    done(&mut worker, &assignment).await;
}

#[tokio::test]
async fn what_waits_is_not_overtaken_on_its_worker() {
    let mut scheduler = Scheduler::with(config(&server::url())).await;
    let mut worker = scheduler.worker(hello("w", 1, &["a", "b"])).await;
    let of_b = |step: &str| task_for(troupe_proto::common::v1::target::Kind::Agent("b".into()), step);
    scheduler.dispatch(vec![task("first")]).await;
    let mut assignment = worker.assignment().await;
    scheduler.dispatch(vec![of_b("second")]).await;
    scheduler.dispatch(vec![task("third")]).await;
    for next in ["second", "third"] {
        done(&mut worker, &assignment).await;
        assignment = worker.assignment().await;
        assert_eq!(assignment.task.as_ref().unwrap().step, next);
    }
}

#[tokio::test]
async fn records_of_what_the_queue_has_not_heard_of_are_kept() {
    let mut scheduler = Scheduler::with(config(&server::url())).await;
    let mut worker = scheduler.worker(hello("w", 1, &["a"])).await;
    scheduler.dispatch(vec![task("one")]).await;
    let assignment = worker.assignment().await;
    worker.record(&assignment, 0).await;
    assert!(worker.ack().await.applied);
    drop(worker);
    let mut worker = scheduler.worker(hello("w2", 1, &["a"])).await;
    let assignment = worker.assignment().await;
    assert_eq!(assignment.task.as_ref().unwrap().records.len(), 1);
    done(&mut worker, &assignment).await;
}

#[tokio::test]
async fn a_result_that_waits_for_the_journal_holds_its_place() {
    let config = config(&server::url());
    let (mut one, mut other) = (Scheduler::with(config.clone()).await, Scheduler::with(config).await);
    one.answer(|_| (Applied::Retry, "the journal is away"));
    let mut worker = one.worker(hello("w", 1, &["a"])).await;
    one.dispatch(vec![task("one")]).await;
    let assignment = worker.assignment().await;
    worker.complete(&assignment).await;
    other.knows(&task("one"), "assigned").await;
    let mut second = other.worker(hello("w2", 1, &["a"])).await;
    other.dispatch(vec![again("one")]).await;
    second.is_quiet_for(NOTED).await;
    one.answer(|_| (Applied::Yes, ""));
    assert!(worker.ack().await.applied);
}

#[tokio::test]
async fn work_that_waits_goes_on_after_a_break_in_which_nothing_was_lost() {
    let redis = Redis::start().unwrap();
    let mut scheduler = Scheduler::with(config(&redis.url())).await;
    let mut worker = scheduler.worker(hello("w", 1, &["a"])).await;
    scheduler.dispatch(vec![task("first"), task("second"), task("third")]).await;
    let mut assignment = worker.assignment().await;
    redis.pause().unwrap();
    done(&mut worker, &assignment).await;
    scheduler.misses_redis().await;
    redis.wake().unwrap();
    for next in ["second", "third"] {
        assignment = worker.assignment().await;
        assert_eq!(assignment.task.as_ref().unwrap().step, next);
        done(&mut worker, &assignment).await;
    }
}
