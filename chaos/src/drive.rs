//! The clients: they start the runs of the load, decide, signal and cancel, repeat each call until it is answered, and write down what was
//! acknowledged.

use crate::{
    clock,
    load::{Expected, Guide, Job},
    stage::PARTITIONS,
};
use futures::future::join_all;
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use troupe_client::{
    Client, Error,
    client::{Answer, ControlAction, StartOptions},
};
use troupe_domain::Code;
use troupe_proto::{common::v1::Page, executor::v1::Run};

/// A call that takes longer has failed for the client: its gateway may be stopped.
const CALL_TIME: Duration = Duration::from_secs(10);
/// How long one call waits for a run's end.
const WAIT_SLICE: Duration = Duration::from_secs(4);
/// How long two runs of a pulse beat together.
const OVERLAP: Duration = Duration::from_secs(1);
/// Between a call that failed and the next one.
const PAUSE: Duration = Duration::from_millis(60);

/// What was acknowledged, by kind, and what was answered with an error, by code.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counts {
    pub acknowledged: BTreeMap<&'static str, u64>,
    pub errors: BTreeMap<String, u64>,
}

/// A run that a client was told to have started.
#[derive(Clone, Debug)]
pub struct Started {
    pub job: Job,
    pub run: String,
    /// What is wrong with it; `None`: it ended as it must.
    pub wrong: Option<String>,
}

/// A call that got no good answer: why, the code of the last answer, and whether it was tried before.
type Failed = (String, Option<Code>, bool);

/// What all clients share.
pub struct Desk {
    client: Client,
    counts: Mutex<Counts>,
    /// What was acknowledged, a line each.
    book: Mutex<File>,
    pub started: AtomicU64,
    pub ended: AtomicU64,
    /// No more is started.
    stop: watch::Sender<bool>,
    /// Nobody waits any more.
    over: AtomicBool,
}

impl Desk {
    pub fn new(client: Client, book: File) -> Self {
        Self {
            client,
            counts: Mutex::default(),
            book: Mutex::new(book),
            started: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            stop: watch::Sender::new(false),
            over: AtomicBool::new(false),
        }
    }

