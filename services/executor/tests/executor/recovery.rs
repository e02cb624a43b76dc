//! Crashes, losses and rivals: what was acknowledged goes on, and nothing happens twice.

use crate::world::{Journal, Link, World, completed, echo, eventually, holding, report_of, small, soon};
use serde_json::json;
use std::{collections::HashSet, sync::atomic::Ordering, time::Duration};
use troupe_domain::Code;
use troupe_executor::Config;
use troupe_proto::executor::v1 as wire;

const THREE: &str = r#"
workflow: three
steps:
  a: { agent: echo, with: { n: 1 } }
  b: { after: a, agent: echo, with: { n: 2 } }
  c: { after: b, agent: echo, with: { n: 3 } }
output: { n: "${ steps.c.output.n }" }
"#;

/// How often each step's outcome is in the journal.
pub(crate) async fn outcomes(world: &mut World, run_id: &str) -> Vec<String> {
    let mut steps = Vec::new();
    for entry in world.journal(run_id).await {
        if entry.changes.is_empty() {
            continue;
        }
        for change in serde_json::from_slice::<Vec<serde_json::Value>>(&entry.changes).unwrap() {
            if change["kind"] == "step.succeeded" {
                steps.push(change["step"].as_str().unwrap().to_owned());
            }
        }
    }
    steps
}

