//! The worker against a scheduler that the test plays.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "worker/fake.rs"]
mod fake;

use fake::{Session, fake, task};
use serde_json::{Value, json};
use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore, oneshot},
    task::JoinSet,
};
use troupe_client::{Context, TaskError, Transport, Worker};
use troupe_proto::scheduler::v1::{Welcome, server_message::Kind as ServerKind, worker_message::Kind};

/// Ten durable steps; counts those that really ran, and stops before the one that `limit` names.
async fn ten_steps(ctx: Context, ran: Arc<AtomicUsize>, limit: usize) -> Result<Value, TaskError> {
    let mut sum = 0;
    for step in 0..10_usize {
        if step == limit {
            pending::<()>().await;
        }
        let ran = Arc::clone(&ran);
        sum += ctx
            .step(&format!("add:{step}"), || async move {
                ran.fetch_add(1, Ordering::SeqCst);
                Ok(step)
            })
            .await?;
    }
    Ok(json!(sum))
}

/// A worker in the background, stopped at once when the set is dropped.
fn start(workers: &mut JoinSet<()>, transport: Transport, ran: &Arc<AtomicUsize>, limit: usize) {
    let ran = Arc::clone(ran);
    let worker = Worker::builder(transport)
        .agent("adder", move |ctx: Context, _: Value| ten_steps(ctx, Arc::clone(&ran), limit))
        .agent("echo", |_: Context, input: Value| async move { Ok(input) })
        .agent("panics", |_: Context, _: Value| async move { if true { panic!("boom") } else { Ok(0) } })
        .agent("typed", |_: Context, input: u32| async move { Ok(input) })
        .slots(4);
    workers.spawn(async move { worker.run(pending::<()>()).await.unwrap() });
}

