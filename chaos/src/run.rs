//! All of it in order: start, break under load, heal, wait, judge, report.

use crate::{
    change::{Change, Kind},
    clock::{self, Micros},
    drive::{self, Desk, Started},
    fault,
    inflict::{self, Done, Outcome},
    judge::{self, Wrong, effects::Disturbance, logs},
    ledger, load,
    options::Options,
    progress::Gaps,
    report::{self, Report, Runs, Standstill},
    stage::Stage,
};
use anyhow::Context;
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{IsTerminal, Write},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Appends of an executor that were refused because another one owns the partition.
const STALE_APPENDS: &str = "executor_stale_appends_total";
/// Between two looks at the executors' metrics: a process that is killed takes those since the last look with it.
const LOOK: Duration = Duration::from_millis(500);
const TELL: Duration = Duration::from_secs(1);

/// Does what the options say and prints what came of it; `true`: nothing was wrong.
pub async fn run(options: Options) -> anyhow::Result<bool> {
    options.check()?;
    let data = folder(&options);
    let plan = fault::plan(options.seed, &options.faults(), options.time(), options.lease());
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

async fn perform(options: &Options, data: &std::path::Path, plan: &[fault::Planned]) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let stage = Stage::start(options, data).await?;
    for source in load::workflows() {
        stage.client.apply_workflow(&source, false).await.context("a workflow of the load is refused")?;
    }
    stage.client.apply_agent(load::AGENT, false).await.context("the agent of the load is refused")?;
    eprintln!("all processes are ready after {:.1} s", begun.elapsed().as_secs_f64());
    let desk = Arc::new(Desk::new(stage.client.clone(), File::create(data.join("acknowledged.jsonl"))?));
    let stale = StaleAppends::default();
    let over = AtomicBool::new(false);
    let acts = async {
        let acts = act(&stage, &desk, options, plan).await;
        over.store(true, Ordering::Relaxed);
        acts
    };
    let (acts, ()) = tokio::join!(acts, stale.watch(&stage, &over));
    let mut report = judge(&stage, &desk, options, acts, &stale).await?;
    report.seconds = begun.elapsed().as_secs_f64();
    report.seed = options.seed;
    Ok(report)
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

async fn act(stage: &Stage, desk: &Arc<Desk>, options: &Options, plan: &[fault::Planned]) -> Acts {
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

/// The refused appends of all lives of all executors.
#[derive(Default)]
struct StaleAppends(Mutex<HashMap<(String, u32), u64>>);

impl StaleAppends {
    async fn watch(&self, stage: &Stage, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            self.look(stage).await;
            sleep(LOOK).await;
        }
    }

    async fn look(&self, stage: &Stage) {
        for name in stage.running(fault::Target::Executor) {
            let (Some(pid), Ok(ops)) = (stage.cluster.pid(&name), stage.cluster.ops(&name)) else { continue };
            let url = format!("{}/metrics", ops.url());
            let answer = tokio::time::timeout(LOOK, async { reqwest::get(url).await?.text().await }).await;
            // It is stopped, or on its way up or down.
            let Ok(Ok(text)) = answer else { continue };
            let values =
                text.lines().filter(|line| line.starts_with(STALE_APPENDS)).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            let count = values.sum::<f64>() as u64;
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((name, pid), count);
        }
    }

    fn sum(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

async fn judge(stage: &Stage, desk: &Arc<Desk>, options: &Options, acts: Acts, stale: &StaleAppends) -> anyhow::Result<Report> {
    let mut wrong = acts.ended.clone();
    stage.cluster.ready().await.context("all faults are over, and not all are ready")?;
    stale.look(stage).await;
    wrong.extend(judge::at_rest(stage).await);
    wrong.extend(judge::keys(desk, &acts.started).await);
    let kept = judge::read(stage).await?;
    wrong.extend(judge::runs(&acts.started, &kept));
    for (run, journal) in &kept.journals {
        wrong.extend(journal.wrong.iter().map(|what| Wrong::new(run, what)));
    }
    let lines = ledger::read(&stage.ledger())?;
    let losing = acts.done.iter().filter(|done| done.planned.fault.loses_deliveries());
    let disturbances: Vec<Disturbance> = losing.map(|done| Disturbance { from: done.from, to: done.to }).collect();
    let mut effects = judge::effects::check(&lines, &kept.journals, &disturbances);
    wrong.append(&mut effects.wrong);
    let logs = logs::read(&stage.logs())?;
    wrong.extend(logs.wrong);
    wrong.extend(not_done(&acts.done));
    wrong.extend(not_refused(&acts.done, stale.sum()));
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
        stale_appends: stale.sum(),
        log_errors: logs.errors,
        wrong,
        ..Report::default()
    })
}

/// An executor that was stopped while it wrote must have been refused when it woke.
fn not_refused(done: &[Done], refused: u64) -> Option<Wrong> {
    let stopped = done.iter().flat_map(|done| &done.changes).filter(|change| change.kind == Kind::Stopped).count();
    (stopped > 0 && refused == 0).then(|| {
        Wrong::new("", format!("{stopped} executors were stopped for longer than their lease, and no write of theirs was refused"))
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
