//! Workers that are lost, deaf, slow, or come back.

use crate::harness::*;
use std::time::Duration;
use troupe_proto::{
    common::v1::Failure,
    executor::v1::task_report::Outcome,
    scheduler::v1::{Assignment, Draining, Task, worker_message::Kind as WorkerKind},
};
use troupe_scheduler::Config;

#[tokio::test(start_paused = true)]
async fn a_worker_lost_in_the_middle_of_ten_records_loses_none() {
    let mut scheduler = Scheduler::start().await;
    let mut first = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch(vec![task("long")]).await;
    let assignment = first.assignment().await;
    for index in 0..6 {
        first.record(&assignment, index).await;
        let ack = first.ack().await;
        assert!(ack.applied && ack.record_index == Some(index));
        assert!(matches!(scheduler.report().await.outcome, Some(Outcome::Recorded(r)) if r.index == index && r.value == index.to_string()));
    }
    let mut second = scheduler.worker(hello("w2", 1, &["a"])).await;
    drop(first);
    let again = second.assignment().await;
    assert!(again.fence > assignment.fence);
    let records = &again.task.as_ref().unwrap().records;
    assert_eq!(records.iter().map(|r| r.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert_eq!((records[5].name.as_str(), &records[5].value[..]), ("record 5", &b"5"[..]));
    for index in 6..10 {
        second.record(&again, index).await;
        assert_eq!(second.ack().await.record_index, Some(index));
    }
    second.complete(&again).await;
    assert!(second.ack().await.applied);
}

#[tokio::test(start_paused = true)]
async fn a_deaf_worker_loses_its_lease_and_its_word() {
    let mut scheduler = Scheduler::start().await;
    let mut deaf = scheduler.worker(hello("deaf", 1, &["a"])).await;
    scheduler.dispatch(vec![task("one")]).await;
    let old = deaf.assignment().await;
    let mut other = scheduler.worker(hello("other", 1, &["a"])).await;
    other.is_quiet_for(Duration::from_secs(29)).await;
    let new = other.assignment().await;
    assert!(new.fence > old.fence);
    assert_eq!(deaf.cancelled().await.fence, old.fence);
    deaf.complete(&old).await;
    assert!(!deaf.ack().await.applied, "a newer delivery exists");
    other.complete(&new).await;
    assert!(other.ack().await.applied);
    assert_eq!(scheduler.report().await.fence, new.fence, "only one result is reported");
}

#[tokio::test(start_paused = true)]
async fn progress_keeps_a_lease() {
    let mut scheduler = Scheduler::start().await;
    let mut busy = scheduler.worker(hello("busy", 1, &["a"])).await;
    scheduler.dispatch(vec![task("one")]).await;
    let assignment = busy.assignment().await;
    let _other = scheduler.worker(hello("other", 1, &["a"])).await;
    for _ in 0..10 {
        busy.is_quiet_for(Duration::from_secs(29)).await;
        busy.progress(&assignment).await;
    }
    busy.complete(&assignment).await;
    assert!(busy.ack().await.applied);
}

#[tokio::test(start_paused = true)]
async fn a_result_after_the_lease_counts_when_nobody_else_was_given_the_task() {
    let mut scheduler = Scheduler::start().await;
    let mut only = scheduler.worker(hello("only", 1, &["a"])).await;
    scheduler.dispatch(vec![task("one")]).await;
    let assignment = only.assignment().await;
    assert_eq!(only.cancelled().await.fence, assignment.fence);
    only.complete(&assignment).await;
    assert!(only.ack().await.applied);
    only.is_quiet_for(Duration::from_secs(100)).await;
}

/// The word that a worker has stopped may come when nobody expects it any more.
#[tokio::test(start_paused = true)]
async fn a_worker_that_stopped_has_not_ended_the_task() {
    let mut scheduler = Scheduler::start().await;
    let mut slow = scheduler.worker(hello("slow", 1, &["a"])).await;
    scheduler.dispatch(vec![task("one")]).await;
    let old = slow.assignment().await;
    slow.send(WorkerKind::Draining(Draining {})).await;
    assert_eq!(slow.cancelled().await.fence, old.fence);
    slow.is_quiet_for(Duration::from_secs(40)).await;
    slow.send(stopped(&old)).await;
    assert!(!slow.ack().await.applied);
    let mut next = scheduler.worker(hello("next", 1, &["a"])).await;
    let new = next.assignment().await;
    next.send(stopped(&new)).await;
    assert!(!next.ack().await.applied);
    let last = next.assignment().await;
    assert!(old.fence < new.fence && new.fence < last.fence);
    next.complete(&last).await;
    assert!(next.ack().await.applied);
    assert_eq!(scheduler.report().await.fence, last.fence, "nothing else was reported");
}

fn stopped(assignment: &Assignment) -> WorkerKind {
    let WorkerKind::Failed(mut word) = failed(assignment) else { panic!("a failure") };
    word.failure = Some(Failure { code: "CANCELLED".into(), ..Failure::default() });
    WorkerKind::Failed(word)
}

#[tokio::test(start_paused = true)]
async fn a_task_that_loses_every_worker_is_reported() {
    let mut scheduler = Scheduler::with(Config { max_deliveries: 3, ..Config::default() }).await;
    scheduler.dispatch(vec![task("poison")]).await;
    for _ in 0..3 {
        let mut worker = scheduler.worker(hello("w", 1, &["a"])).await;
        worker.assignment().await;
    }
    assert_eq!(scheduler.failure().await, ("WORKER_LOST".to_owned(), true));
    let mut worker = scheduler.worker(hello("w", 1, &["a"])).await;
    worker.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_back_keeps_what_it_has() {
    let mut scheduler = Scheduler::start().await;
    let mut worker = scheduler.worker(hello("w1", 2, &["a"])).await;
    scheduler.dispatch(vec![task("one"), task("two")]).await;
    let (one, two) = (worker.assignment().await, worker.assignment().await);
    drop(worker);
    scheduler.knows(&task("one"), "ready").await;
    let mut back = hello("w1", 2, &["a"]);
    back.held = vec![held(&one), held(&two)];
    let mut worker = scheduler.worker(back).await;
    worker.quiet().await;
    assert_eq!(scheduler.explain(&task("one")).await.state, "assigned");
    for assignment in [one, two] {
        worker.complete(&assignment).await;
        assert!(worker.ack().await.applied);
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_back_too_late_is_told() {
    let mut scheduler = Scheduler::start().await;
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch(vec![task("one")]).await;
    let old = worker.assignment().await;
    drop(worker);
    let mut other = scheduler.worker(hello("w2", 1, &["a"])).await;
    let new = other.assignment().await;
    let mut back = hello("w1", 1, &["a"]);
    back.held = vec![held(&old)];
    let mut worker = scheduler.worker(back).await;
    let ack = worker.ack().await;
    assert!(!ack.applied && ack.fence == old.fence);
    other.complete(&new).await;
    assert!(other.ack().await.applied);
}

#[tokio::test(start_paused = true)]
async fn results_outlive_the_scheduler_that_assigned_them() {
    let mut before = Scheduler::start().await;
    let mut worker = before.worker(hello("w1", 2, &["a"])).await;
    before.dispatch(vec![task("done"), Task { attempt: 3, ..task("running") }]).await;
    let (done, running) = (worker.assignment().await, worker.assignment().await);
    drop((before, worker));

    let mut after = Scheduler::start().await;
    let mut back = hello("w1", 2, &["a"]);
    back.held = vec![held(&done), held(&running)];
    let mut worker = after.worker(back).await;
    worker.complete(&done).await;
    let report = after.report().await;
    assert_eq!((report.step.as_str(), report.attempt, report.fence, report.worker.as_str()), ("done", 1, done.fence, "w1"));
    assert!(worker.ack().await.applied);
    // The executor dispatches again what it waits for; the worker that has it goes on.
    after.dispatch(vec![Task { attempt: 3, ..task("running") }]).await;
    worker.quiet().await;
    let state = after.explain(&task("running")).await;
    assert_eq!((state.state.as_str(), state.worker.as_str()), ("assigned", "w1"));
    worker.complete(&running).await;
    assert_eq!(after.report().await.fence, running.fence);
    assert!(worker.ack().await.applied);
    assert_eq!(after.explain(&task("running")).await.state, "unknown");
}

#[tokio::test(start_paused = true)]
async fn attempts_have_a_time_limit() {
    let mut scheduler = Scheduler::start().await;
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch(vec![Task { timeout_ms: 2_000, ..task("slow") }, task("next")]).await;
    let slow = worker.assignment().await;
    worker.is_quiet_for(Duration::from_millis(1_900)).await;
    assert_eq!(worker.cancelled().await.fence, slow.fence);
    assert_eq!(scheduler.failure().await, ("TIMEOUT".to_owned(), true));
    worker.send(failed(&slow)).await;
    assert!(!worker.ack().await.applied);
    assert_eq!(worker.step().await, "next", "the slot is free when the worker says that it stopped");
}

#[tokio::test(start_paused = true)]
async fn deadlines_end_tasks_for_good() {
    let mut scheduler = Scheduler::start().await;
    let deadline = from_now(Duration::from_secs(20));
    scheduler.dispatch(vec![Task { deadline, ..task("waiting") }]).await;
    assert_eq!(scheduler.failure().await, ("DEADLINE_EXCEEDED".to_owned(), false));
    assert_eq!(scheduler.explain(&task("waiting")).await.state, "unknown");
}

#[tokio::test(start_paused = true)]
async fn cancelled_tasks_stop_and_give_their_slot_back() {
    let mut scheduler = Scheduler::start().await;
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch(vec![task("one"), task("two"), task("three")]).await;
    let one = worker.assignment().await;
    scheduler.cancel(&task("two")).await;
    scheduler.cancel(&task("one")).await;
    let cancel = worker.cancelled().await;
    assert_eq!((cancel.fence, cancel.reason.as_str()), (one.fence, "changed my mind"));
    worker.is_quiet_for(Duration::from_millis(4_900)).await;
    assert_eq!(worker.step().await, "three", "after the grace, although the worker never answered");
}

#[tokio::test(start_paused = true)]
async fn what_a_worker_has_survives_a_scheduler_that_was_given_the_tasks_again_first() {
    let mut before = Scheduler::start().await;
    let mut worker = before.worker(hello("w1", 2, &["a"])).await;
    before.dispatch(vec![task("running"), task("done")]).await;
    let (running, done) = (worker.assignment().await, worker.assignment().await);
    drop(before);

    // The executor is faster than the worker: the tasks wait here when it comes back.
    let mut after = Scheduler::start().await;
    after.dispatch(vec![task("running"), task("done")]).await;
    let mut back = hello("w1", 2, &["a"]);
    back.held = vec![held(&running), held(&done)];
    let mut worker = after.worker(back).await;
    worker.complete(&done).await;
    let ack = worker.ack().await;
    assert!(ack.applied, "{}", ack.message);
    worker.quiet().await;
    worker.record(&running, 0).await;
    assert!(worker.ack().await.applied);
    worker.complete(&running).await;
    assert!(worker.ack().await.applied);
    let mut other = after.worker(hello("w2", 2, &["a"])).await;
    other.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_made_up_fence_takes_nothing() {
    let mut scheduler = Scheduler::start().await;
    scheduler.dispatch(vec![task("one")]).await;
    let mut liar = hello("liar", 1, &["b"]);
    liar.held =
        vec![troupe_proto::scheduler::v1::HeldTask { task_id: "run/one".into(), fence: u64::MAX, attempt: 1, ..Default::default() }];
    let mut liar = scheduler.worker(liar).await;
    assert!(!liar.ack().await.applied);
    let mut worker = scheduler.worker(hello("w", 1, &["a"])).await;
    let assignment = worker.assignment().await;
    worker.complete(&assignment).await;
    assert!(worker.ack().await.applied);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_no_message_can_carry_fails_its_task_alone() {
    let mut scheduler = Scheduler::start().await;
    let mut worker = scheduler.worker(hello("w", 2, &["a"])).await;
    scheduler.dispatch(vec![task("large"), task("small")]).await;
    let (large, small) = (worker.assignment().await, worker.assignment().await);
    let WorkerKind::Completed(done) = completed(&large) else { panic!("it is completed") };
    let output = vec![b'1'; (64 << 20) - 200].into();
    worker.send(WorkerKind::Completed(troupe_proto::scheduler::v1::Completed { output, ..done })).await;
    assert_eq!(scheduler.failure().await, ("PAYLOAD_TOO_LARGE".to_owned(), false));
    worker.complete(&small).await;
    assert!(matches!(scheduler.report().await.outcome, Some(Outcome::Completed(_))));
}