fn completed(kind: Kind) -> Value {
    match kind {
        Kind::Completed(c) => serde_json::from_slice(&c.output).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn failure(kind: Kind) -> (String, bool, String) {
    match kind {
        Kind::Failed(f) => f.failure.map(|f| (f.code, f.retryable, f.message)).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The journal may be away for long: the task is not to be given away meanwhile.
#[tokio::test]
async fn a_record_that_waits_for_its_answer_keeps_the_lease() {
    let (mut fake, transport) = fake();
    let mut workers = JoinSet::new();
    start(&mut workers, transport, &Arc::default(), 1);
    let (mut session, _) = fake.session().await;
    session.send(ServerKind::Welcome(Welcome { lease_ms: 90 })).await;
    session.assign(task("adder", "run/a", "null"), 1).await;
    assert!(matches!(session.next().await, Kind::Record(_)));
    for _ in 0..3 {
        assert!(matches!(session.next().await, Kind::Progress(_)), "a sign of life, and the record only once");
    }
    session.ack("run/a", 1, Some(0), true).await;
}

#[tokio::test]
async fn a_worker_killed_in_the_middle_continues_at_the_first_missing_record() {
    let (mut fake, transport) = fake();
    let ran = Arc::new(AtomicUsize::new(0));
    let mut first = JoinSet::new();
    start(&mut first, transport.clone(), &ran, 6);
    let (mut session, _) = fake.session().await;
    session.assign(task("adder", "run/a", "null"), 1).await;
    let mut records = Vec::new();
    while records.len() < 6 {
        let Kind::Record(r) = session.next_durable().await else { panic!("a record") };
        assert_eq!((r.index as usize, r.attempt), (records.len(), 1));
        session.ack("run/a", 1, Some(r.index), true).await;
        records.push(troupe_proto::common::v1::Record { index: r.index, name: r.name, value: r.value, recorded_at: None });
    }
    first.shutdown().await;
    drop(session);
    assert_eq!(ran.load(Ordering::SeqCst), 6);

    let mut second = JoinSet::new();
    start(&mut second, transport, &ran, usize::MAX);
    let (mut session, _) = fake.session().await;
    let mut again = task("adder", "run/a", "null");
    (again.attempt, again.records) = (2, records);
    session.assign(again, 2).await;
    let (records, result) = session.run_to_result().await;
    assert_eq!(records.iter().map(|r| r.index).collect::<Vec<_>>(), [6, 7, 8, 9]);
    assert_eq!(completed(result), json!(45));
    assert_eq!(ran.load(Ordering::SeqCst), 10, "no step ran twice");
}

#[tokio::test]
async fn a_step_does_not_return_before_its_record_is_durable() {
    let (mut fake, transport) = fake();
    let ran = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    start(&mut workers, transport, &ran, usize::MAX);
    let (mut session, _) = fake.session().await;
    session.assign(task("adder", "run/a", "null"), 1).await;
    let Kind::Record(_) = session.next_durable().await else { panic!("a record") };
    // Another task passes by: the worker is alive, and the first step still waits for its answer.
    session.assign(task("echo", "run/b", "7"), 2).await;
    assert_eq!(completed(session.next_durable().await), json!(7));
    assert_eq!(ran.load(Ordering::SeqCst), 1);
    session.ack("run/a", 1, Some(0), true).await;
    let Kind::Record(r) = session.next_durable().await else { panic!("a record") };
    assert_eq!(r.index, 1);
}

#[tokio::test]
async fn results_and_records_are_sent_again_on_the_next_stream() {
    let (mut fake, transport) = fake();
    let ran = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    start(&mut workers, transport, &ran, usize::MAX);
    let (mut session, hello) = fake.session().await;
    assert!(hello.held.is_empty());
    session.assign(task("echo", "run/b", "7"), 1).await;
    assert_eq!(completed(session.next_durable().await), json!(7));
    session.assign(task("adder", "run/a", "null"), 2).await;
    let Kind::Record(_) = session.next_durable().await else { panic!("a record") };
    drop(session);

    let (mut session, again) = fake.session().await;
    assert_eq!(again.worker_id, hello.worker_id);
    let mut held: Vec<_> = again.held.iter().map(|h| (h.task_id.as_str(), h.fence, h.attempt)).collect();
    held.sort_unstable();
    assert_eq!(held, [("run/a", 2, 1), ("run/b", 1, 1)]);
    let mut kinds = [session.next_durable().await, session.next_durable().await];
    kinds.sort_by_key(|k| matches!(k, Kind::Record(_)));
    let [Kind::Completed(c), Kind::Record(r)] = kinds else { panic!("{kinds:?}") };
    assert_eq!((c.task_id.as_str(), r.task_id.as_str(), r.index), ("run/b", "run/a", 0));
    session.ack("run/b", 1, None, true).await;
    session.ack("run/a", 2, Some(0), true).await;
    let (records, result) = session.run_to_result().await;
    assert_eq!((records.len(), completed(result)), (9, json!(45)));
    assert_eq!(ran.load(Ordering::SeqCst), 10, "nothing ran twice");
    drop(session);
    let (_session, last) = fake.session().await;
    assert!(last.held.is_empty(), "what is acknowledged is forgotten");
}

#[tokio::test]
async fn panics_bad_input_and_unknown_agents_are_failures() {
    let (mut fake, transport) = fake();
    let mut workers = JoinSet::new();
    start(&mut workers, transport, &Arc::default(), usize::MAX);
    let (mut session, _) = fake.session().await;
    session.assign(task("panics", "run/a", "null"), 1).await;
    let (code, retryable, message) = failure(session.next_durable().await);
    assert_eq!((code.as_str(), retryable), ("PANIC", true));
    assert!(message.contains("boom"), "{message}");
    session.assign(task("typed", "run/b", "\"text\""), 2).await;
    let (code, retryable, message) = failure(session.next_durable().await);
    assert_eq!((code.as_str(), retryable), ("INVALID_INPUT", false));
    assert!(message.contains("u32"), "{message}");
    session.assign(task("nobody", "run/c", "null"), 3).await;
    assert_eq!(failure(session.next_durable().await).0, "AGENT_NOT_SERVED");
}

#[tokio::test]
async fn other_steps_than_recorded_are_refused() {
    let (mut fake, transport) = fake();
    let mut workers = JoinSet::new();
    start(&mut workers, transport, &Arc::default(), usize::MAX);
    let (mut session, _) = fake.session().await;
    let mut changed = task("adder", "run/a", "null");
    changed.records = vec![troupe_proto::common::v1::Record { index: 0, name: "other".to_owned(), ..Default::default() }];
    session.assign(changed, 1).await;
    let (code, retryable, message) = failure(session.next_durable().await);
    assert_eq!((code.as_str(), retryable), ("NON_DETERMINISTIC", false));
    assert!(message.contains("'add:0'") && message.contains("'other'"), "{message}");
}

#[tokio::test]
async fn a_cancelled_task_stops_and_an_overtaken_one_is_forgotten() {
    let (mut fake, transport) = fake();
    let (stopped, mut stops) = tokio::sync::mpsc::channel(2);
    let worker = Worker::builder(transport).agent("waits", move |ctx: Context, _: Value| {
        let stopped = stopped.clone();
        async move {
            ctx.progress(0.5, "waiting");
            ctx.cancelled().await;
            stopped.send(()).await.unwrap();
            Ok(Value::Null)
        }
    });
    let mut workers = JoinSet::new();
    workers.spawn(async move { worker.run(pending::<()>()).await.unwrap() });
    let (mut session, _) = fake.session().await;
    session.assign(task("waits", "run/a", "null"), 1).await;
    let Kind::Progress(p) = session.next().await else { panic!("progress") };
    assert_eq!((p.fraction, p.message.as_str(), p.fence), (0.5, "waiting", 1));
    session.cancel("run/a", 1, "the run was cancelled").await;
    let (code, _, message) = failure(session.next_durable().await);
    assert_eq!((code.as_str(), message.as_str()), ("CANCELLED", "the run was cancelled"));
    stops.recv().await.unwrap();
    session.assign(task("waits", "run/b", "null"), 2).await;
    let Kind::Progress(_) = session.next().await else { panic!("progress") };
    session.ack("run/b", 2, None, false).await;
    stops.recv().await.unwrap();
}

/// Assigns five tasks to a worker of two slots; answers with the most that ran at once.
async fn most_at_once(session: &mut Session, gate: &Semaphore, most: &AtomicUsize) -> usize {
    for n in 0..5 {
        session.assign(task("slow", &format!("run/{n}"), "null"), n + 1).await;
    }
    for _ in 0..2 {
        let Kind::Chunk(_) = session.next().await else { panic!("a task started") };
    }
    gate.add_permits(5);
    for _ in 0..5 {
        let Kind::Completed(_) = session.next_durable().await else { panic!("a result") };
    }
    most.load(Ordering::SeqCst)
}

#[tokio::test]
async fn no_more_tasks_run_than_there_are_slots() {
    let (mut fake, transport) = fake();
    let (now, most, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (n, m, g) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&gate));
    let worker = Worker::builder(transport).slots(2).agent("slow", move |ctx: Context, _: Value| {
        let (now, most, gate) = (Arc::clone(&n), Arc::clone(&m), Arc::clone(&g));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            ctx.text("started");
            gate.acquire().await.unwrap().forget();
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(Value::Null)
        }
    });
    let mut workers = JoinSet::new();
    workers.spawn(async move { worker.run(pending::<()>()).await.unwrap() });
    let (mut session, hello) = fake.session().await;
    assert_eq!(hello.slots, 2);
    assert_eq!(most_at_once(&mut session, &gate, &most).await, 2);
}

#[tokio::test]
async fn a_drain_finishes_what_runs() {
    let (mut fake, transport) = fake();
    let (stop, stopped) = oneshot::channel::<()>();
    let finish = Arc::new(Notify::new());
    let f = Arc::clone(&finish);
    let worker = Worker::builder(transport).drain_timeout(Duration::from_secs(20)).agent("slow", move |ctx: Context, _: Value| {
        let finish = Arc::clone(&f);
        async move {
            ctx.text("started");
            finish.notified().await;
            Ok("done")
        }
    });
    let mut workers = JoinSet::new();
    workers.spawn(async move {
        worker.run(async { drop(stopped.await) }).await.unwrap();
    });
    let (mut session, _) = fake.session().await;
    session.assign(task("slow", "run/a", "null"), 1).await;
    let Kind::Chunk(c) = session.next().await else { panic!("a chunk") };
    assert_eq!((c.kind.as_str(), &c.data[..]), ("text", &b"started"[..]));
    drop(stop);
    assert!(matches!(session.next().await, Kind::Draining(_)));
    finish.notify_one();
    assert_eq!(completed(session.next_durable().await), json!("done"));
    session.ack("run/a", 1, None, true).await;
    workers.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_refused_hello_ends_the_worker() {
    let transport = Transport::embedded(refusing::Refuses);
    let error = Worker::builder(transport).run(pending::<()>()).await.unwrap_err();
    assert_eq!(error.code, troupe_domain::Code::PermissionDenied);
}

/// A server that refuses everybody.
mod refusing {
    use std::{
        convert::Infallible,
        future::{Ready, ready},
        task::{Context, Poll},
    };
    use tonic::{Status, body::Body, codegen::Service};

    #[derive(Clone)]
    pub(crate) struct Refuses;

    impl Service<tonic::codegen::http::Request<Body>> for Refuses {
        type Response = tonic::codegen::http::Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: tonic::codegen::http::Request<Body>) -> Self::Future {
            ready(Ok(Status::permission_denied("who are you").into_http()))
        }
    }
}
