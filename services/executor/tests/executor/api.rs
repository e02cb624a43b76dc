//! What callers of the executor see.

use crate::world::{
    Cluster, Deed, FIVE, Journal, ONE, Worker, World, completed, echo, error, eventually, holding, json_of, report_of, small, soon,
};
use serde_json::json;
use std::{collections::HashMap, sync::Arc, time::Duration};
use troupe_domain::{Code, RunId};
use troupe_executor::Config;
use troupe_proto::{common::v1 as common, executor::v1 as wire};

const APPROVE: &str = "workflow: ask\nsteps:\n  sign: { approve: { title: \"May I?\" } }\n";

#[tokio::test]
async fn a_run_of_five_steps_ends_with_its_output() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), echo()).await;
    world.apply(FIVE).await;
    let run = world.begin("five", json!({ "text": "x" })).await;
    let run = world.ended(&run.run_id).await;
    assert_eq!(run.status, "succeeded", "{run:?}");
    assert_eq!(json_of(&run.output), json!({ "seen": ["x", 1, 3], "times": 2 }));
    assert_eq!(run.steps.len(), 5);
    assert!(run.steps.iter().all(|step| step.status == "succeeded"), "{:?}", run.steps);
    let mut dispatched: Vec<(String, u32)> = world.scheduler.dispatched().into_iter().map(|task| (task.step, task.attempt)).collect();
    dispatched.sort_unstable();
    assert_eq!(dispatched, ["a", "b", "c", "d"].map(|step| (step.to_owned(), 1)));
    // Ended runs leave memory, and are read from the journal.
    eventually("ended runs leave memory", async || world.service.runs_in_memory() == 0).await;
    assert_eq!(world.run(&run.run_id).await.output, run.output);
}

#[tokio::test]
async fn bad_input_is_refused_with_the_place_of_each_fault() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), echo()).await;
    world.apply(FIVE).await;
    let start = |input: &'static [u8]| wire::StartRunRequest { workflow: "five".into(), input: input.into(), ..Default::default() };
    let refused = error(&world.runs.start_run(start(br#"{"text": 1, "times": "x"}"#)).await.unwrap_err());
    let paths: Vec<&str> = refused.faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!((refused.code, paths), (Code::InvalidArgument, vec!["/input/text", "/input/times"]));
    for bad in [&b"{"[..], b"\xff", b"{\"text\":"] {
        assert_eq!(error(&world.runs.start_run(start(bad)).await.unwrap_err()).code, Code::InvalidArgument);
    }
    let missing = wire::StartRunRequest { workflow: "none".into(), ..Default::default() };
    assert_eq!(error(&world.runs.start_run(missing).await.unwrap_err()).code, Code::NotFound);
    let mut odd = start(br#"{"text": "x"}"#);
    odd.priority = Some(10);
    assert_eq!(error(&world.runs.start_run(odd.clone()).await.unwrap_err()).code, Code::InvalidArgument);
    odd.priority = None;
    odd.labels = (0..33).map(|n| (format!("l{n}"), String::new())).collect::<HashMap<_, _>>();
    assert_eq!(error(&world.runs.start_run(odd).await.unwrap_err()).code, Code::InvalidArgument);
}

#[tokio::test]
async fn the_same_key_starts_one_run() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), echo()).await;
    world.apply(ONE).await;
    world.apply(APPROVE).await;
    let request = wire::StartRunRequest { workflow: "one".into(), idempotency_key: "k".into(), ..Default::default() };
    let (mut left, mut right) = (world.runs.clone(), world.runs.clone());
    let (first, second) = tokio::join!(left.start_run(request.clone()), right.start_run(request.clone()));
    let (first, second) = (first.unwrap().into_inner(), second.unwrap().into_inner());
    assert_eq!(u8::from(first.created) + u8::from(second.created), 1);
    let id = first.run.unwrap().run_id;
    assert_eq!(id, second.run.unwrap().run_id);
    world.ended(&id).await;
    let again = world.runs.start_run(request.clone()).await.unwrap().into_inner();
    assert!(!again.created);
    assert_eq!(again.run.unwrap().status, "succeeded");
    let other = wire::StartRunRequest { workflow: "ask".into(), ..request };
    assert_eq!(error(&world.runs.start_run(other).await.unwrap_err()).code, Code::Conflict);
}

