//! All of it in order: start, break under load, heal, wait, judge, report.

use crate::{
    change::{Change, Kind},
    clock::{self, Micros},
    drive::{self, Desk, Started},
    inflict::{self, Done, Outcome},
    judge::{self, Wrong, effects::Disturbance, logs},
    ledger, load,
    options::Options,
    plan::{self, Planned},
    progress::Gaps,
    refusals::{Refusal, Refusals},
    report::{self, Report, Runs, Standstill},
    stage::Stage,
};
use anyhow::Context;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{IsTerminal, Write},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};
use troupe_client::{Client, Error};
use troupe_testkit::until;

const TELL: Duration = Duration::from_secs(1);

/// Does what the options say and prints what came of it; `true`: nothing was wrong.
pub async fn run(options: Options) -> anyhow::Result<bool> {
    options.check()?;
    let data = folder(&options);
    let plan = plan::plan(options.seed, &options.faults(), options.time(), options.lease());
    eprintln!("seed {}: {} faults in {:.0} s of load; data in {}", options.seed, plan.len(), options.time().as_secs_f64(), data.display());
    let report = perform(&options, &data, &plan).await.with_context(|| format!("the data is in {}", data.display()))?;
    println!("{}", report::table(&report));
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_vec_pretty(&report)?).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let good = report.is_good();
    if good && !options.keep {
        fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
    } else {
        println!("data: {}", data.display());
    }
    Ok(good)
}

/// Ends when this process is told to stop.
pub async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        // Then it can only be killed.
        _ => std::future::pending().await,
    }
}

fn folder(options: &Options) -> PathBuf {
    let own = || std::env::temp_dir().join(format!("troupe-chaos-{}-{}", options.seed, uuid::Uuid::new_v4().simple()));
    options.data.clone().unwrap_or_else(own)
}

async fn perform(options: &Options, data: &std::path::Path, plan: &[Planned]) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let stage = Stage::start(options, data).await?;
    define(&stage.client).await?;
    eprintln!("all processes are ready after {:.1} s", begun.elapsed().as_secs_f64());
    let desk = Arc::new(Desk::new(stage.client.clone(), File::create(data.join("acknowledged.jsonl"))?));
    let refusals = Refusals::default();
    let over = AtomicBool::new(false);
    let acts = async {
        let acts = act(&stage, &desk, options, plan).await;
        over.store(true, Ordering::Relaxed);
        acts
    };
    let (acts, ()) = tokio::join!(acts, refusals.watch(&stage, &over));
    let mut report = judge(&stage, &desk, options, acts, &refusals).await?;
    report.seconds = begun.elapsed().as_secs_f64();
    report.seed = options.seed;
    Ok(report)
}

/// Gives Troupe what the load consists of.
async fn define(client: &Client) -> anyhow::Result<()> {
    for source in load::workflows() {
        answered(async || client.apply_workflow(&source, false).await).await.context("a workflow of the load is refused")?;
    }
    answered(async || client.apply_agent(load::AGENT, false).await).await.context("the agent of the load is refused")?;
    Ok(())
}

/// Repeats a call while it is answered with what may go by: the executor that is added later has its proxies already, which take a call and
/// drop it.
async fn answered<T>(mut call: impl AsyncFnMut() -> Result<T, Error>) -> anyhow::Result<T> {
    let answer = until("an answer", async || match call().await {
        Err(error) if error.code.is_transient() => None,
        answer => Some(answer),
    });
    Ok(answer.await??)
}

/// What happened while the load lasted and until it had ended.
struct Acts {
    started: Vec<Started>,
    pace: drive::Pace,
    done: Vec<Done>,
    /// Processes that had ended by themselves.
    ended: Vec<Wrong>,
    from: Micros,
    /// When the load stopped.
    to: Micros,
    /// How long the runs that were open then took to end.
    rest: f64,
}

async fn act(stage: &Stage, desk: &Arc<Desk>, options: &Options, plan: &[Planned]) -> Acts {
    let (from, begun) = (clock::now(), Instant::now());
    let until = begun + options.time();
    let over = AtomicBool::new(false);
    let load = drive::Plan { seed: options.seed, rate: options.rate, open: options.open };
    let work = async {
        let calm = AtomicBool::new(false);
        let faults = async {
            let done = inflict::all(stage, plan, begun, tell).await;
            calm.store(true, Ordering::Relaxed);
            done
        };
        let (done, (clients, pace)) = tokio::join!(faults, drive::load(desk, &load, until, &calm));
        let (to, resting) = (clock::now(), Instant::now());
        let ended = judge::revive(stage).await;
        let started = drive::finish(desk, clients, options.rest()).await;
        over.store(true, Ordering::Relaxed);
        Acts { started, pace, done, ended, from, to, rest: resting.elapsed().as_secs_f64() }
    };
    let (acts, ()) = tokio::join!(work, show(desk, begun, &over));
    acts
}