    pub fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Clients that still wait give up.
    pub fn give_up(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Runs that were started and have not been seen to end.
    pub fn open(&self) -> u64 {
        self.started.load(Ordering::Relaxed).saturating_sub(self.ended.load(Ordering::Relaxed))
    }

    fn acknowledged(&self, kind: &'static str, detail: &Value) -> Result<(), String> {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).acknowledged.entry(kind).or_default() += 1;
        let line = format!("{}\n", json!({ "at": clock::now(), "kind": kind, "detail": detail }));
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.write_all(line.as_bytes()).map_err(|cause| format!("cannot write down what was acknowledged: {cause}"))
    }

    fn failed(&self, code: &str) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).errors.entry(code.to_owned()).or_default() += 1;
    }

    /// Repeats a call until it is answered. The error is one that no repetition mends, or that of the last try when all is over; the flag
    /// of an answer says whether the call was tried before.
    async fn insist<T, F>(&self, what: &str, mut call: impl FnMut() -> F) -> Result<(T, bool), Failed>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut again = false;
        loop {
            let (text, code) = match tokio::time::timeout(CALL_TIME, call()).await {
                Ok(Ok(answer)) => return Ok((answer, again)),
                Ok(Err(error)) => {
                    self.failed(error.code.name());
                    let lasts = !(error.code.is_transient() || matches!(error.code, Code::Cancelled | Code::Internal));
                    let text = format!("{what}: {error}");
                    if lasts {
                        return Err((text, Some(error.code), again));
                    }
                    (text, Some(error.code))
                }
                Err(_) => {
                    self.failed("no answer in time");
                    (format!("{what}: no answer in {CALL_TIME:?}"), None)
                }
            };
            again = true;
            if self.over.load(Ordering::Relaxed) {
                return Err((text, code, again));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One run from its start to its end.
    async fn live(self: Arc<Self>, job: Job) -> Started {
        let options = StartOptions { idempotency_key: job.key.clone(), ..StartOptions::default() };
        let started = self.insist("start", || self.client.start_run(job.workflow, &job.input, options.clone())).await;
        let run = match started {
            Ok(((run, _), _)) => run.run_id,
            Err((text, ..)) => return Started { job, run: String::new(), wrong: Some(text) },
        };
        self.started.fetch_add(1, Ordering::Relaxed);
        let outcome = self.after_start(&job, &run).await;
        self.ended.fetch_add(1, Ordering::Relaxed);
        Started { job, run, wrong: outcome.err() }
    }

    async fn after_start(&self, job: &Job, run: &str) -> Result<(), String> {
        self.acknowledged("start", &json!({ "run": run, "key": job.key }))?;
        match &job.guide {
            Guide::Nothing => {}
            Guide::Person { note, signals } => {
                self.decide(run, note).await?;
                for (place, signal) in signals.iter().enumerate() {
                    self.signal(run, place, *signal).await?;
                }
            }
            Guide::Cancel(after) => {
                tokio::time::sleep(*after).await;
                self.cancel(run).await?;
            }
            Guide::Beat(after) => {
                self.stopped(*after).await;
                // The next run of its kind has begun to beat meanwhile.
                tokio::time::sleep(OVERLAP).await;
                self.cancel(run).await?;
            }
        }
        let ended = self.wait(run).await?;
        check_end(job, &ended)
    }

    /// Ends after this time, or with the load; `true`: with the load.
    async fn stopped(&self, after: Duration) -> bool {
        let mut stop = self.stop.subscribe();
        // The sender lives as long as this desk.
        tokio::time::timeout(after, async { _ = stop.wait_for(|stop| *stop).await }).await.is_ok()
    }

    /// Keeps a partition moving until the load is over.
    async fn pulse(self: Arc<Self>, seed: u64, partition: u32) -> Vec<Started> {
        let mut runs = JoinSet::new();
        for number in 0.. {
            let job = Job::pulse(seed, partition, number);
            let Guide::Beat(time) = job.guide else { break };
            runs.spawn(Arc::clone(&self).live(job));
            if self.stopped(time).await {
                break;
            }
        }
        runs.join_all().await
    }

    async fn decide(&self, run: &str, note: &str) -> Result<(), String> {
        let page = || Page { limit: 10, cursor: String::new() };
        let approval = loop {
            let listed = self.insist("list approvals", || self.client.list_approvals(run, Vec::new(), page())).await;
            let ((listed, _), over) = (listed.map_err(|(text, ..)| text)?, self.over.load(Ordering::Relaxed));
            match listed.approvals.into_iter().next() {
                Some(approval) => break approval,
                None if over => return Err("its approval never came".to_owned()),
                None => tokio::time::sleep(PAUSE).await,
            }
        };
        let payload = json!({ "note": note }).to_string().into();
        let answer = Answer { decision: "approve".into(), by: "user:ada".into(), payload, digest: approval.digest, ..Answer::default() };
        match self.insist("decide", || self.client.decide(&approval.approval_id, answer.clone())).await {
            // The answer to an earlier try was lost on its way back.
            Ok(_) | Err((_, Some(Code::Conflict), true)) => {
                self.acknowledged("decision", &json!({ "run": run, "approval": approval.approval_id }))
            }
            Err((text, ..)) => Err(text),
        }
    }

    async fn signal(&self, run: &str, place: usize, payload: u64) -> Result<(), String> {
        let key = format!("signal-{place}");
        // Twice under one key: it must count once.
        for _ in 0..2 {
            let sent = self.insist("signal", || self.client.signal_run(run, "go", &payload, &key)).await;
            match sent {
                Ok(_) => {}
                // The last one may have ended the run already when it comes again.
                Err((_, Some(Code::FailedPrecondition), _)) if place > 0 => {}
                Err((text, ..)) => return Err(text),
            }
        }
        self.acknowledged("signal", &json!({ "run": run, "key": key }))
    }

    async fn cancel(&self, run: &str) -> Result<(), String> {
        let cancel = || self.client.control_run(run, ControlAction::Cancel, "by design");
        self.insist("cancel", cancel).await.map_err(|(text, ..)| text)?;
        self.acknowledged("cancel", &json!({ "run": run }))
    }

    async fn wait(&self, run: &str) -> Result<Run, String> {
        loop {
            let waited = self.insist("wait", || self.client.wait_run(run, WAIT_SLICE)).await;
            let ((found, ended), _) = waited.map_err(|(text, ..)| text)?;
            if ended {
                return Ok(found);
            }
            if self.over.load(Ordering::Relaxed) {
                return Err(format!("it is stuck: {}", waits(&found)));
            }
        }
    }
}

fn waits(run: &Run) -> String {
    let waits: Vec<String> = run.waiting_for.iter().map(|wait| format!("{} {}: {}", wait.step, wait.kind, wait.detail)).collect();
    format!("{}, waits for [{}]", run.status, waits.join("; "))
}

/// Whether it ended as its input says.
fn check_end(job: &Job, run: &Run) -> Result<(), String> {
    let error = || run.error.as_ref().map(|error| format!(" ({}: {})", error.code, error.message)).unwrap_or_default();
    match &job.expected {
        Expected::Cancelled if run.status == "cancelled" => Ok(()),
        Expected::Output(expected) if run.status == "succeeded" => {
            let output: Value = serde_json::from_slice(&run.output).unwrap_or_default();
            if output == *expected { Ok(()) } else { Err(format!("it gave {output}, not {expected}")) }
        }
        expected => Err(format!("it is {}{}, and should be {expected:?}", run.status, error())),
    }
}

/// Who waits for runs.
pub type Clients = JoinSet<Vec<Started>>;

/// How the load went.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Pace {
    /// Starts that waited because too many runs were open.
    pub held_back: u64,
}