#[tokio::test]
async fn a_cancelled_run_asks_for_no_decision_any_more() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), echo()).await;
    world.apply(APPROVE).await;
    let run = world.begin("ask", json!({})).await;
    eventually("the decision is asked for", async || !world.approvals.requested().is_empty()).await;
    world.control(&run.run_id, wire::ControlAction::Cancel).await.unwrap();
    let asked: Vec<String> = world.approvals.requested().into_iter().map(|approval| approval.approval_id).collect();
    eventually("the request is withdrawn", async || world.approvals.withdrawn() == asked).await;
}

#[tokio::test]
async fn other_namespaces_do_not_see_a_run() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), holding()).await;
    world.apply(ONE).await;
    let run = world.begin("one", json!({})).await;
    let request = wire::GetRunRequest { namespace: "other".into(), run_id: run.run_id.clone() };
    assert_eq!(error(&world.runs.get_run(request).await.unwrap_err()).code, Code::NotFound);
    let request = wire::ControlRunRequest {
        namespace: "other".into(),
        run_id: run.run_id.clone(),
        action: wire::ControlAction::Cancel.into(),
        ..Default::default()
    };
    assert_eq!(error(&world.runs.control_run(request).await.unwrap_err()).code, Code::NotFound);
    let request = wire::StartRunRequest { namespace: "other".into(), workflow: "one".into(), ..Default::default() };
    assert_eq!(error(&world.runs.start_run(request).await.unwrap_err()).code, Code::NotFound);
    assert_eq!(world.run(&run.run_id).await.status, "running");
}

#[tokio::test]
async fn timers_fire_and_waits_have_an_end() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), echo()).await;
    world.apply("workflow: nap\nsteps:\n  nap: { sleep: 150ms }\n").await;
    let run = world.begin("nap", json!({})).await;
    let timeout = Some(troupe_wire::duration(Duration::from_millis(1)));
    let request = wire::WaitRunRequest { run_id: run.run_id.clone(), timeout, ..Default::default() };
    assert!(!world.runs.wait_run(request).await.unwrap().into_inner().ended);
    let run = world.ended(&run.run_id).await;
    assert_eq!(run.status, "succeeded");
    let kinds: Vec<String> = world.journal(&run.run_id).await.into_iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, ["started", "tick"]);
}

#[tokio::test]
async fn a_start_may_wait_for_the_end() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), echo()).await;
    world.apply(ONE).await;
    world.apply("workflow: asks\nsteps:\n  wait: { signal: go }\n").await;
    let start = |workflow: &str, wait: u64| wire::StartRunRequest {
        workflow: workflow.into(),
        idempotency_key: workflow.into(),
        wait: Some(troupe_wire::duration(Duration::from_millis(wait))),
        ..Default::default()
    };
    let ended = world.runs.start_run(start("one", 30_000)).await.unwrap().into_inner();
    let run = ended.run.unwrap();
    assert_eq!((ended.created, run.status.as_str(), run.steps.len()), (true, "succeeded", 1));
    let wait = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let refused = world.runs.start_run(wire::StartRunRequest { wait, ..start("asks", 0) }).await.unwrap_err();
    assert_eq!(error(&refused).code, Code::InvalidArgument);
    let early = world.runs.start_run(start("asks", 1)).await.unwrap().into_inner();
    let run = early.run.unwrap();
    assert!(early.created && run.ended_at.is_none());
    let (mut again, mut signals) = (world.runs.clone(), world.runs.clone());
    let go = wire::SignalRunRequest { run_id: run.run_id, name: "go".into(), ..Default::default() };
    let (again, signalled) = tokio::join!(again.start_run(start("asks", 30_000)), signals.signal_run(go));
    signalled.unwrap();
    let again = again.unwrap().into_inner();
    assert_eq!((again.created, again.run.unwrap().status.as_str()), (false, "succeeded"));
}

