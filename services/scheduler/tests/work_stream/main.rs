//! The scheduler as workers and executors see it.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod ahead;
mod harness;
mod limits;
mod losses;
mod reports;
#[path = "../redis/server.rs"]
mod server;
mod shared;
mod streams;

use harness::*;
use std::time::Duration;
use troupe_proto::{
    common::v1::target::Kind as TargetKind,
    executor::v1::task_report::Outcome,
    scheduler::v1::{ListQueuesRequest, ServedAgent, Task},
};

#[tokio::test(start_paused = true)]
async fn a_task_goes_to_a_worker_and_its_result_to_the_executor() {
    let mut scheduler = Scheduler::start().await;
    let mut worker = scheduler.worker(hello("w1", 2, &["a"])).await;
    let sent = Task { input: "{\"x\":1}".into(), traceparent: "00-trace".into(), ..task("one") };
    scheduler.dispatch(vec![sent.clone()]).await;
    let assignment = worker.assignment().await;
    assert_eq!(assignment.task.as_ref(), Some(&sent));
    assert_eq!((assignment.agent.as_str(), assignment.choice.as_str()), ("a", "least_loaded: a on worker w1, 0 of 2 slots"));
    assert!(assignment.fence > 0 && assignment.lease_ms == 30_000);
    worker.complete(&assignment).await;
    let report = scheduler.report().await;
    assert_eq!((report.run_id.as_str(), report.step.as_str(), report.attempt, report.fence), ("run", "one", 1, assignment.fence));
    assert_eq!((report.agent.as_str(), report.worker.as_str(), report.choice.as_str()), ("a", "w1", assignment.choice.as_str()));
    assert!(matches!(report.outcome, Some(Outcome::Completed(done)) if done.output == "42"));
    let ack = worker.ack().await;
    assert!(ack.applied && ack.fence == assignment.fence && ack.record_index.is_none());
    assert_eq!(scheduler.explain(&sent).await.state, "unknown", "it is forgotten");
}