fn tell(done: &Done) {
    let (mark, detail) = match &done.outcome {
        Outcome::Happened(detail) => ("", detail),
        Outcome::NotTried(why) => ("not tried: ", why),
        Outcome::Failed(why) => ("FAILED: ", why),
    };
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    let at = done.planned.at.as_secs_f64();
    eprintln!(
        "{at:>7.1} s  {:<28} {:<14} {mark}{detail} ({:.1} s)",
        done.planned.fault.to_string(),
        done.victim,
        clock::seconds(done.from, done.to)
    );
}

/// A line that changes, for a person who watches.
async fn show(desk: &Desk, begun: Instant, over: &AtomicBool) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    while !over.load(Ordering::Relaxed) {
        let (started, ended) = (desk.started.load(Ordering::Relaxed), desk.ended.load(Ordering::Relaxed));
        eprint!("\r\x1b[K{:.0} s: {started} runs started, {ended} ended", begun.elapsed().as_secs_f64());
        // It is only for show.
        let _ = std::io::stderr().flush();
        sleep(TELL).await;
    }
    eprint!("\r\x1b[K");
}

async fn judge(stage: &Stage, desk: &Arc<Desk>, options: &Options, acts: Acts, refusals: &Refusals) -> anyhow::Result<Report> {
    let mut wrong = acts.ended.clone();
    stage.cluster.ready().await.context("all faults are over, and not all are ready")?;
    refusals.look(stage).await;
    wrong.extend(judge::at_rest(stage).await);
    wrong.extend(judge::keys(desk, &acts.started).await);
    let kept = judge::read(stage).await?;
    wrong.extend(judge::runs(&acts.started, &kept));
    for (run, journal) in &kept.journals {
        wrong.extend(journal.wrong.iter().map(|what| Wrong::new(run, what)));
    }
    let lines = ledger::read(&stage.ledger())?;
    let disturbances: Vec<Disturbance> = acts.done.iter().filter_map(Disturbance::of).collect();
    let mut effects = judge::effects::check(&lines, &kept.journals, &disturbances);
    wrong.append(&mut effects.wrong);
    let logs = logs::read(&stage.logs())?;
    wrong.extend(logs.wrong);
    wrong.extend(not_done(&acts.done));
    let partitions = kept.journals.iter().map(|(run, journal)| (run.clone(), journal.partition)).collect();
    let gaps = Gaps::of(&lines, &partitions, acts.from, acts.to);
    let changes = changes(&acts, &gaps, options);
    wrong.extend(too_long(&changes, options));
    wrong.sort_unstable();
    let right = acts.started.iter().filter(|started| started.wrong.is_none()).count();
    let runs = Runs {
        acknowledged: acts.started.iter().filter(|started| !started.run.is_empty()).count(),
        right,
        in_store: kept.rows.len(),
        ended: kept.rows.iter().filter(|row| row.ended_at.is_some()).count(),
        held_back: acts.pace.held_back,
    };
    Ok(Report {
        minutes: options.minutes,
        lease_ms: options.lease_ms,
        rest_seconds: acts.rest,
        runs,
        entries_replayed: kept.journals.values().map(|journal| journal.entries).sum(),
        counts: desk.counts(),
        changes,
        longest_gap: gaps.longest(false, acts.from, acts.to).seconds(),
        longest_partition_gap: gaps.longest(true, acts.from, acts.to).seconds(),
        faults: acts.done,
        effects,
        stale_appends: refusals.sum(Refusal::Append),
        late_deliveries: refusals.sum(Refusal::Delivery),
        log_errors: logs.errors,
        wrong,
        ..Report::default()
    })
}

/// Faults that were planned and did not happen: nothing was shown by them.
fn not_done(done: &[Done]) -> Vec<Wrong> {
    let failed = done.iter().filter_map(|done| match &done.outcome {
        Outcome::Failed(why) => Some(Wrong::new("", format!("{} of {} did not happen as planned: {why}", done.planned.fault, done.victim))),
        _ => None,
    });
    failed.collect()
}

/// The longest time that a partition stood still from each change of executors until the next fault, by the kind of the change.
fn changes(acts: &Acts, gaps: &Gaps, options: &Options) -> BTreeMap<Kind, Standstill> {
    let mut changes: BTreeMap<Kind, Standstill> = BTreeMap::new();
    let after = clock::micros(options.lease() + options.patience());
    let all: Vec<&Change> = acts.done.iter().flat_map(|done| &done.changes).collect();
    for one in &all {
        let others = all.iter().map(|other| other.from).chain(acts.done.iter().map(|done| done.from));
        let next = others.filter(|from| *from > one.from).min().unwrap_or(acts.to);
        let change = changes.entry(one.kind).or_default();
        change.times += 1;
        change.longest = change.longest.max(gaps.standstill(one.from, (one.to + after).min(next).min(acts.to)));
    }
    changes
}

/// Changes after which a partition stood still for too long.
fn too_long(changes: &BTreeMap<Kind, Standstill>, options: &Options) -> Vec<Wrong> {
    let limit = (options.lease() + options.patience()).as_secs_f64();
    let long = changes.iter().filter(|(_, change)| change.longest > limit);
    let wrong = long.map(|(kind, change)| Wrong::new("", format!("{kind}: a partition stood still for {:.1} s", change.longest)));
    wrong.collect()
}