#[tokio::test]
async fn a_failed_run_is_a_dead_letter_until_it_is_retried() {
    let journal = Journal::in_memory().await;
    let failing: Worker = Arc::new(|_| Deed::Fail { code: "BROKEN", retryable: true });
    let mut world = World::start(&journal, small(), failing).await;
    world
        .apply("workflow: try\nsteps:\n  only: { agent: echo, with: {}, retry: { attempts: 3, backoff: { initial: 1ms, max: 5ms } } }\n")
        .await;
    let run = world.begin("try", json!({})).await;
    let run = world.ended(&run.run_id).await;
    assert_eq!((run.status.as_str(), run.error.unwrap().code.as_str()), ("failed", "BROKEN"));
    let attempts: Vec<u32> = world.scheduler.dispatched().iter().map(|task| task.attempt).collect();
    assert_eq!(attempts, [1, 2, 3]);
    let dead = wire::ListRunsRequest { dead_queue: "agent/echo".into(), ..Default::default() };
    let listed = world.runs.list_runs(dead.clone()).await.unwrap().into_inner().runs;
    assert_eq!(listed.iter().map(|listed| listed.run_id.as_str()).collect::<Vec<_>>(), [run.run_id.as_str()]);
    world.scheduler.work_with(echo());
    let answer = world.control(&run.run_id, wire::ControlAction::Retry).await.unwrap();
    assert_eq!(answer.outcome(), wire::ControlOutcome::Done);
    assert_eq!(world.ended(&run.run_id).await.status, "succeeded");
    assert!(world.runs.list_runs(dead).await.unwrap().into_inner().runs.is_empty());
}

#[tokio::test]
async fn children_run_and_tell_their_parents() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), echo()).await;
    world.apply("workflow: parent\nsteps:\n  sub: { workflow: child, with: { n: 7 } }\noutput: { got: \"${ steps.sub.output }\" }\n").await;
    let run = world.begin("parent", json!({})).await;
    let run = world.ended(&run.run_id).await;
    assert_eq!(run.status, "failed", "a child that does not exist fails its step");
    world
        .apply("workflow: child\nsteps:\n  work: { agent: echo, with: { n: \"${ input.n }\" } }\noutput: { n: \"${ steps.work.output.n }\" }\n")
        .await;
    let run = world.begin("parent", json!({})).await;
    let run = world.ended(&run.run_id).await;
    assert_eq!(run.status, "succeeded", "{run:?}");
    assert_eq!(json_of(&run.output), json!({ "got": { "n": 7 } }));
    let request = wire::ListRunsRequest { parent_run_id: run.run_id.clone(), ..Default::default() };
    let children = world.runs.list_runs(request).await.unwrap().into_inner().runs;
    assert_eq!(children.iter().map(|child| child.workflow.as_str()).collect::<Vec<_>>(), ["child"]);
}

#[tokio::test]
async fn cancelling_a_parent_cancels_its_child() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), holding()).await;
    world.apply("workflow: child\nsteps:\n  work: { agent: echo, with: {} }\n").await;
    world.apply("workflow: parent\nsteps:\n  sub: { workflow: child, with: {} }\n").await;
    let run = world.begin("parent", json!({})).await;
    eventually("the child's task is dispatched", async || !world.scheduler.dispatched().is_empty()).await;
    let child = world.scheduler.dispatched().remove(0).run_id;
    world.control(&run.run_id, wire::ControlAction::Cancel).await.unwrap();
    assert_eq!(world.ended(&child).await.status, "cancelled");
    eventually("the task is cancelled", async || !world.scheduler.cancelled().is_empty()).await;
}

