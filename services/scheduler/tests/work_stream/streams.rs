//! Streams themselves: Hello, bad input, drain, chunks.

use crate::harness::*;
use std::time::Duration;
use tonic::Code;
use troupe_proto::scheduler::v1::{
    Chunk, Draining, SubscribeRequest, WorkerMessage, server_message::Kind as ServerKind, worker_message::Kind as WorkerKind,
};
use troupe_scheduler::Config;

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_hello_is_ended() {
    let scheduler = Scheduler::start().await;
    let status = scheduler.stranger(vec![message(WorkerKind::Draining(Draining {}))]).await.end().await.unwrap();
    assert_eq!(status.code(), Code::InvalidArgument);
    let start = tokio::time::Instant::now();
    let (_sender, requests) = tokio::sync::mpsc::channel(1);
    let silent = tokio_stream::wrappers::ReceiverStream::new(requests);
    let transport = troupe_wire::Transport::embedded(scheduler.service.routes());
    let mut client = troupe_proto::scheduler::v1::worker_service_client::WorkerServiceClient::new(transport);
    let mut stream = client.work(silent).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap_err().code(), Code::DeadlineExceeded);
    assert!(start.elapsed() >= Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn bad_hellos_are_refused_with_the_field() {
    let scheduler = Scheduler::start().await;
    let mut none = hello("w", 0, &["a"]);
    let named = hello("w", 1, &["a/b"]);
    let mut foreign = hello("w", 1, &["a"]);
    foreign.agents[0].namespace = "other".into();
    let mut many = hello("w", 1, &[]);
    many.tools = (0..2_000).map(|i| format!("t{i}")).collect();
    none.client = "x".repeat(10_000);
    for (bad, code) in
        [(none, Code::InvalidArgument), (named, Code::InvalidArgument), (foreign, Code::PermissionDenied), (many, Code::InvalidArgument)]
    {
        let status = scheduler.stranger(vec![message(WorkerKind::Hello(bad))]).await.end().await.unwrap();
        assert_eq!(status.code(), code, "{status:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_cannot_speak_of_other_namespaces() {
    let mut scheduler = Scheduler::start().await;
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch(vec![task("one")]).await;
    let mut assignment = worker.assignment().await;
    if let Some(task) = &mut assignment.task {
        task.namespace = "other".into();
    }
    worker.complete(&assignment).await;
    assert_eq!(worker.end().await.unwrap().code(), Code::PermissionDenied);
    let mut other = scheduler.worker(hello("w2", 1, &["a"])).await;
    assert_eq!(other.step().await, "one", "what it had goes to others");
}

#[tokio::test(start_paused = true)]
async fn unknown_messages_are_passed_over() {
    let mut scheduler = Scheduler::start().await;
    let mut worker = scheduler.stranger(vec![message(WorkerKind::Hello(hello("w1", 1, &["a"]))), WorkerMessage { kind: None }]).await;
    assert!(matches!(worker.next().await, ServerKind::Welcome(_)));
    scheduler.dispatch(vec![task("one")]).await;
    assert_eq!(worker.step().await, "one");
}

#[tokio::test(start_paused = true)]
async fn a_second_hello_changes_what_is_served() {
    let mut scheduler = Scheduler::start().await;
    let mut worker = scheduler.worker(hello("w1", 2, &["b"])).await;
    scheduler.dispatch(vec![task("one"), task("two"), task("three")]).await;
    worker.quiet().await;
    worker.send(WorkerKind::Hello(hello("w1", 2, &["a"]))).await;
    let one = worker.assignment().await;
    assert_eq!(worker.step().await, "two");
    worker.send(WorkerKind::Hello(hello("w1", 2, &["a", "b"]))).await;
    worker.quiet().await;
    worker.complete(&one).await;
    assert!(worker.ack().await.applied);
    assert_eq!(worker.step().await, "three", "slots in use were not forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_draining_worker_gets_nothing_new_and_finishes() {
    let mut scheduler = Scheduler::start().await;
    let mut worker = scheduler.worker(hello("w1", 5, &["a"])).await;
    scheduler.dispatch(vec![task("one")]).await;
    let one = worker.assignment().await;
    worker.send(WorkerKind::Draining(Draining {})).await;
    scheduler.dispatch(vec![task("two")]).await;
    worker.quiet().await;
    assert_eq!(scheduler.explain(&task("two")).await.detail, "every worker that serves agent a drains; position 1");
    worker.complete(&one).await;
    assert!(worker.ack().await.applied);
    let mut other = scheduler.worker(hello("w2", 1, &["a"])).await;
    assert_eq!(other.step().await, "two");
}

#[tokio::test(start_paused = true)]
async fn a_drain_tells_workers_and_waits_for_results() {
    let mut scheduler = Scheduler::start().await;
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch(vec![task("one"), task("two")]).await;
    let one = worker.assignment().await;
    let service = scheduler.service.clone();
    let drain = service.drain();
    tokio::pin!(drain);
    tokio::select! {
        () = &mut drain => panic!("a task still runs"),
        message = worker.next() => assert!(matches!(message, ServerKind::Drain(_))),
    }
    worker.complete(&one).await;
    drain.await;
    assert_eq!(scheduler.report().await.step, "one");
    assert!(worker.ack().await.applied);
    let status = scheduler.stranger(vec![message(WorkerKind::Hello(hello("w2", 1, &["a"])))]).await.end().await.unwrap();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_ever() {
    let mut scheduler = Scheduler::with(Config { drain: "3s".into(), ..Config::default() }).await;
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch(vec![task("endless")]).await;
    worker.assignment().await;
    let start = tokio::time::Instant::now();
    scheduler.service.drain().await;
    assert!(start.elapsed() < Duration::from_millis(3_100));
}

fn chunk(assignment: &troupe_proto::scheduler::v1::Assignment, text: &str) -> WorkerKind {
    let task = assignment.task.as_ref().unwrap();
    WorkerKind::Chunk(Chunk {
        namespace: task.namespace.clone(),
        task_id: task.task_id.clone(),
        fence: assignment.fence,
        kind: "text".into(),
        data: text.to_owned().into(),
    })
}

#[tokio::test(start_paused = true)]
async fn chunks_reach_watchers_of_the_run_also_late_ones() {
    let mut scheduler = Scheduler::start().await;
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch(vec![task("one")]).await;
    let assignment = worker.assignment().await;
    worker.send(chunk(&assignment, "hello \"you\"")).await;
    worker.send(WorkerKind::Progress(troupe_proto::scheduler::v1::Progress { fence: 1, ..progress_of(&assignment) })).await;
    worker.send(chunk(&assignment, "there")).await;
    let topic = "run/default/run".to_owned();
    let mut watch =
        scheduler.client().subscribe(SubscribeRequest { topic: topic.clone(), cursor: String::new() }).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    let event = first.event.unwrap();
    assert_eq!((event.kind.as_str(), event.step.as_str(), &event.data[..]), ("text", "one", &b"\"hello \\\"you\\\"\""[..]));
    assert!(event.at.is_some());
    assert_eq!(watch.message().await.unwrap().unwrap().event.unwrap().data, "\"there\"", "progress under a wrong fence is nothing");
    let mut again = scheduler.client().subscribe(SubscribeRequest { topic, cursor: first.cursor }).await.unwrap().into_inner();
    assert_eq!(again.message().await.unwrap().unwrap().event.unwrap().data, "\"there\"");
}

fn progress_of(assignment: &troupe_proto::scheduler::v1::Assignment) -> troupe_proto::scheduler::v1::Progress {
    let task = assignment.task.as_ref().unwrap();
    troupe_proto::scheduler::v1::Progress {
        namespace: task.namespace.clone(),
        task_id: task.task_id.clone(),
        ..troupe_proto::scheduler::v1::Progress::default()
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_chunks_are_thinned_and_results_are_not() {
    let mut scheduler = Scheduler::with(Config { chunk_rate: 10, ..Config::default() }).await;
    let mut worker = scheduler.worker(hello("w1", 1, &["a"])).await;
    scheduler.dispatch(vec![task("one")]).await;
    let assignment = worker.assignment().await;
    for i in 0..100 {
        worker.send(chunk(&assignment, &i.to_string())).await;
    }
    worker.complete(&assignment).await;
    assert!(worker.ack().await.applied);
    let request = SubscribeRequest { topic: "run/default/run".into(), cursor: String::new() };
    let mut watch = scheduler.client().subscribe(request).await.unwrap().into_inner();
    let mut seen = 0;
    while tokio::time::timeout(Duration::from_secs(1), watch.message()).await.is_ok() {
        seen += 1;
    }
    assert!((10..20).contains(&seen), "{seen}");
}
