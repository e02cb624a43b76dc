//! What callers see of a run's past and present: events, checkpoints, forks.

use crate::world::{FIVE, Journal, ONE, World, completed, echo, error, eventually, holding, json_of, report_of, small, soon};
use serde_json::{Value, json};
use troupe_domain::Code;
use troupe_proto::{common::v1 as common, executor::v1 as wire};

#[tokio::test]
async fn watching_resumes_after_any_event() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), echo()).await;
    world.apply(FIVE).await;
    let run = world.begin("five", json!({ "text": "x" })).await;
    let live = world.watch(&run.run_id, "").await;
    let kinds: Vec<&str> = live.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds.first(), Some(&"run.started"));
    assert_eq!(kinds.last(), Some(&"run.succeeded"));
    let cursors: Vec<&str> = live.iter().map(|event| event.cursor.as_str()).collect();
    for (n, cursor) in cursors.iter().enumerate() {
        let rest = world.watch(&run.run_id, cursor).await;
        let rest: Vec<&str> = rest.iter().map(|event| event.cursor.as_str()).collect();
        assert_eq!(rest, cursors[n + 1..], "after {cursor}");
    }
    let request = wire::WatchRunRequest { run_id: run.run_id, cursor: "999.0".into(), ..Default::default() };
    assert_eq!(error(&world.runs.watch_run(request).await.unwrap_err()).code, Code::InvalidArgument);
}

#[tokio::test]
async fn chunks_come_before_the_step_they_belong_to_has_ended() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), holding()).await;
    world.apply(ONE).await;
    let run = world.begin("one", json!({})).await;
    eventually("the task is dispatched", async || !world.scheduler.dispatched().is_empty()).await;
    let task = world.scheduler.dispatched().remove(0);
    let watching = {
        let mut runs = world.runs.clone();
        let request = wire::WatchRunRequest { run_id: run.run_id.clone(), ..Default::default() };
        world.tasks.spawn("watcher", async move {
            let stream = runs.watch_run(request).await.unwrap().into_inner();
            tokio_stream::StreamExt::map(stream, |event| event.unwrap()).collect_all().await
        })
    };
    for text in ["a", "b", "c"] {
        world.scheduler.chunk(&run, "only", text);
    }
    world.report(report_of(&task, 1, completed(json!(1)))).await;
    let events = soon(watching).await.unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    let texts: Vec<Value> = events.iter().filter(|event| event.kind == "chunk").map(|event| json_of(&event.data)).collect();
    assert_eq!(texts, [json!("a"), json!("b"), json!("c")]);
    assert_eq!(kinds.last(), Some(&"run.succeeded"));
    let last_chunk = kinds.iter().rposition(|kind| *kind == "chunk").unwrap();
    assert!(last_chunk < kinds.iter().position(|kind| *kind == "step.succeeded").unwrap(), "{kinds:?}");
    let after_first = events.iter().find(|event| event.kind == "chunk").unwrap().cursor.clone();
    let rest = world.watch(&run.run_id, &after_first).await;
    let texts: Vec<Value> = rest.iter().filter(|event| event.kind == "chunk").map(|event| json_of(&event.data)).collect();
    assert_eq!(texts, [json!("b"), json!("c")]);
}

trait CollectAll: tokio_stream::Stream + Sized {
    async fn collect_all(self) -> Vec<Self::Item> {
        tokio_stream::StreamExt::collect(self).await
    }
}
impl<S: tokio_stream::Stream> CollectAll for S {}

#[tokio::test]
async fn a_fork_goes_on_from_a_checkpoint_with_another_state() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), echo()).await;
    world.apply(FIVE).await;
    let run = world.begin("five", json!({ "text": "x" })).await;
    world.ended(&run.run_id).await;
    let entries = world.journal(&run.run_id).await;
    let first = entries.iter().find(|entry| entry.kind == "task_completed").unwrap().seq;
    let request = wire::ForkRunRequest {
        run_id: run.run_id.clone(),
        checkpoint: first,
        state: json!({ "seen": ["other"] }).to_string().into(),
        idempotency_key: "f".into(),
        ..Default::default()
    };
    let fork = world.runs.fork_run(request.clone()).await.unwrap().into_inner().run.unwrap();
    assert_ne!(fork.run_id, run.run_id);
    let fork = world.ended(&fork.run_id).await;
    assert_eq!(fork.status, "succeeded", "{fork:?}");
    assert_eq!(json_of(&fork.output), json!({ "seen": ["other", 1, 3], "times": 2 }));
    let again = world.runs.fork_run(request.clone()).await.unwrap().into_inner().run.unwrap();
    assert_eq!(again.run_id, fork.run_id);
    assert_eq!(world.journal(&fork.run_id).await[0].kind, "forked");
    let beyond = wire::ForkRunRequest { checkpoint: 99, ..request };
    assert_eq!(error(&world.runs.fork_run(beyond).await.unwrap_err()).code, Code::NotFound);
}

#[tokio::test]
async fn checkpoints_are_listed_read_and_compared() {
    let journal = Journal::in_memory().await;
    let mut world = World::start(&journal, small(), echo()).await;
    world.apply(FIVE).await;
    let run = world.begin("five", json!({ "text": "x" })).await;
    let end = world.ended(&run.run_id).await;
    let page = Some(common::Page { limit: 2, cursor: String::new() });
    let mut request = wire::ListCheckpointsRequest { run_id: run.run_id.clone(), page, ..Default::default() };
    let mut seqs = Vec::new();
    loop {
        let answer = world.runs.list_checkpoints(request.clone()).await.unwrap().into_inner();
        seqs.extend(answer.checkpoints.iter().map(|checkpoint| checkpoint.seq));
        if answer.next_cursor.is_empty() {
            break;
        }
        request.page = Some(common::Page { limit: 2, cursor: answer.next_cursor });
    }
    assert_eq!(seqs, (1..=end.seq).collect::<Vec<_>>());
    let get = |seq| wire::GetCheckpointRequest { run_id: run.run_id.clone(), seq, ..Default::default() };
    let first = world.runs.get_checkpoint(get(1)).await.unwrap().into_inner();
    assert_eq!((first.checkpoint.unwrap().kind.as_str(), first.run.unwrap().status.as_str()), ("started", "running"));
    let last = world.runs.get_checkpoint(get(end.seq)).await.unwrap().into_inner().run.unwrap();
    assert_eq!(last.output, end.output);
    assert_eq!(error(&world.runs.get_checkpoint(get(99)).await.unwrap_err()).code, Code::NotFound);
    let diff = wire::DiffCheckpointsRequest { run_id: run.run_id.clone(), from: 1, to: end.seq, ..Default::default() };
    let patch = json_of(&world.runs.diff_checkpoints(diff).await.unwrap().into_inner().patch);
    let changed: Vec<&str> = patch.as_array().unwrap().iter().filter_map(|change| change["path"].as_str()).collect();
    assert!(changed.contains(&"/status"), "{patch}");
}