#[tokio::test]
async fn control_says_what_happened() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), holding()).await;
    world.apply(ONE).await;
    let run = world.begin("one", json!({})).await;
    let done = world.control(&run.run_id, wire::ControlAction::Pause).await.unwrap();
    assert_eq!((done.outcome(), done.run.unwrap().status.as_str()), (wire::ControlOutcome::Done, "paused"));
    assert_eq!(world.control(&run.run_id, wire::ControlAction::Pause).await.unwrap().outcome(), wire::ControlOutcome::Already);
    assert_eq!(world.control(&run.run_id, wire::ControlAction::Resume).await.unwrap().outcome(), wire::ControlOutcome::Done);
    assert_eq!(world.control(&run.run_id, wire::ControlAction::Retry).await.unwrap_err().code, Code::FailedPrecondition);
    assert_eq!(world.control(&run.run_id, wire::ControlAction::Cancel).await.unwrap().outcome(), wire::ControlOutcome::Done);
    assert_eq!(world.control(&run.run_id, wire::ControlAction::Cancel).await.unwrap().outcome(), wire::ControlOutcome::Already);
    assert_eq!(world.control(&run.run_id, wire::ControlAction::Pause).await.unwrap_err().code, Code::FailedPrecondition);
    let unknown = uuid::Uuid::nil().to_string();
    assert_eq!(world.control(&unknown, wire::ControlAction::Cancel).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn a_signal_is_applied_once() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), echo()).await;
    world.apply("workflow: listen\nsteps:\n  one: { signal: go }\n  two: { after: one, signal: go }\noutput: { a: \"${ steps.one.output }\" }\n").await;
    let run = world.begin("listen", json!({})).await;
    let request = wire::SignalRunRequest {
        run_id: run.run_id.clone(),
        name: "go".into(),
        payload: "1".into(),
        idempotency_key: "s".into(),
        ..Default::default()
    };
    assert!(world.runs.signal_run(request.clone()).await.unwrap().into_inner().applied);
    assert!(!world.runs.signal_run(request.clone()).await.unwrap().into_inner().applied);
    assert_eq!(world.run(&run.run_id).await.status, "waiting");
    let second = wire::SignalRunRequest { idempotency_key: String::new(), ..request.clone() };
    assert!(world.runs.signal_run(second.clone()).await.unwrap().into_inner().applied);
    let run = world.ended(&run.run_id).await;
    assert_eq!(json_of(&run.output), json!({ "a": 1 }));
    assert_eq!(error(&world.runs.signal_run(second).await.unwrap_err()).reason, "RUN_ENDED");
}

#[tokio::test]
async fn a_task_is_a_run_of_one_step() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), echo()).await;
    let target = |kind| Some(common::Target { kind: Some(kind) });
    for (kind, name) in [
        (common::target::Kind::Agent("echo".into()), "task.agent.echo"),
        (common::target::Kind::Capability("echoing".into()), "task.capability.echoing"),
        (common::target::Kind::Tool("json.echo".into()), "task.tool.json.echo"),
    ] {
        let request = wire::SubmitTaskRequest { target: target(kind), input: r#"{"x":[1]}"#.into(), attempts: 2, ..Default::default() };
        let answer = world.runs.submit_task(request).await.unwrap().into_inner();
        let run = answer.run.unwrap();
        assert_eq!((answer.created, run.workflow.as_str()), (true, name));
        let run = world.ended(&run.run_id).await;
        assert_eq!((run.status.as_str(), json_of(&run.output)), ("succeeded", json!({ "x": [1] })), "{run:?}");
    }
    let nobody = wire::SubmitTaskRequest::default();
    assert_eq!(error(&world.runs.submit_task(nobody).await.unwrap_err()).code, Code::InvalidArgument);
    let all = world.workflows.list_workflows(wire::ListWorkflowsRequest::default()).await.unwrap().into_inner();
    assert!(all.workflows.is_empty());
}

