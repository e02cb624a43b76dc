//! What the executor's answers mean for workers.

use crate::harness::*;
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use troupe_proto::executor::v1::{Applied, task_report::Outcome};

#[tokio::test(start_paused = true)]
async fn what_is_not_durable_is_sent_again() {
    let mut scheduler = Scheduler::start().await;
    let times = AtomicU32::new(0);
    scheduler.answer(move |_| (if times.fetch_add(1, Ordering::Relaxed) < 3 { Applied::Retry } else { Applied::Yes }, ""));
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch(vec![task("one")]).await;
    let assignment = worker.assignment().await;
    worker.complete(&assignment).await;
    for _ in 0..4 {
        assert_eq!(scheduler.report().await.fence, assignment.fence);
    }
    assert!(worker.ack().await.applied);
}

#[tokio::test(start_paused = true)]
async fn a_lost_report_stream_is_opened_again_and_nothing_is_left_out() {
    let mut scheduler = Scheduler::start().await;
    let times = AtomicU32::new(0);
    scheduler.answer(move |_| (Applied::Yes, if times.fetch_add(1, Ordering::Relaxed) < 5 { LOSE } else { "" }));
    let mut worker = scheduler.worker(hello("w1", 3, &["a"])).await;
    scheduler.dispatch(vec![task("one"), task("two"), task("three")]).await;
    for _ in 0..3 {
        let assignment = worker.assignment().await;
        worker.complete(&assignment).await;
    }
    let mut acked = vec![worker.ack().await.task_id, worker.ack().await.task_id, worker.ack().await.task_id];
    acked.sort();
    assert_eq!(acked, ["run/one", "run/three", "run/two"]);
    worker.quiet().await;
    assert!(scheduler.service.health().await.iter().all(|dependency| dependency.ok));
}

#[tokio::test(start_paused = true)]
async fn who_has_nothing_to_report_is_well_without_a_stream() {
    let mut scheduler = Scheduler::start().await;
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch(vec![task("one")]).await;
    let assignment = worker.assignment().await;
    worker.complete(&assignment).await;
    assert!(worker.ack().await.applied);
    scheduler.instances.wait_for(|known| !known.is_empty()).await.unwrap();
    scheduler.lose_reports();
    worker.quiet().await;
    let failing = scheduler.service.health().await.into_iter().filter(|dependency| !dependency.ok);
    assert_eq!(failing.map(|dependency| dependency.name).collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_is_as_good_as_applied_and_a_stale_result_is_not() {
    let mut scheduler = Scheduler::start().await;
    scheduler.answer(|report| if report.step == "again" { (Applied::Duplicate, "") } else { (Applied::Stale, "the run has ended") });
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch(vec![task("again"), task("stale")]).await;
    let again = worker.assignment().await;
    worker.complete(&again).await;
    let stale = worker.assignment().await;
    worker.complete(&stale).await;
    let (one, two) = (worker.ack().await, worker.ack().await);
    let acks = [one, two].map(|ack| (ack.task_id, ack.applied, ack.message));
    assert_eq!(acks, [("run/again".into(), true, String::new()), ("run/stale".into(), false, "the run has ended".into())]);
    assert_eq!(scheduler.explain(&task("stale")).await.state, "unknown");
}

#[tokio::test(start_paused = true)]
async fn a_refused_result_fails_the_attempt() {
    let mut scheduler = Scheduler::start().await;
    let refuse = |outcome: &Option<Outcome>| matches!(outcome, Some(Outcome::Completed(_)));
    scheduler
        .answer(move |report| if refuse(&report.outcome) { (Applied::Refused, "the output is too large") } else { (Applied::Yes, "") });
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch(vec![task("one")]).await;
    let assignment = worker.assignment().await;
    worker.complete(&assignment).await;
    assert!(refuse(&scheduler.report().await.outcome));
    let report = scheduler.report().await;
    assert_eq!((report.fence, report.agent.as_str(), report.worker.as_str()), (assignment.fence, "a", "w1"));
    match report.outcome {
        Some(Outcome::Failed(failed)) => assert_eq!(failed.failure.unwrap().message, "the output is too large"),
        other => panic!("unexpected {other:?}"),
    }
    let ack = worker.ack().await;
    assert!(!ack.applied && ack.message == "the output is too large");
}

#[tokio::test(start_paused = true)]
async fn a_stale_record_stops_the_task_and_frees_its_slot() {
    let mut scheduler = Scheduler::start().await;
    scheduler
        .answer(|report| (if matches!(report.outcome, Some(Outcome::Recorded(_))) { Applied::Stale } else { Applied::Yes }, "cancelled"));
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch(vec![task("one"), task("two")]).await;
    let one = worker.assignment().await;
    worker.record(&one, 0).await;
    let ack = worker.ack().await;
    assert!(!ack.applied && ack.record_index == Some(0));
    assert_eq!(worker.step().await, "two");
}

#[tokio::test(start_paused = true)]
async fn a_result_sent_again_on_another_stream_is_acknowledged_there() {
    let mut scheduler = Scheduler::start().await;
    scheduler.answer(|_| (Applied::Retry, ""));
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch(vec![task("one")]).await;
    let assignment = worker.assignment().await;
    worker.complete(&assignment).await;
    scheduler.report().await;
    drop(worker);
    let mut back = hello("w1", 1, &["a"]);
    back.held = vec![held(&assignment)];
    let mut worker = scheduler.worker(back).await;
    worker.complete(&assignment).await;
    worker.quiet().await;
    scheduler.dispatch(vec![task("one")]).await;
    worker.quiet().await;
    scheduler.answer(|_| (Applied::Yes, ""));
    assert!(worker.ack().await.applied);
    worker.is_quiet_for(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_assigned_while_too_many_results_wait() {
    let config = troupe_scheduler::Config { max_unreported: 2, ..troupe_scheduler::Config::default() };
    let mut scheduler = Scheduler::with(config).await;
    scheduler.answer(|_| (Applied::Retry, ""));
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch((0..4).map(|i| task(&i.to_string())).collect()).await;
    for _ in 0..2 {
        let assignment = worker.assignment().await;
        worker.complete(&assignment).await;
    }
    worker.quiet().await;
    assert!(scheduler.explain(&task("3")).await.detail.contains("wait for the executor"));
    scheduler.answer(|_| (Applied::Yes, ""));
    let mut acks = 0;
    let third = loop {
        match worker.next().await {
            troupe_proto::scheduler::v1::server_message::Kind::Assignment(assignment) => break assignment,
            _ => acks += 1,
        }
    };
    assert!((1..=2).contains(&acks));
    assert_eq!(third.task.unwrap().step, "2");
}