#[tokio::test]
async fn runs_go_on_after_a_crash() {
    let journal = Journal::in_memory().await;
    let mut first = World::start(&journal, small(), holding()).await;
    first.apply(THREE).await;
    let mut runs = Vec::new();
    for _ in 0..20 {
        runs.push(first.begin("three", json!({})).await.run_id);
    }
    // Half of them have their first step behind them when the process dies.
    eventually("all first tasks are dispatched", async || first.scheduler.dispatched().len() == 20).await;
    let tasks = first.scheduler.dispatched();
    for task in tasks.iter().take(10) {
        first.report(report_of(task, 1, completed(json!({ "n": 1 })))).await;
    }
    first.crash().await;

    let mut second = World::start(&journal, small(), echo()).await;
    for run in &runs {
        let run = second.ended(run).await;
        assert_eq!(run.status, "succeeded", "{run:?}");
        assert_eq!(outcomes(&mut second, &run.run_id).await, ["a", "b", "c"]);
    }
    let again = second.scheduler.dispatched();
    let repeated: HashSet<&str> = again.iter().filter(|task| task.step == "a").map(|task| task.run_id.as_str()).collect();
    assert_eq!(repeated.len(), 10, "steps with an outcome are not dispatched again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn runs_on_a_disk_go_on_however_often_they_are_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("journal.db");
    let mut runs = Vec::new();
    for round in 0..4 {
        let journal = Journal::on_disk(&file).await;
        let mut world = World::start(&journal, small(), echo()).await;
        if round == 0 {
            world.apply(THREE).await;
        }
        for _ in 0..20 {
            runs.push(world.begin("three", json!({})).await.run_id);
        }
        // Some of them are anywhere between their start and their end now.
        world.crash().await;
        assert!(journal.tasks.stop(std::time::Duration::from_secs(10)).await);
    }
    let journal = Journal::on_disk(&file).await;
    let mut world = World::start(&journal, small(), echo()).await;
    for run in &runs {
        assert_eq!(world.ended(run).await.status, "succeeded");
        assert_eq!(outcomes(&mut world, run).await, ["a", "b", "c"]);
    }
}

#[tokio::test]
async fn records_outlive_a_crash() {
    let journal = Journal::in_memory().await;
    let mut first = World::start(&journal, small(), holding()).await;
    first.apply(THREE).await;
    let run = first.begin("three", json!({})).await;
    eventually("the task is dispatched", async || !first.scheduler.dispatched().is_empty()).await;
    let task = first.scheduler.dispatched().remove(0);
    for index in 0..3 {
        let record = wire::TaskRecorded { index, name: format!("call {index}"), value: index.to_string().into() };
        let ack = first.report(report_of(&task, 1, wire::task_report::Outcome::Recorded(record))).await;
        assert_eq!(ack.applied(), wire::Applied::Yes);
    }
    first.crash().await;

    let second = World::start(&journal, small(), holding()).await;
    eventually("the task is dispatched again", async || !second.scheduler.dispatched().is_empty()).await;
    let task = second.scheduler.dispatched().remove(0);
    assert_eq!((task.run_id, task.attempt), (run.run_id, 1));
    let names: Vec<(u32, String)> = task.records.into_iter().map(|record| (record.index, record.name)).collect();
    assert_eq!(names, [(0, "call 0".into()), (1, "call 1".into()), (2, "call 2".into())]);
}

#[tokio::test]
async fn approvals_and_timers_outlive_a_crash() {
    let journal = Journal::in_memory().await;
    let mut first = World::start(&journal, small(), echo()).await;
    first.apply("workflow: ask\nsteps:\n  sign: { approve: { title: \"May I?\" } }\n").await;
    first.apply("workflow: nap\nsteps:\n  nap: { sleep: 700ms }\n").await;
    let ask = first.begin("ask", json!({})).await;
    let nap = first.begin("nap", json!({})).await;
    first.crash().await;

    let mut second = World::start(&journal, small(), echo()).await;
    eventually("the approval is requested again", async || !second.approvals.requested().is_empty()).await;
    let approval = second.approvals.requested().remove(0);
    let request = wire::DecideRequest {
        run_id: ask.run_id.clone(),
        approval_id: approval.approval_id,
        status: "approved".into(),
        ..Default::default()
    };
    assert!(second.effects.decide(request).await.unwrap().into_inner().applied);
    assert_eq!(second.ended(&ask.run_id).await.status, "succeeded");
    assert_eq!(second.ended(&nap.run_id).await.status, "succeeded");
}

#[tokio::test]
async fn a_parent_learns_of_a_child_that_ended_before_the_crash() {
    let journal = Journal::in_memory().await;
    let mut first = World::start(&journal, small(), holding()).await;
    first.apply("workflow: child\nsteps:\n  work: { agent: echo, with: {} }\noutput: 5\n").await;
    first.apply("workflow: parent\nsteps:\n  sub: { workflow: child, with: {} }\noutput: \"${ steps.sub.output }\"\n").await;
    let parent = first.begin("parent", json!({})).await;
    eventually("the child's task is dispatched", async || !first.scheduler.dispatched().is_empty()).await;
    let task = first.scheduler.dispatched().remove(0);
    first.crash().await;

    let mut second = World::start(&journal, small(), holding()).await;
    second.report(report_of(&task, 1, completed(json!({})))).await;
    second.crash().await;

    let mut third = World::start(&journal, small(), holding()).await;
    let parent = third.ended(&parent.run_id).await;
    assert_eq!((parent.status.as_str(), &parent.output[..]), ("succeeded", &b"5"[..]), "{parent:?}");
}

#[tokio::test]
async fn a_rival_fences_the_old_owner_out() {
    let journal = Journal::in_memory().await;
    // The first one does not hear that it has lost its leases.
    let link = Link::default();
    let mut first = World::start(&link.before(&journal), Config { lease_ms: 1_000, ..small() }, holding()).await;
    first.apply(THREE).await;
    let run = first.begin("three", json!({})).await;
    eventually("the task is dispatched", async || !first.scheduler.dispatched().is_empty()).await;
    let task = first.scheduler.dispatched().remove(0);

    link.deaf.store(true, Ordering::SeqCst);
    let mut second = World::start(&journal, small(), echo()).await;
    let ack = first.report(report_of(&task, 1, completed(json!({ "n": 99 })))).await;
    assert_eq!(ack.applied(), wire::Applied::Retry, "{}", ack.message);
    let refused = first.control(&run.run_id, wire::ControlAction::Cancel).await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable);
    let run = second.ended(&run.run_id).await;
    assert_eq!(run.status, "succeeded");
    assert_eq!(outcomes(&mut second, &run.run_id).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn lost_tasks_are_dispatched_again() {
    let journal = Journal::in_memory().await;
    // One run in eight partitions' worth of memory: most are only in the journal when the scheduler forgets everything.
    let mut world = World::start(&journal, Config { hot_runs: 8, ..small() }, holding()).await;
    world.apply(THREE).await;
    let mut runs = Vec::new();
    for _ in 0..50 {
        runs.push(world.begin("three", json!({})).await.run_id);
    }
    eventually("all tasks are dispatched", async || world.scheduler.dispatched().len() == 50).await;
    world.scheduler.work_with(echo());
    world.scheduler.lose_everything();
    for run in &runs {
        assert_eq!(world.ended(run).await.status, "succeeded");
        assert_eq!(outcomes(&mut world, run).await, ["a", "b", "c"]);
    }
}

#[tokio::test]
async fn tasks_wait_while_the_scheduler_is_away() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), echo()).await;
    world.apply(THREE).await;
    world.scheduler.set_away(true);
    let run = world.begin("three", json!({})).await;
    assert_eq!(world.run(&run.run_id).await.status, "running");
    world.scheduler.set_away(false);
    assert_eq!(world.ended(&run.run_id).await.status, "succeeded");
}