#[tokio::test]
async fn a_run_says_what_it_waits_on() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), holding()).await;
    world.apply("workflow: both\nsteps:\n  work: { agent: echo, with: {} }\n  sign: { approve: { title: \"May I?\" } }\n").await;
    let run = world.begin("both", json!({})).await;
    let request = wire::ExplainRunRequest { run_id: run.run_id.clone(), ..Default::default() };
    let answer = world.runs.explain_run(request).await.unwrap().into_inner();
    let mut waits: Vec<(String, String)> = answer.waits.iter().map(|wait| (wait.step.clone(), wait.kind.clone())).collect();
    waits.sort();
    assert_eq!(waits, [("sign".into(), "approval".into()), ("work".into(), "task".into())]);
    let task = answer.waits.iter().find(|wait| wait.kind == "task").unwrap();
    assert_eq!(task.detail, "no worker serves this queue");
    assert_eq!(task.reference, format!("{}/work", run.run_id));
}

#[tokio::test]
async fn a_decision_is_applied_once() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), echo()).await;
    world.apply(APPROVE).await;
    let run = world.begin("ask", json!({})).await;
    eventually("the approval is requested", async || !world.approvals.requested().is_empty()).await;
    let approval = world.approvals.requested().remove(0);
    assert_eq!((approval.title.as_str(), approval.mode.as_str()), ("May I?", "approve"));
    let request = wire::DecideRequest {
        run_id: run.run_id.clone(),
        approval_id: approval.approval_id,
        status: "approved".into(),
        by: "ada".into(),
        ..Default::default()
    };
    assert!(world.effects.decide(request.clone()).await.unwrap().into_inner().applied);
    assert!(!world.effects.decide(request.clone()).await.unwrap().into_inner().applied);
    assert_eq!(world.ended(&run.run_id).await.status, "succeeded");
    assert!(!world.effects.decide(request.clone()).await.unwrap().into_inner().applied);
    let unknown = wire::DecideRequest { run_id: uuid::Uuid::nil().to_string(), ..request };
    assert!(!world.effects.decide(unknown).await.unwrap().into_inner().applied);
}

#[tokio::test]
async fn reports_are_answered_by_what_became_of_them() {
    use wire::Applied::{Duplicate, Refused, Stale, Yes};
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), holding()).await;
    world.apply(ONE).await;
    let run = world.begin("one", json!({})).await;
    eventually("the task is dispatched", async || !world.scheduler.dispatched().is_empty()).await;
    let task = world.scheduler.dispatched().remove(0);
    let record = |index, value: &'static str| {
        wire::task_report::Outcome::Recorded(wire::TaskRecorded { index, name: "llm".into(), value: value.into() })
    };
    let cases = [
        (report_of(&task, 5, record(0, "1")), Yes),
        (report_of(&task, 5, record(0, "1")), Duplicate),
        (report_of(&task, 5, record(7, "1")), Refused),
        (report_of(&task, 5, record(1, "{")), Refused),
        (report_of(&task, 4, record(1, "1")), Stale),
        (wire::TaskReport { run_id: "x".into(), ..report_of(&task, 5, record(1, "1")) }, Refused),
        (wire::TaskReport { run_id: uuid::Uuid::nil().to_string(), ..report_of(&task, 5, record(1, "1")) }, Stale),
        (wire::TaskReport { namespace: "other".into(), ..report_of(&task, 5, record(1, "1")) }, Stale),
        (wire::TaskReport { outcome: None, ..report_of(&task, 5, record(1, "1")) }, Refused),
        (report_of(&task, 5, completed(json!({ "ok": true }))), Yes),
        (report_of(&task, 4, completed(json!(null))), Stale),
    ];
    for (n, (report, expected)) in cases.into_iter().enumerate() {
        let ack = world.report(report).await;
        assert_eq!(ack.applied(), expected, "case {n}: {}", ack.message);
    }
    let kinds: Vec<String> = world.journal(&run.run_id).await.into_iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, ["started", "task_recorded", "task_completed"]);
}

