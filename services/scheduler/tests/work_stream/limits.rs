//! Limits and states of agents, and what is said of tasks that wait.

use crate::harness::*;
use std::time::Duration;
use troupe_proto::{
    common::v1::target::Kind as TargetKind,
    registry::v1::AgentState,
    scheduler::v1::{ServedAgent, Task, server_message::Kind},
};
use troupe_scheduler::Config;

async fn assignments(worker: &mut Worker, within: Duration) -> Vec<troupe_proto::scheduler::v1::Assignment> {
    let mut all = Vec::new();
    while let Ok(message) = tokio::time::timeout(within, worker.next()).await {
        if let Kind::Assignment(assignment) = message {
            all.push(assignment);
        }
    }
    all
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_limited_over_all_workers() {
    let mut scheduler = Scheduler::start().await;
    scheduler.define("a", AgentState::Active, r#"{"concurrency":3}"#).await;
    let mut one = scheduler.worker(hello("w1", 8, &["a"])).await;
    let mut two = scheduler.worker(hello("w2", 8, &["a"])).await;
    scheduler.dispatch((0..5).map(|i| task(&i.to_string())).collect()).await;
    let mut first = assignments(&mut one, Duration::from_millis(20)).await;
    let second = assignments(&mut two, Duration::from_millis(20)).await;
    assert_eq!(first.len() + second.len(), 3);
    assert_eq!(scheduler.explain(&task("4")).await.detail, "agent a: limit concurrency 3 of 3; position 2");
    one.complete(&first.remove(0)).await;
    assert!(matches!(one.next().await, Kind::Ack(_) | Kind::Assignment(_)));
    let more = assignments(&mut one, Duration::from_millis(20)).await.len() + assignments(&mut two, Duration::from_millis(20)).await.len();
    assert_eq!(more, 1);
    scheduler.define("a", AgentState::Active, r#"{"concurrency":0}"#).await;
    let rest = assignments(&mut one, Duration::from_millis(20)).await.len() + assignments(&mut two, Duration::from_millis(20)).await.len();
    assert_eq!(rest, 1, "the limit was taken away");
}

#[tokio::test(start_paused = true)]
async fn rates_spread_tasks_over_time() {
    let mut scheduler = Scheduler::start().await;
    scheduler.define("a", AgentState::Active, r#"{"rate":"20/m"}"#).await;
    let mut worker = scheduler.worker(hello("w1", 100, &["a"])).await;
    let start = tokio::time::Instant::now();
    scheduler.dispatch((0..5).map(|i| task(&i.to_string())).collect()).await;
    assert_eq!(worker.step().await, "0");
    let detail = scheduler.explain(&task("1")).await.detail;
    assert!(detail.starts_with("agent a: rate 20/m, next in "), "{detail}");
    for i in 1..5 {
        assert_eq!(worker.step().await, i.to_string());
        let expected = Duration::from_secs(3 * i);
        assert!(start.elapsed().abs_diff(expected) < Duration::from_millis(50), "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn agents_out_of_service_get_nothing_until_they_are_back() {
    let mut scheduler = Scheduler::start().await;
    scheduler.define("a", AgentState::Quarantined, "{}").await;
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch(vec![task("one")]).await;
    worker.quiet().await;
    assert_eq!(scheduler.explain(&task("one")).await.detail, "agent a is quarantined (a test); position 1");
    scheduler.define("a", AgentState::Active, "{}").await;
    assert_eq!(worker.step().await, "one");
}

#[tokio::test(start_paused = true)]
async fn an_agents_slots_on_a_worker_are_kept_and_leave_room_for_others() {
    let mut scheduler = Scheduler::start().await;
    let mut served = hello("w1", 3, &["b"]);
    served.agents.push(ServedAgent { name: "a".into(), slots: 1, ..ServedAgent::default() });
    let mut worker = scheduler.worker(served).await;
    scheduler.dispatch(vec![task("a1"), task("a2"), task_for(TargetKind::Agent("b".into()), "b1")]).await;
    let given = assignments(&mut worker, Duration::from_millis(20)).await;
    assert_same(given.iter().map(|a| a.task.clone().unwrap().step).collect(), vec!["a1".to_owned(), "b1".to_owned()]);
    let a1 = given.iter().find(|a| a.agent == "a").unwrap();
    worker.complete(a1).await;
    let next = assignments(&mut worker, Duration::from_millis(20)).await;
    assert_eq!(next[0].task.as_ref().unwrap().step, "a2");
}

#[tokio::test(start_paused = true)]
async fn waiting_tasks_say_what_they_wait_for() {
    let mut scheduler = Scheduler::start().await;
    scheduler.dispatch(vec![task("one"), task_for(TargetKind::Capability("sum".into()), "two")]).await;
    assert_eq!(scheduler.explain(&task("one")).await.detail, "no worker serves agent a; position 1");
    assert_eq!(scheduler.explain(&task("two")).await.detail, "no worker serves an agent with capability sum; position 1");
    let mut worker = scheduler.worker(hello("w1", 1, &["a:sum"])).await;
    let assignment = worker.assignment().await;
    assert_eq!(assignment.task.unwrap().step, "one");
    let state = scheduler.explain(&task("one")).await;
    assert_eq!((state.state.as_str(), state.worker.as_str(), state.queue.as_str()), ("assigned", "w1", "agent/a"));
    assert!(state.lease_expires_at.is_some());
    let detail = scheduler.explain(&task("two")).await.detail;
    assert_eq!(detail, "all 1 slots of the 1 workers that serve an agent with capability sum are taken; position 1");
    assert_eq!(scheduler.explain(&Task { namespace: "other".into(), ..task("one") }).await.state, "unknown");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_tasks_and_says_when_to_come_back() {
    let mut scheduler = Scheduler::with(Config { max_namespace_tasks: 1, ..Config::default() }).await;
    scheduler.dispatch(vec![task("one"), task("two"), Task { namespace: "other".into(), ..task("three") }]).await;
    assert_eq!(scheduler.failure().await, ("RESOURCE_EXHAUSTED".to_owned(), true));
    assert_eq!(scheduler.explain(&task("one")).await.state, "ready");
}

#[tokio::test(start_paused = true)]
async fn the_registry_hears_of_instances() {
    let mut scheduler = Scheduler::start().await;
    let mut served = hello("w1", 4, &["a:sum"]);
    served.client = "test 1.0".into();
    let mut worker = scheduler.worker(served).await;
    let mut instances = scheduler.instances.clone();
    let reported = instances.wait_for(|all| !all.is_empty()).await.unwrap().clone();
    let instance = reported[0].instance.clone().unwrap();
    assert_eq!((reported[0].agent.as_str(), reported[0].capabilities.as_slice()), ("a", ["sum".to_owned()].as_slice()));
    assert_eq!((instance.worker_id.as_str(), instance.slots, instance.active, instance.health.as_str()), ("w1", 4, 0, "healthy"));
    scheduler.dispatch(vec![task("one")]).await;
    worker.assignment().await;
    let is = |active: u32, health: &'static str| {
        move |all: &Vec<troupe_proto::registry::v1::ReportedInstance>| {
            all.first().and_then(|i| i.instance.as_ref()).is_some_and(|i| i.active == active && i.health == health)
        }
    };
    instances.wait_for(is(1, "healthy")).await.unwrap();
    instances.wait_for(is(1, "stalled")).await.unwrap();
    drop(worker);
    instances.wait_for(Vec::is_empty).await.unwrap();
}