#[tokio::test]
async fn tasks_that_found_no_room_are_derived_again() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, Config { effect_queue: 1_000, ..small() }, echo()).await;
    world.apply("workflow: one\nsteps:\n  only: { agent: echo, with: {} }\n").await;
    world.scheduler.set_away(true);
    let mut runs = Vec::new();
    // One batch is taken from the queue before the scheduler is found to be away.
    for _ in 0..1_600 {
        runs.push(world.begin("one", json!({})).await.run_id);
    }
    world.scheduler.set_away(false);
    for run in &runs {
        assert_eq!(world.ended(run).await.status, "succeeded");
    }
}

#[tokio::test]
async fn runs_beyond_the_memory_go_on_too() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, Config { hot_runs: 0, ..small() }, echo()).await;
    world.apply(THREE).await;
    for _ in 0..5 {
        let run = world.begin("three", json!({})).await;
        assert_eq!(world.ended(&run.run_id).await.status, "succeeded");
        assert_eq!(outcomes(&mut world, &run.run_id).await, ["a", "b", "c"]);
    }
    assert_eq!(world.service.runs_in_memory(), 0);
}

#[tokio::test]
async fn long_runs_get_snapshots_and_go_on_from_them() {
    let journal = Journal::in_memory().await;
    let source = "workflow: long\nstate: { seen: { merge: append, default: [] } }\nsteps:\n  work:\n    loop: { while: \"${ loop.index < 60 }\", max: 60 }\n    agent: echo\n    with: { i: \"${ loop.index }\", pad: \"0123456789012345678901234567890123456789012345678901234567890123456789\" }\n    save: { seen: \"${ output.i }\" }\noutput: { n: \"${ size(state.seen) }\" }\n";
    // Nothing stays in memory: every event starts from the last snapshot.
    let mut world = World::start(&journal, Config { hot_runs: 0, ..small() }, echo()).await;
    world.apply(source).await;
    let run = world.begin("long", json!({})).await;
    let run = world.ended(&run.run_id).await;
    assert_eq!((run.status.as_str(), &run.output[..]), ("succeeded", &br#"{"n":60}"#[..]), "{run:?}");
    let key = troupe_proto::checkpoint::v1::RunKey { namespace: "default".into(), run_id: run.run_id };
    let mut client = troupe_proto::checkpoint::v1::checkpoint_store_client::CheckpointStoreClient::new(journal.transport.clone());
    let request = troupe_proto::checkpoint::v1::LoadRunsRequest { keys: vec![key], at_seq: 0 };
    let loaded = client.load_runs(request).await.unwrap().into_inner().runs.remove(0);
    assert!(loaded.snapshot.is_some());
    assert!(loaded.entries.len() < 61, "{} entries follow the last snapshot", loaded.entries.len());
}

#[tokio::test]
async fn an_append_whose_answer_was_lost_counts_once() {
    let journal = Journal::in_memory().await;
    let link = Link::default();
    let mut world = World::start(&link.before(&journal), small(), echo()).await;
    world.apply(THREE).await;
    for lose in [false, true, true] {
        link.lose_answer.store(lose, Ordering::SeqCst);
        let request = wire::StartRunRequest { workflow: "three".into(), ..Default::default() };
        let answer = soon(world.runs.start_run(request)).await.unwrap().into_inner();
        assert!(answer.created);
        let run = world.ended(&answer.run.unwrap().run_id).await;
        assert_eq!(run.status, "succeeded");
        let kinds: Vec<String> = world.journal(&run.run_id).await.into_iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, ["started", "task_completed", "task_completed", "task_completed"]);
        assert!(!link.lose_answer.load(Ordering::SeqCst), "the answer was lost");
    }
}

#[tokio::test]
async fn work_goes_on_when_the_journal_is_back() {
    let journal = Journal::in_memory().await;
    let link = Link::default();
    let mut world = World::start(&link.before(&journal), small(), holding()).await;
    world.apply(THREE).await;
    let run = world.begin("three", json!({})).await;
    eventually("the task is dispatched", async || !world.scheduler.dispatched().is_empty()).await;
    link.down.store(true, Ordering::SeqCst);
    link.lose_answer.store(true, Ordering::SeqCst);
    let task = world.scheduler.dispatched().remove(0);
    world.scheduler.work_with(echo());
    let reporting = {
        let mut effects = world.effects.clone();
        let report = report_of(&task, 1, completed(json!({ "n": 1 })));
        world.tasks.spawn("reporter", async move {
            let item = wire::ReportItem { id: 1, report: Some(report) };
            let items =
                tokio_stream::StreamExt::chain(tokio_stream::once(wire::ReportRequest { items: vec![item] }), tokio_stream::pending());
            let mut answers = effects.report(items).await.unwrap().into_inner();
            answers.message().await.unwrap().unwrap().acks.remove(0)
        })
    };
    // The answer is lost, and nobody can ask what became of it: the report is not acknowledged.
    eventually("the answer is lost", async || !link.lose_answer.load(Ordering::SeqCst)).await;
    assert!(!reporting.is_finished());
    link.down.store(false, Ordering::SeqCst);
    assert_eq!(soon(reporting).await.unwrap().applied(), wire::Applied::Yes);
    assert_eq!(world.ended(&run.run_id).await.status, "succeeded");
    assert_eq!(outcomes(&mut world, &run.run_id).await, ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_runs_at_once_end_once() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, Config { hot_runs: 32, ..small() }, echo()).await;
    world.apply(THREE).await;
    let mut runs = Vec::new();
    for _ in 0..200 {
        runs.push(world.begin("three", json!({})).await.run_id);
    }
    for run in &runs {
        assert_eq!(world.ended(run).await.status, "succeeded");
        assert_eq!(outcomes(&mut world, run).await, ["a", "b", "c"]);
    }
    assert_eq!(world.scheduler.dispatched().len(), 600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thousands_of_waiting_runs_are_recovered_in_little_memory() {
    let journal = Journal::in_memory().await;
    let mut first = World::start(&journal, small(), echo()).await;
    first.apply("workflow: ask\nsteps:\n  sign: { approve: { title: \"May I?\" } }\n").await;
    for _ in 0..3_000 {
        first.begin("ask", json!({})).await;
    }
    first.crash().await;
    let second = World::start(&journal, Config { recovery_page: 100, ..small() }, echo()).await;
    eventually("every approval is requested again", async || {
        assert!(second.service.runs_in_memory() < 10);
        let ids: HashSet<String> = second.approvals.requested().into_iter().map(|approval| approval.approval_id).collect();
        ids.len() == 3_000
    })
    .await;
    assert_eq!(second.approvals.requested().len(), 3_000);
}

/// While a partition waits for the journal, something happens to a run, a scan passes that run over because of it, and is over: all of this
/// comes to the partition in one turn.
#[tokio::test(start_paused = true)]
async fn what_a_run_waits_for_is_issued_by_whoever_comes_to_it_first() {
    let journal = Journal::in_memory().await;
    let config = || Config { partitions: 1, ..Config::default() };
    let mut before = World::start(&journal, config(), holding()).await;
    before.apply("workflow: both\nsteps:\n  go: { signal: go }\n  work: { agent: echo, with: {} }\n").await;
    let runs = [before.begin("both", json!({})).await.run_id, before.begin("both", json!({})).await.run_id];
    eventually("both tasks are dispatched", async || before.scheduler.dispatched().len() == 2).await;
    before.crash().await;

    let link = Link::default();
    let hold = |methods: &[&'static str]| *link.held.lock().unwrap() = methods.to_vec();
    hold(&["LoadRuns", "LoadOpenRuns"]);
    let mut after = World::start(&link.before(&journal), config(), echo()).await;
    // Time is paused: it goes on when everybody has done what he can.
    let settled = || tokio::time::sleep(Duration::from_millis(50));
    let mut signals = Vec::new();
    for run_id in runs.clone() {
        let request = wire::SignalRunRequest { run_id, name: "go".into(), ..Default::default() };
        let mut client = after.runs.clone();
        signals.push(after.tasks.spawn("signal", async move { client.signal_run(request).await }));
        // The second one waits in the mailbox while the first one's run is loaded.
        settled().await;
    }
    hold(&["LoadRuns"]);
    settled().await;
    hold(&[]);
    for signal in signals {
        assert!(signal.await.unwrap().is_ok());
    }
    for run in &runs {
        assert_eq!(after.ended(run).await.status, "succeeded");
    }
}
