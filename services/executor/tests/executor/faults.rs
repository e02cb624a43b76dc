//! One run's fault stays its own; settings that change do not change what was; nothing that was acknowledged is forgotten.

use crate::world::{Deed, Journal, World, completed, echo, eventually, holding, report_of, small, soon};
use serde_json::{Value, json};
use troupe_domain::Code;
use troupe_engine::Limits;
use troupe_executor::Config;
use troupe_proto::{executor::v1 as wire, scheduler::v1::Task};

const ONE: &str = "workflow: one\nsteps:\n  only: { agent: echo, with: {} }\n";

async fn signal(world: &World, run_id: &str, payload: Value) -> Result<(), troupe_domain::Error> {
    let payload = payload.to_string().into();
    let request = wire::SignalRunRequest { run_id: run_id.to_owned(), name: "go".into(), payload, ..Default::default() };
    world.runs.clone().signal_run(request).await.map(|_| ()).map_err(|status| troupe_wire::from_status(&status))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_run_that_the_journal_refuses_does_not_spoil_the_batches_of_others() {
    let journal = Journal::in_memory().await;
    let mut before = World::start(&journal, small(), holding()).await;
    before.apply("workflow: wait\nsteps:\n  go: { signal: go }\n").await;
    let mut old = Vec::new();
    for _ in 0..20 {
        old.push(before.begin("wait", json!({})).await.run_id);
    }
    before.crash().await;

    // What must never be done: most of the old runs are now in a partition that the journal refuses.
    let after = World::start(&journal, Config { partitions: 1, ..Config::default() }, holding()).await;
    let poison = old.iter().map(|run| signal(&after, run, json!(1)));
    let healthy = (0..50).map(|_| {
        let (mut runs, world) = (after.runs.clone(), &after);
        async move {
            let request = wire::StartRunRequest { workflow: "wait".into(), ..Default::default() };
            let run = runs.start_run(request).await.expect("a start has nothing to do with the others").into_inner().run.unwrap();
            signal(world, &run.run_id, json!(2)).await.expect("nor has a signal");
        }
    });
    let (refused, _) = soon(async { tokio::join!(futures::future::join_all(poison), futures::future::join_all(healthy)) }).await;
    let refused = refused.iter().filter(|answer| answer.is_err()).count();
    assert!(refused > 5, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_run_that_grows_too_large_is_stopped_and_recovered_with_the_others() {
    let journal = Journal::in_memory().await;
    let config = || Config { partitions: 1, ..Config::default() };
    let mut world = World::start(&journal, config(), holding()).await;
    world.apply("workflow: large\nsteps:\n  part: { for_each: \"${ input.parts }\", agent: echo, with: { n: \"${ item }\" } }\n").await;
    world.apply(ONE).await;
    let large = world.begin("large", json!({ "parts": (0..60).collect::<Vec<_>>() })).await;
    let other = world.begin("one", json!({})).await;
    eventually("all is dispatched", async || world.scheduler.dispatched().len() == 61).await;
    let output = json!("x".repeat(1 << 20));
    let mut answers = Vec::new();
    for task in world.scheduler.dispatched().iter().filter(|task| task.run_id == large.run_id) {
        answers.push(world.report(report_of(task, 1, completed(output.clone()))).await.applied());
    }
    let (taken, last) = (answers.iter().filter(|answer| **answer == wire::Applied::Yes).count(), answers.last().unwrap());
    assert!((20..40).contains(&taken) && *last == wire::Applied::Refused, "{taken} {last:?}");
    world.crash().await;

    let mut world = World::start(&journal, config(), echo()).await;
    assert_eq!(world.ended(&other.run_id).await.status, "succeeded");
    // Small results are always taken: it goes on to its end, which is that its list of outputs is too large.
    let large = world.ended(&large.run_id).await;
    assert_eq!((large.status.as_str(), large.error.unwrap().code.as_str()), ("failed", "PAYLOAD_TOO_LARGE"));
}

#[tokio::test]
async fn lower_limits_do_not_touch_runs_that_were_started_before() {
    let journal = Journal::in_memory().await;
    let mut before = World::start(&journal, small(), holding()).await;
    let source = r#"
workflow: two
steps:
  a: { agent: echo, with: { pad: "${ input.pad }" } }
  b: { after: a, agent: echo, with: { pad: "${ steps.a.output.pad }" } }
output: "${ steps.b.output }"
"#;
    before.apply(source).await;
    let pad = "x".repeat(2_000);
    let run = before.begin("two", json!({ "pad": pad })).await;
    eventually("the task is dispatched", async || !before.scheduler.dispatched().is_empty()).await;
    let task = before.scheduler.dispatched().remove(0);
    let record = wire::TaskRecorded { index: 0, name: "call".into(), value: json!(pad).to_string().into() };
    before.report(report_of(&task, 1, wire::task_report::Outcome::Recorded(record))).await;
    before.report(report_of(&task, 1, completed(json!({ "pad": pad })))).await;
    before.crash().await;

    let limits = Limits { max_payload_bytes: 1_024, max_records: 0, max_steps: 1, max_state_bytes: 10, ..Limits::default() };
    let mut after = World::start(&journal, Config { limits, ..small() }, holding()).await;
    eventually("the second task is dispatched", async || !after.scheduler.dispatched().is_empty()).await;
    let task = after.scheduler.dispatched().remove(0);
    assert_eq!((task.step.as_str(), task.attempt), ("b", 1), "what was done is done");
    after.report(report_of(&task, 2, completed(json!({ "pad": "short" })))).await;
    let run = after.ended(&run.run_id).await;
    assert_eq!((run.status.as_str(), &run.output[..]), ("succeeded", &br#"{"pad":"short"}"#[..]), "{run:?}");
    let request = wire::StartRunRequest { workflow: "two".into(), input: json!({ "pad": pad }).to_string().into(), ..Default::default() };
    let refused = troupe_wire::from_status(&after.runs.start_run(request).await.unwrap_err());
    assert_eq!(refused.code, Code::PayloadTooLarge, "{refused}");
    assert!(refused.message.contains("executor.limits.max_payload_bytes"), "{refused}");
}

#[tokio::test]
async fn a_run_whose_approval_is_refused_does_not_wait_for_ever() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, Config { partitions: 1, ..Config::default() }, echo()).await;
    world.apply("workflow: ask\nsteps:\n  sign: { approve: { title: \"${ input.title }\" } }\n").await;
    let good = world.begin("ask", json!({ "title": "May I?" })).await;
    let bad = world.begin("ask", json!({ "title": "refuse" })).await;
    let bad = world.ended(&bad.run_id).await;
    let error = bad.error.unwrap();
    assert_eq!((bad.status.as_str(), error.code.as_str()), ("failed", "APPROVAL_REJECTED"));
    assert!(error.message.contains("is one that is refused"), "{}", error.message);
    eventually("the other one is requested", async || world.approvals.requested().len() == 1).await;
    assert_eq!(world.approvals.requested()[0].run_id, good.run_id);
}

#[tokio::test]
async fn a_child_that_was_started_again_outlives_a_crash() {
    let journal = Journal::in_memory().await;
    let failing = std::sync::Arc::new(|_: &Task| Deed::Fail { code: "BROKEN", retryable: false });
    let mut first = World::start(&journal, small(), failing).await;
    first.apply("workflow: child\nsteps:\n  work: { agent: echo, with: {} }\noutput: 5\n").await;
    first.apply("workflow: parent\nsteps:\n  sub: { workflow: child, with: {} }\n").await;
    let parent = first.begin("parent", json!({})).await;
    assert_eq!(first.ended(&parent.run_id).await.status, "failed");
    let request = wire::ListRunsRequest { parent_run_id: parent.run_id.clone(), ..Default::default() };
    let child = first.runs.list_runs(request).await.unwrap().into_inner().runs.remove(0).run_id;
    first.scheduler.work_with(holding());
    first.control(&child, wire::ControlAction::Retry).await.unwrap();
    eventually("the child's task is dispatched again", async || first.scheduler.dispatched().len() == 2).await;
    first.crash().await;

    let mut second = World::start(&journal, small(), holding()).await;
    eventually("the task is dispatched after the crash", async || !second.scheduler.dispatched().is_empty()).await;
    let task = second.scheduler.dispatched().remove(0);
    // Orphans would be cancelled by now: that is issued first.
    eventually("recovery is over", async || second.run(&child).await.status == "running").await;
    let ack = second.report(report_of(&task, 9, completed(json!({})))).await;
    assert_eq!(ack.applied(), wire::Applied::Yes, "{}", ack.message);
    assert_eq!(second.ended(&child).await.status, "succeeded");
}

#[tokio::test]
async fn a_watcher_misses_nothing_between_large_entries() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), echo()).await;
    let steps = "workflow: three\nsteps:\n  a: { signal: go }\n  b: { after: a, signal: go }\n  c: { after: b, signal: go }\noutput: 1\n";
    world.apply(steps).await;
    let run = world.begin("three", json!({})).await;
    for _ in 0..3 {
        signal(&world, &run.run_id, json!("x".repeat((4 << 20) - 2))).await.unwrap();
    }
    assert_eq!(world.ended(&run.run_id).await.status, "succeeded");
    let kinds: Vec<String> = world.watch(&run.run_id, "").await.into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "step.succeeded").count(), 3, "{kinds:?}");
    assert_eq!(kinds.last().unwrap(), "run.succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn runs_that_do_not_fit_into_memory_together_are_not_missing() {
    let journal = Journal::in_memory().await;
    // Every few messages of a turn are a commit, and hardly any run may stay.
    let config = Config { partitions: 1, hot_runs: 4, batch_bytes: 1 << 10, ..Config::default() };
    let mut world = World::start(&journal, config, holding()).await;
    world.apply("workflow: twice\nsteps:\n  a: { signal: go }\n  b: { after: a, signal: go }\n").await;
    let mut runs = Vec::new();
    for _ in 0..200 {
        runs.push(world.begin("twice", json!({})).await.run_id);
    }
    for _ in 0..2 {
        let text = "x".repeat(300);
        let signals = runs.iter().map(|run| signal(&world, run, json!(text)));
        for answer in soon(futures::future::join_all(signals)).await {
            answer.unwrap();
        }
    }
    for run in &runs {
        assert_eq!(world.ended(run).await.status, "succeeded");
    }
}