#[tokio::test(start_paused = true)]
async fn dispatching_twice_delivers_once() {
    let mut scheduler = Scheduler::start().await;
    let mut worker = scheduler.worker(hello("w1", 5, &["a"])).await;
    scheduler.dispatch(vec![task("one"), task("one")]).await;
    let first = worker.assignment().await;
    scheduler.dispatch(vec![task("one")]).await;
    worker.quiet().await;
    scheduler.dispatch(vec![Task { attempt: 2, ..task("one") }]).await;
    assert_eq!(worker.cancelled().await.fence, first.fence);
    assert_eq!(worker.assignment().await.task.unwrap().attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn slots_free_with_the_result_and_not_with_its_acknowledgement() {
    let mut scheduler = Scheduler::start().await;
    scheduler.answer(|_| (troupe_proto::executor::v1::Applied::Retry, ""));
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch(vec![task("one"), task("two")]).await;
    let one = worker.assignment().await;
    worker.quiet().await;
    worker.complete(&one).await;
    assert_eq!(worker.step().await, "two");
}

#[tokio::test(start_paused = true)]
async fn the_urgent_is_first_and_the_old_catches_up() {
    let mut scheduler = Scheduler::start().await;
    let with = |step: &str, priority: u32| Task { priority, ..task(step) };
    scheduler.dispatch(vec![with("low", 3), with("middle", 2)]).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    scheduler.dispatch(vec![with("high", 1), with("highest", 0)]).await;
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    let mut order = Vec::new();
    for _ in 0..4 {
        let assignment = worker.assignment().await;
        order.push(assignment.task.clone().unwrap().step);
        worker.complete(&assignment).await;
        assert!(worker.ack().await.applied);
    }
    assert_eq!(order, ["middle", "highest", "low", "high"], "61 s are worth two levels");
}

#[tokio::test(start_paused = true)]
async fn the_most_urgent_task_of_all_served_agents_is_first() {
    let mut scheduler = Scheduler::start().await;
    let of = |agent: &str, step: &str, priority: u32| Task { priority, ..task_for(TargetKind::Agent(agent.into()), step) };
    scheduler.dispatch(vec![of("a", "later", 9), of("b", "now", 0), of("c", "not mine", 0)]).await;
    let mut worker = scheduler.worker(hello("w1", 1, &["a", "b"])).await;
    let first = worker.assignment().await;
    assert_eq!(first.task.as_ref().unwrap().step, "now");
    worker.complete(&first).await;
    assert!(worker.ack().await.applied);
    assert_eq!(worker.step().await, "later");
}

#[tokio::test(start_paused = true)]
async fn delayed_tasks_wait_for_their_time() {
    let mut scheduler = Scheduler::start().await;
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    let later = Task { not_before: from_now(Duration::from_secs(60)), ..task("later") };
    scheduler.dispatch(vec![later.clone()]).await;
    let state = scheduler.explain(&later).await;
    assert_eq!(state.state, "delayed");
    assert!(state.detail.starts_with("delayed: starts in "), "{}", state.detail);
    worker.is_quiet_for(Duration::from_secs(58)).await;
    assert_eq!(worker.step().await, "later");
}

#[tokio::test(start_paused = true)]
async fn capabilities_go_to_the_least_loaded_agent() {
    let mut scheduler = Scheduler::start().await;
    let mut small = scheduler.worker(hello("small", 2, &["x:sum"])).await;
    let mut large = scheduler.worker(hello("large", 8, &["y:sum"])).await;
    let sum = |step: &str| task_for(TargetKind::Capability("sum".into()), step);
    scheduler.dispatch((0..5).map(|i| sum(&i.to_string())).collect()).await;
    // Shares 0/2 0/8 -> small; 1/2 0/8 -> large, and it stays below a half until it has four.
    assert_eq!(small.assignment().await.agent, "x");
    for expected in 0..4 {
        let assignment = large.assignment().await;
        assert_eq!(assignment.agent, "y");
        assert_eq!(assignment.choice, format!("least_loaded: y on worker large, {expected} of 8 slots"));
    }
    small.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn round_robin_takes_turns() {
    let mut scheduler = Scheduler::start().await;
    let mut worker = scheduler.worker(hello("w1", 10, &["x:sum", "y:sum", "z:sum"])).await;
    let sum = |i: u32| Task { choose: "round_robin".into(), ..task_for(TargetKind::Capability("sum".into()), &i.to_string()) };
    scheduler.dispatch((0..5).map(sum).collect()).await;
    let mut agents = Vec::new();
    for _ in 0..5 {
        agents.push(worker.assignment().await.agent);
    }
    assert_eq!(agents, ["x", "y", "z", "x", "y"]);
}

#[tokio::test(start_paused = true)]
async fn tools_need_no_agent() {
    let mut scheduler = Scheduler::start().await;
    let mut everywhere = hello("builtin", 4, &[]);
    everywhere.namespace = "*".into();
    everywhere.tools = vec!["http".into()];
    let mut worker = scheduler.worker(everywhere).await;
    scheduler.dispatch(vec![Task { namespace: "team".into(), ..task_for(TargetKind::Tool("http".into()), "fetch") }]).await;
    let assignment = worker.assignment().await;
    assert_eq!((assignment.agent.as_str(), assignment.task.unwrap().namespace.as_str()), ("http", "team"));
}

#[tokio::test(start_paused = true)]
async fn namespaces_do_not_mix_and_take_turns() {
    let mut scheduler = Scheduler::start().await;
    let of = |namespace: &str, step: String| Task { namespace: namespace.into(), ..task(&step) };
    let many = (0..6).map(|i| of("big", format!("big{i}")));
    let few = (0..2).map(|i| of("small", format!("small{i}")));
    scheduler.dispatch(many.chain(few).collect()).await;
    let mut own = scheduler.worker(hello("own", 9, &["a"])).await;
    own.quiet().await;
    let mut everywhere = hello("builtin", 1, &[]);
    everywhere.namespace = "*".into();
    everywhere.agents =
        ["big", "small"].map(|namespace| ServedAgent { name: "a".into(), namespace: namespace.into(), ..ServedAgent::default() }).into();
    let mut worker = scheduler.worker(everywhere).await;
    let mut order = Vec::new();
    for _ in 0..5 {
        let assignment = worker.assignment().await;
        order.push(assignment.task.clone().unwrap().namespace);
        worker.complete(&assignment).await;
        assert!(worker.ack().await.applied);
    }
    assert_eq!(order.iter().filter(|namespace| *namespace == "small").count(), 2, "{order:?}");
}

#[tokio::test(start_paused = true)]
async fn queues_are_listed_by_namespace() {
    let mut scheduler = Scheduler::start().await;
    let _worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    let tool = task_for(TargetKind::Tool("http".into()), "fetch");
    scheduler.dispatch(vec![task("one"), task("two"), tool, Task { namespace: "other".into(), ..task("three") }]).await;
    let request = ListQueuesRequest { namespace: String::new() };
    let queues = scheduler.client().list_queues(request).await.unwrap().into_inner().queues;
    let seen: Vec<_> = queues.iter().map(|q| (q.name.as_str(), q.ready, q.active, q.workers)).collect();
    assert_eq!(seen, [("agent/a", 1, 1, 1), ("tool/http", 1, 0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn bad_tasks_fail_alone() {
    let mut scheduler = Scheduler::start().await;
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch(vec![Task { priority: 10, ..task("bad") }, Task { target: None, ..task("worse") }, task("good")]).await;
    for _ in 0..2 {
        assert_eq!(scheduler.failure().await, ("INVALID_ARGUMENT".to_owned(), false));
    }
    assert_eq!(worker.step().await, "good");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_tasks_flow_through_ten_slots() {
    let mut scheduler = Scheduler::start().await;
    let mut worker = scheduler.worker(hello("w1", 10, &["a"])).await;
    scheduler.dispatch((0..1000).map(|i| task(&format!("{i:04}"))).collect()).await;
    let (mut assigned, mut acked) = (Vec::new(), 0);
    while acked < 1000 {
        match worker.next().await {
            troupe_proto::scheduler::v1::server_message::Kind::Assignment(assignment) => {
                worker.complete(&assignment).await;
                assigned.push(assignment.task.unwrap().step);
            }
            troupe_proto::scheduler::v1::server_message::Kind::Ack(ack) => {
                assert!(ack.applied);
                acked += 1;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(assigned.is_sorted(), "first in, first out");
    assert_eq!(assigned.len(), 1000);
}