#[tokio::test]
async fn versions_never_change() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), echo()).await;
    let source = "workflow: v\nversion: 1.0.0\nsteps:\n  a: { set: { x: 1 } }\n";
    let first = world.apply(source).await;
    let same = wire::ApplyWorkflowRequest { source: source.into(), ..Default::default() };
    assert!(!world.workflows.apply_workflow(same).await.unwrap().into_inner().created);
    let other = wire::ApplyWorkflowRequest { source: source.replace("x: 1", "x: 2"), ..Default::default() };
    let refused = error(&world.workflows.apply_workflow(other).await.unwrap_err());
    assert_eq!(refused.code, Code::Conflict);
    assert!(refused.help.contains("version"), "{refused:?}");
    let dry = wire::ApplyWorkflowRequest { source: source.replace("1.0.0", "2.0.0"), dry_run: true, ..Default::default() };
    assert_eq!(world.workflows.apply_workflow(dry).await.unwrap().into_inner().workflow.unwrap().version, "2.0.0");
    let get = wire::GetWorkflowRequest { name: "v".into(), ..Default::default() };
    assert_eq!(world.workflows.get_workflow(get).await.unwrap().into_inner().workflow.unwrap().hash, first.hash);
    let broken = wire::ApplyWorkflowRequest { source: "workflow: v\nsteps:\n  a: { agnt: x }\n".into(), ..Default::default() };
    let refused = error(&world.workflows.apply_workflow(broken).await.unwrap_err());
    assert_eq!(refused.code, Code::InvalidArgument);
    assert!(refused.faults.iter().any(|fault| fault.line == 3), "{refused:?}");
}

#[tokio::test]
async fn waiting_runs_leave_memory() {
    let journal = Journal::in_memory().await;
    let config = Config { hot_runs: 64, ..small() };
    let mut world = World::start(&journal, config, echo()).await;
    world.apply(APPROVE).await;
    let starts = (0..10_000).map(|_| {
        let mut runs = world.runs.clone();
        async move {
            let request = wire::StartRunRequest { workflow: "ask".into(), ..Default::default() };
            runs.start_run(request).await.unwrap().into_inner().run.unwrap().run_id
        }
    });
    let ids: Vec<String> =
        futures::stream::StreamExt::collect(futures::stream::StreamExt::buffer_unordered(futures::stream::iter(starts), 256)).await;
    assert_eq!(ids.len(), 10_000);
    assert!(world.service.runs_in_memory() <= 8, "{} runs are in memory", world.service.runs_in_memory());
    eventually("every approval is requested", async || world.approvals.requested().len() == 10_000).await;
    let approval = world.approvals.requested().pop().unwrap();
    let request = wire::DecideRequest {
        run_id: approval.run_id.clone(),
        approval_id: approval.approval_id,
        status: "approved".into(),
        ..Default::default()
    };
    assert!(world.effects.decide(request).await.unwrap().into_inner().applied);
    assert_eq!(world.ended(&approval.run_id).await.status, "succeeded");
}

#[tokio::test]
async fn a_drained_executor_refuses_and_lets_go() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), echo()).await;
    world.apply(ONE).await;
    assert!(world.service.health().await.iter().all(|dependency| dependency.ok));
    soon(world.service.drain()).await;
    let request = wire::StartRunRequest { workflow: "one".into(), ..Default::default() };
    assert_eq!(error(&world.runs.start_run(request).await.unwrap_err()).code, Code::Unavailable);
    // Nobody finds an owner here any more, and nobody who looks for one keeps the process.
    let run_id = RunId::generate().to_string();
    let decision = wire::DecideRequest { run_id, status: "approved".into(), ..Default::default() };
    let mut search = Box::pin(world.effects.decide(decision));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut search).await.is_err(), "it looks for an owner");
    let stopping = std::time::Instant::now();
    assert!(world.tasks.stop(Duration::from_secs(5)).await);
    assert_eq!(error(&search.await.unwrap_err()).code, Code::Unavailable);
    assert!(stopping.elapsed() < Duration::from_secs(3), "it looked on for {:?}", stopping.elapsed());
    // The leases are free: another executor need not wait or force.
    let mut next = Cluster::on(journal, echo()).join(small()).await;
    let run = next.begin("one", json!({})).await;
    assert_eq!(next.ended(&run.run_id).await.status, "succeeded");
}
