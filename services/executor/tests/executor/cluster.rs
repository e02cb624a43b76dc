//! Several executors: shares become even, any of them answers any call, and runs go on whoever comes, leaves or dies.

use crate::world::{Cluster, LEASE, Link, World, completed, echo, eventually, holding, report_of, soon};
use futures::StreamExt;
use serde_json::json;
use std::{
    collections::BTreeSet,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use troupe_proto::executor::v1 as wire;
use troupe_service_kit::Tasks;

const THREE: &str = r#"
workflow: three
steps:
  a: { agent: echo, with: { n: 1 } }
  b: { after: a, agent: echo, with: { n: 2 } }
  c: { after: b, agent: echo, with: { n: 3 } }
output: { n: "${ steps.c.output.n }" }
"#;

const GO: &str = "workflow: go\nsteps:\n  go: { signal: go }\noutput: \"${ steps.go.output }\"\n";

async fn start(world: &World, workflow: &str, key: &str) -> wire::StartRunResponse {
    let request = wire::StartRunRequest { workflow: workflow.into(), idempotency_key: key.into(), ..Default::default() };
    world.runs.clone().start_run(request).await.unwrap_or_else(|status| panic!("{status:?}")).into_inner()
}

async fn signal(world: &World, run_id: &str, key: &str) -> wire::SignalRunResponse {
    let request = wire::SignalRunRequest {
        run_id: run_id.into(),
        name: "go".into(),
        payload: "1".into(),
        idempotency_key: key.into(),
        ..Default::default()
    };
    world.runs.clone().signal_run(request).await.unwrap_or_else(|status| panic!("{status:?}")).into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_are_even_as_executors_come_and_go() {
    let cluster = Cluster::new(echo()).await;
    let first = cluster.add().await;
    cluster.settles(&[8]).await;
    let begun = Instant::now();
    let second = cluster.add().await;
    cluster.settles(&[4, 4]).await;
    let third = cluster.add().await;
    cluster.settles(&[3, 3, 2]).await;
    cluster.leave(1, second).await;
    cluster.settles(&[4, 0, 4]).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "handing over takes no lease: {:?}", begun.elapsed());
    cluster.crash(0, first).await;
    cluster.settles(&[0, 0, 8]).await;
    assert!(third.service.health().await.iter().all(|dependency| dependency.ok));
    let fourth = cluster.add().await;
    cluster.settles(&[0, 0, 4, 4]).await;
    cluster.leave(3, fourth).await;
    cluster.leave(2, third).await;
    assert!(cluster.owners().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_executors_than_partitions_are_all_ready_and_all_answer() {
    let cluster = Cluster::new(echo()).await;
    let mut all = Vec::new();
    for _ in 0..9 {
        all.push(cluster.add().await);
    }
    cluster.settles(&[1, 1, 1, 1, 1, 1, 1, 1]).await;
    let idle = &mut all[8];
    assert!(idle.service.health().await.iter().all(|dependency| dependency.ok));
    idle.apply(THREE).await;
    let run = idle.begin("three", json!({})).await;
    assert_eq!(idle.ended(&run.run_id).await.status, "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_executor_answers_any_call() {
    let cluster = Cluster::new(echo()).await;
    let mut all = [cluster.add().await, cluster.add().await, cluster.add().await];
    cluster.settles(&[3, 3, 2]).await;
    all[0].apply(GO).await;
    all[1].apply("workflow: ask\nsteps:\n  sign: { approve: { title: sign } }\noutput: 2\n").await;
    for n in 0..12 {
        let key = format!("key {n}");
        let begun = start(&all[n % 3], "go", &key).await;
        assert!(begun.created);
        let id = begun.run.unwrap().run_id;
        for world in &mut all {
            let again = start(world, "go", &key).await;
            assert_eq!((again.created, again.run.unwrap().run_id), (false, id.clone()));
            assert_eq!(world.run(&id).await.status, "waiting");
            let control = world.control(&id, wire::ControlAction::Pause).await.unwrap();
            assert_eq!((control.outcome(), control.run.unwrap().status.as_str()), (wire::ControlOutcome::Done, "paused"));
            assert_eq!(world.control(&id, wire::ControlAction::Resume).await.unwrap().outcome(), wire::ControlOutcome::Done);
        }
        let mut waiting: Vec<_> = all.iter().map(|world| (world.runs.clone(), id.clone())).collect();
        let waits = waiting.iter_mut().map(|(runs, id)| {
            let timeout = Some(troupe_wire::duration(Duration::from_secs(20)));
            runs.wait_run(wire::WaitRunRequest { run_id: id.clone(), timeout, ..Default::default() })
        });
        let signals = async {
            assert!(signal(&all[(n + 1) % 3], &id, "s").await.applied);
            assert!(!signal(&all[(n + 2) % 3], &id, "s").await.applied);
        };
        let (waited, ()) = soon(async { tokio::join!(futures::future::join_all(waits), signals) }).await;
        for answer in waited {
            let answer = answer.unwrap().into_inner();
            assert_eq!((answer.ended, &answer.run.unwrap().output[..]), (true, &b"1"[..]));
        }
        let mut streams = Vec::new();
        for world in &mut all {
            let events = world.watch(&id, "").await;
            streams.push(events.into_iter().map(|event| (event.cursor, event.kind)).collect::<Vec<_>>());
        }
        assert!(streams[0] == streams[1] && streams[1] == streams[2] && streams[0].last().unwrap().1 == "run.succeeded", "{streams:?}");
        let missing = wire::WatchRunRequest { run_id: id, namespace: "other".into(), ..Default::default() };
        for world in &all {
            assert_eq!(world.runs.clone().watch_run(missing.clone()).await.err().unwrap().code(), tonic::Code::NotFound);
        }
    }
    decide_anywhere(&cluster, &all).await;
}

async fn decide_anywhere(cluster: &Cluster, all: &[World; 3]) {
    for n in 0..6 {
        let run = start(&all[n % 3], "ask", &format!("ask {n}")).await.run.unwrap();
        eventually("it is requested", async || cluster.approvals.requested().iter().any(|approval| approval.run_id == run.run_id)).await;
        let approval = cluster.approvals.requested().into_iter().find(|approval| approval.run_id == run.run_id).unwrap();
        let decision = wire::DecideRequest {
            run_id: run.run_id.clone(),
            approval_id: approval.approval_id,
            status: "approved".into(),
            ..Default::default()
        };
        for (turn, applied) in [(1, true), (2, false)] {
            let answer = all[(n + turn) % 3].effects.clone().decide(decision.clone()).await.unwrap().into_inner();
            assert_eq!(answer.applied, applied);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_start_stays_where_it_came_to() {
    let cluster = Cluster::new(holding()).await;
    let (mut first, mut second) = (cluster.add().await, cluster.add().await);
    cluster.settles(&[4, 4]).await;
    first.apply(THREE).await;
    for _ in 0..10 {
        first.begin("three", json!({})).await;
        second.begin("three", json!({})).await;
    }
    assert_eq!((first.service.runs_in_memory(), second.service.runs_in_memory()), (10, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_applied_at_one_is_the_newest_at_all() {
    let cluster = Cluster::new(holding()).await;
    let mut all = [cluster.add().await, cluster.add().await, cluster.add().await];
    cluster.settles(&[3, 3, 2]).await;
    for version in 1..10 {
        all[version % 3].apply(&format!("workflow: w\nversion: \"{version}\"\nsteps:\n  a: {{ agent: echo, with: {{}} }}\n")).await;
        for world in &mut all {
            assert_eq!(world.begin("w", json!({})).await.version, version.to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_keep_going_while_executors_join_and_leave() {
    let cluster = Cluster::new(echo()).await;
    let mut stays = cluster.add().await;
    stays.apply(THREE).await;
    let mut runs = Vec::new();
    for n in 1..5 {
        let comes = cluster.add().await;
        let batch = (0..40).map(|i| {
            let (world, key) = (if i % 2 == 0 { &stays } else { &comes }, format!("{n} {i}"));
            async move { start(world, "three", &key).await }
        });
        runs.extend(soon(futures::future::join_all(batch)).await.into_iter().map(|answer| answer.run.unwrap().run_id));
        // Half of its runs are anywhere now.
        match n % 2 {
            0 => cluster.leave(n, comes).await,
            _ => cluster.crash(n, comes).await,
        }
    }
    for run in &runs {
        assert_eq!(stays.ended(run).await.status, "succeeded");
        let steps: Vec<String> = crate::recovery::outcomes(&mut stays, run).await;
        assert_eq!(steps, ["a", "b", "c"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_executors_runs_go_on_within_a_lease_and_a_second() {
    let cluster = Cluster::new(holding()).await;
    let (mut lives, mut dies) = (cluster.add().await, cluster.add().await);
    cluster.settles(&[4, 4]).await;
    dies.apply(GO).await;
    let mut runs = Vec::new();
    for _ in 0..8 {
        runs.push(dies.begin("go", json!({})).await.run_id);
    }
    cluster.crash(1, dies).await;
    let died = Instant::now();
    // Calls wait until somebody owns the runs again.
    let signals = runs.iter().map(|run| signal(&lives, run, ""));
    let answers = soon(futures::future::join_all(signals)).await;
    let gap = died.elapsed();
    assert!(answers.iter().all(|answer| answer.applied));
    assert!(gap < LEASE + Duration::from_secs(1), "{gap:?}");
    for run in &runs {
        assert_eq!(lives.ended(run).await.status, "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_that_hears_nothing_for_a_lease_lets_go_and_comes_back() {
    let cluster = Cluster::new(holding()).await;
    let link = Link::default();
    let (mut well, deaf) = (cluster.add().await, cluster.add_by(&link).await);
    cluster.settles(&[4, 4]).await;
    well.apply(GO).await;
    let mut runs = BTreeSet::new();
    for n in 0..16 {
        runs.insert(start(&deaf, "go", &n.to_string()).await.run.unwrap().run_id);
    }
    link.deaf.store(true, Ordering::SeqCst);
    cluster.settles(&[8]).await;
    assert!(!deaf.service.health().await.iter().all(|dependency| dependency.ok), "it is not ready");
    // It has nothing in memory that it could take for the truth.
    eventually("it has let go", async || deaf.service.runs_in_memory() == 0).await;
    for run in runs.iter().take(8) {
        assert!(signal(&well, run, "").await.applied);
    }
    for run in &runs {
        let seen = deaf.runs.clone().get_run(wire::GetRunRequest { run_id: run.clone(), ..Default::default() }).await;
        let seen = seen.unwrap().into_inner().run.unwrap();
        assert_eq!(seen.status, well.run(run).await.status);
    }
    link.deaf.store(false, Ordering::SeqCst);
    cluster.settles(&[4, 4]).await;
    for run in runs.iter().skip(8) {
        assert!(signal(&deaf, run, "").await.applied);
    }
    for run in &runs {
        assert_eq!(well.ended(run).await.status, "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_live_in_other_partitions_than_their_parents() {
    let cluster = Cluster::new(echo()).await;
    let (mut first, mut second) = (cluster.add().await, cluster.add().await);
    cluster.settles(&[4, 4]).await;
    first
        .apply("workflow: child\nsteps:\n  work: { agent: echo, with: { n: \"${ input.n }\" } }\noutput: \"${ steps.work.output.n }\"\n")
        .await;
    let parent = "workflow: parent\nsteps:\n  sub: { for_each: \"${ input.items }\", workflow: child, with: { n: \"${ item }\" } }\n\
                  output: \"${ steps.sub.output }\"\n";
    first.apply(parent).await;
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.push(first.begin("parent", json!({ "items": (0..20).collect::<Vec<_>>() })).await.run_id);
    }
    // They are in the middle of it when one of them leaves.
    cluster.leave(1, std::mem::replace(&mut second, cluster.add().await)).await;
    for run in &runs {
        let run = second.ended(run).await;
        assert_eq!(run.status, "succeeded", "{:?}", run.error);
        assert_eq!(crate::world::json_of(&run.output), json!((0..20).collect::<Vec<_>>()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_does_not_notice_that_its_run_moves() {
    let cluster = Cluster::new(holding()).await;
    let (mut stays, mut dies) = (cluster.add().await, cluster.add().await);
    cluster.settles(&[4, 4]).await;
    let steps: String = (0..9)
        .map(|n| format!("  s{n}: {{ {} signal: go }}\n", if n == 0 { String::new() } else { format!("after: s{},", n - 1) }))
        .collect();
    dies.apply(&format!("workflow: nine\nsteps:\n{steps}")).await;
    let run = dies.begin("nine", json!({})).await.run_id;
    let request = wire::WatchRunRequest { run_id: run.clone(), ..Default::default() };
    let stream = stays.runs.watch_run(request).await.unwrap().into_inner();
    let tasks = Tasks::new();
    let events = tasks.spawn("events", stream.map(|event| event.unwrap_or_else(|status| panic!("{status:?}"))).collect::<Vec<_>>());
    let waiter = {
        let (mut runs, run_id) = (stays.runs.clone(), run.clone());
        let timeout = Some(troupe_wire::duration(Duration::from_secs(30)));
        tasks.spawn("waiter", async move { runs.wait_run(wire::WaitRunRequest { run_id, timeout, ..Default::default() }).await })
    };
    for _ in 0..3 {
        signal(&dies, &run, "").await;
    }
    // From one that dies to one that lives, and on to one that joins, maybe.
    cluster.crash(1, dies).await;
    for _ in 0..3 {
        signal(&stays, &run, "").await;
    }
    let third = cluster.add().await;
    cluster.settles(&[4, 0, 4]).await;
    for _ in 0..3 {
        signal(&third, &run, "").await;
    }
    let events = soon(events).await.unwrap();
    let succeeded: Vec<&str> = events.iter().filter(|event| event.kind == "step.succeeded").map(|event| event.step.as_str()).collect();
    assert_eq!(succeeded, ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"]);
    let cursors: BTreeSet<&str> = events.iter().map(|event| event.cursor.as_str()).collect();
    assert_eq!((cursors.len(), events.last().unwrap().kind.as_str()), (events.len(), "run.succeeded"), "no event comes twice");
    assert!(soon(waiter).await.unwrap().unwrap().into_inner().ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_come_to_their_runs_through_any_executor() {
    let cluster = Cluster::new(holding()).await;
    let mut all = [cluster.add().await, cluster.add().await];
    cluster.settles(&[4, 4]).await;
    all[0].apply("workflow: one\nsteps:\n  only: { agent: echo, with: {} }\noutput: \"${ steps.only.output }\"\n").await;
    for n in 0..10 {
        all[n % 2].begin("one", json!({})).await;
    }
    eventually("all is dispatched", async || cluster.scheduler.dispatched().len() == 10).await;
    for (n, task) in cluster.scheduler.dispatched().iter().enumerate() {
        let report = report_of(task, 1, completed(json!(n)));
        let other = &mut all[n % 2];
        // Who does not know yet whose the run is has it sent again.
        let mut answer = wire::Applied::Retry;
        eventually("it is taken", async || {
            answer = other.report(report.clone()).await.applied();
            answer != wire::Applied::Retry
        })
        .await;
        assert_eq!(answer, wire::Applied::Yes);
        assert_ne!(other.report(report).await.applied(), wire::Applied::Yes, "a second time it is nothing new");
        assert_eq!(other.ended(&task.run_id).await.status, "succeeded");
    }
}