/// Starts runs at a steady pace until the time is over, and on for as long as faults are still done; answers with the clients that still
/// wait for their runs.
pub async fn load(desk: &Arc<Desk>, plan: &Plan, until: Instant, calm: &AtomicBool) -> (Clients, Pace) {
    let (mut clients, mut pace) = (Clients::new(), Pace::default());
    for partition in 0..PARTITIONS {
        clients.spawn(Arc::clone(desk).pulse(plan.seed, partition));
    }
    let begun = Instant::now();
    for number in 0.. {
        let due = begun + Duration::from_secs_f64(number as f64 / plan.rate);
        if due >= until && calm.load(Ordering::Relaxed) {
            break;
        }
        tokio::time::sleep_until(due).await;
        // Not a queue of its own: what cannot be started now is not made up for.
        if desk.open() >= plan.open as u64 {
            pace.held_back += 1;
            continue;
        }
        let (desk, job) = (Arc::clone(desk), Job::new(plan.seed, number));
        clients.spawn(async move { vec![desk.live(job).await] });
    }
    desk.stop.send_replace(true);
    (clients, pace)
}

/// What is started, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Runs in a second.
    pub rate: f64,
    /// Runs open at once.
    pub open: usize,
}

/// Waits for the clients at most so long; those that still wait then give up.
pub async fn finish(desk: &Desk, mut clients: Clients, rest: Duration) -> Vec<Started> {
    let mut all = Vec::new();
    let deadline = Instant::now() + rest;
    loop {
        match tokio::time::timeout_at(deadline, clients.join_next()).await {
            Ok(Some(Ok(started))) => all.extend(started),
            // A client that panicked: its run is missed at the end.
            Ok(Some(Err(_))) => {}
            Ok(None) => return all,
            Err(_) => break,
        }
    }
    desk.give_up();
    all.extend(clients.join_all().await.into_iter().flatten());
    all
}

/// Makes sure that the keys of these runs start nothing again.
pub async fn start_again(desk: &Arc<Desk>, started: &[Started]) -> Vec<(String, String)> {
    let again = started.iter().filter(|started| !started.run.is_empty()).map(|started| async {
        let job = &started.job;
        let options = StartOptions { idempotency_key: job.key.clone(), ..StartOptions::default() };
        let answer = desk.insist("start again", || desk.client.start_run(job.workflow, &job.input, options.clone())).await;
        match answer {
            Ok(((run, created), _)) if created || run.run_id != started.run => {
                Some((started.run.clone(), format!("its key started {} as well", run.run_id)))
            }
            Ok(_) => None,
            Err((text, ..)) => Some((started.run.clone(), text)),
        }
    });
    join_all(again).await.into_iter().flatten().collect()
}
