//! Several schedulers on one Redis, and one whose Redis loses everything.

use crate::{harness::*, server};
use std::time::Duration;
use troupe_proto::{executor::v1::Applied, scheduler::v1::Task};
use troupe_scheduler::Config;
use troupe_testkit::Redis;

fn config(url: &str) -> Config {
    Config { redis: server::config(url), ..Config::default() }
}

async fn two() -> (Scheduler, Scheduler) {
    let config = config(&server::url());
    (Scheduler::with(config.clone()).await, Scheduler::with(config).await)
}

#[tokio::test]
async fn a_task_reaches_a_worker_of_another_scheduler() {
    let (mut one, mut other) = two().await;
    let mut worker = other.worker(hello("w", 1, &["a"])).await;
    one.dispatch(vec![task("first"), task("second")]).await;
    for step in ["first", "second"] {
        let assignment = worker.assignment().await;
        assert_eq!(assignment.task.as_ref().unwrap().step, step);
        worker.record(&assignment, 0).await;
        assert!(worker.ack().await.applied);
        worker.complete(&assignment).await;
        assert!(worker.ack().await.applied);
        other.report().await;
        assert_eq!(other.report().await.step, step);
    }
    assert_eq!(one.explain(&task("second")).await.state, "unknown");
}

#[tokio::test]
async fn a_cancel_reaches_the_worker_wherever_it_is() {
    let (mut one, other) = two().await;
    let mut worker = other.worker(hello("w", 1, &["a"])).await;
    one.dispatch(vec![task("long")]).await;
    let assignment = worker.assignment().await;
    one.cancel(&task("long")).await;
    let cancel = worker.cancelled().await;
    assert_eq!((cancel.fence, cancel.reason.as_str()), (assignment.fence, "changed my mind"));
}

#[tokio::test]
async fn a_result_survives_the_scheduler_that_took_it() {
    let (mut one, mut other) = two().await;
    let mut worker = one.worker(hello("w", 1, &["a"])).await;
    one.answer(|_| (Applied::Retry, "the journal is away"));
    one.dispatch(vec![task("done")]).await;
    let assignment = worker.assignment().await;
    worker.complete(&assignment).await;
    one.report().await;
    one.kill().await;
    let mut back = hello("w", 1, &["a"]);
    back.held = vec![held(&assignment)];
    let mut worker = other.worker(back).await;
    worker.complete(&assignment).await;
    let ack = worker.ack().await;
    assert!(ack.applied, "{}", ack.message);
    assert_eq!(other.report().await.fence, assignment.fence);
}

#[tokio::test]
async fn after_a_flush_executors_dispatch_again_and_nothing_runs_twice() {
    let redis = Redis::start().unwrap();
    let config = config(&redis.url());
    let (mut one, mut other) = (Scheduler::with(config.clone()).await, Scheduler::with(config.clone()).await);
    let mut busy = other.worker(hello("busy", 1, &["a"])).await;
    one.dispatch(vec![task("running"), task("waiting")]).await;
    let running = busy.assignment().await;
    server::link(&config.redis, &troupe_service_kit::Tasks::new()).await.run(&redis::cmd("FLUSHALL")).await.unwrap();
    let status = one.dispatch_ends().await;
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    one.reopen().await;
    one.dispatch(vec![task("running"), task("waiting")]).await;
    let mut idle = one.worker(hello("idle", 2, &["a"])).await;
    assert_eq!(idle.step().await, "waiting");
    idle.is_quiet_for(Duration::from_millis(300)).await;
    busy.complete(&running).await;
    assert!(busy.ack().await.applied);
    assert_eq!(other.report().await.step, "running");
    one.dispatch(vec![task("more")]).await;
    idle.assignment().await;
}

#[tokio::test]
async fn without_redis_nothing_is_queued_and_with_it_work_goes_on() {
    let mut redis = Redis::start().unwrap();
    let mut config = config(&redis.url());
    config.redis.timeout = "300ms".into();
    let mut scheduler = Scheduler::with(config).await;
    let mut worker = scheduler.worker(hello("w", 1, &["a"])).await;
    redis.kill().unwrap();
    let again = Task { first: false, ..task("one") };
    let status = scheduler.try_dispatch(vec![again.clone()]).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    assert!(scheduler.service.health().await.iter().any(|dependency| dependency.name == "redis" && !dependency.ok));
    redis.begin().unwrap();
    loop {
        scheduler.reopen().await;
        if scheduler.try_dispatch(vec![again.clone()]).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let assignment = worker.assignment().await;
    worker.complete(&assignment).await;
    assert!(worker.ack().await.applied);
}

#[tokio::test]
async fn what_ends_while_redis_hangs_is_not_run_again() {
    let redis = Redis::start().unwrap();
    let mut config = config(&redis.url());
    config.redis.timeout = "300ms".into();
    let mut scheduler = Scheduler::with(config).await;
    let mut worker = scheduler.worker(hello("w", 2, &["a"])).await;
    scheduler.dispatch(vec![task("one")]).await;
    let assignment = worker.assignment().await;
    redis.pause().unwrap();
    worker.complete(&assignment).await;
    assert!(worker.ack().await.applied, "the journal has it");
    redis.wake().unwrap();
    scheduler.knows(&task("one"), "unknown").await;
    worker.is_quiet_for(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn a_task_said_to_be_new_that_another_worker_has_is_taken_back() {
    let (mut one, mut other) = two().await;
    let mut worker = one.worker(hello("w", 1, &["a"])).await;
    one.dispatch(vec![Task { first: true, ..task("long") }]).await;
    let running = worker.assignment().await;
    let mut second = other.worker(hello("w2", 1, &["a"])).await;
    // A late message of an executor that has lost the run.
    other.dispatch(vec![Task { first: true, ..task("long") }]).await;
    let late = second.assignment().await;
    assert_eq!(second.cancelled().await.fence, late.fence);
    worker.complete(&running).await;
    assert!(worker.ack().await.applied, "the one that was there goes on");
    assert_eq!(one.report().await.fence, running.fence);
}

#[tokio::test]
async fn a_new_task_survives_the_scheduler_that_gave_it_out() {
    let (mut one, mut other) = two().await;
    let mut worker = one.worker(hello("w", 1, &["a"])).await;
    one.dispatch(vec![Task { first: true, ..task("long") }]).await;
    let assignment = worker.assignment().await;
    one.kill().await;
    let mut back = hello("w", 1, &["a"]);
    back.held = vec![held(&assignment)];
    let mut worker = other.worker(back).await;
    other.dispatch(vec![task("long")]).await;
    worker.complete(&assignment).await;
    assert!(worker.ack().await.applied);
    assert_eq!(other.report().await.fence, assignment.fence);
    assert_eq!(other.explain(&task("long")).await.state, "unknown");
}
