//! What is printed at the end.

use crate::{
    change::Kind,
    drive::Counts,
    fault::{Fault, Target},
    inflict::{Done, Outcome},
    judge::{Wrong, effects::Effects},
};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Display};

/// Faults of runs that the table lists; all are in the JSON.
const MOST_WRONG: usize = 30;

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Runs {
    /// Starts that were acknowledged.
    pub acknowledged: usize,
    /// Of these, how many ended with the right result.
    pub right: usize,
    /// Runs in the store, with their children.
    pub in_store: usize,
    pub ended: usize,
    /// Starts that were left out because too many runs were open.
    pub held_back: u64,
}

/// What changes of executors of one kind led to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Standstill {
    pub times: u64,
    /// Seconds in which a partition had no side effect around one of them.
    pub longest: f64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub seed: u64,
    pub minutes: f64,
    pub seconds: f64,
    pub lease_ms: u64,
    pub rest_seconds: f64,
    pub runs: Runs,
    pub entries_replayed: usize,
    pub counts: Counts,
    pub faults: Vec<Done>,
    pub effects: Effects,
    pub stale_appends: u64,
    /// What workers said of deliveries that others had been given since.
    pub late_deliveries: u64,
    pub longest_gap: f64,
    pub longest_partition_gap: f64,
    pub changes: BTreeMap<Kind, Standstill>,
    pub log_errors: BTreeMap<String, u64>,
    pub wrong: Vec<Wrong>,
}

impl Report {
    pub fn is_good(&self) -> bool {
        self.wrong.is_empty()
    }
}

/// The summary, for people.
pub fn table(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    let mut row = |name: &str, value: String| _ = table.add_row([name.to_owned(), value]);
    let Runs { acknowledged, right, in_store, ended, held_back } = report.runs;
    row("seed", format!("{}, {} min of load, {:.0} s in all", report.seed, report.minutes, report.seconds));
    row("runs", format!("{acknowledged} acknowledged, {right} ended right; {in_store} in the store with children, {ended} ended"));
    if held_back > 0 {
        row("starts left out", format!("{held_back} (too many runs were open)"));
    }
    row("acknowledged calls", list(report.counts.acknowledged.iter()));
    row("answers with errors", list(report.counts.errors.iter()));
    row("journals replayed", format!("{in_store} runs, {} entries", report.entries_replayed));
    row("faults", faults(&report.faults));
    row("side effects", format!("{} of {} keys", report.effects.lines, report.effects.keys));
    row(
        "repeated",
        format!(
            "{}, {} of them unexplained\n{}",
            report.effects.repeated(),
            report.effects.unexplained,
            list(report.effects.explained.iter())
        ),
    );
    row(
        "records done again",
        format!("0 by later attempts unless listed below; {} by one attempt delivered again", report.effects.recorded_again),
    );
    row("stale appends refused", refused(report.stale_appends, "executors", stopped(report, Target::Executor)));
    row("late results refused", refused(report.late_deliveries, "workers", stopped(report, Target::Worker)));
    row(
        "longest time without",
        format!("any side effect: {:.1} s; one of a partition: {:.1} s", report.longest_gap, report.longest_partition_gap),
    );
    row("... when executors come and go", changes(report, true));
    row("... when executors are lost", format!("{}\n(the lease: {:.1} s)", changes(report, false), report.lease_ms as f64 / 1e3));
    row("open runs ended after", format!("{:.1} s", report.rest_seconds));
    row("errors in logs", list(report.log_errors.iter()));
    row("verdict", verdict(report));
    table.to_string()
}

fn list<K: Display, V: Display>(of: impl Iterator<Item = (K, V)>) -> String {
    let parts: Vec<String> = of.map(|(name, count)| format!("{name}: {count}")).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join("\n") }
}

/// How long a partition stood still, by what was done to an executor.
fn changes(report: &Report, planned: bool) -> String {
    let of = report.changes.iter().filter(|(kind, _)| kind.is_planned() == planned);
    list(of.map(|(kind, change)| (format!("{kind}, {}x", change.times), format!("{:.2} s", change.longest))))
}

fn faults(done: &[Done]) -> String {
    let mut counts: BTreeMap<String, (u64, u64, String)> = BTreeMap::new();
    for done in done {
        let entry = counts.entry(done.planned.fault.to_string()).or_default();
        match &done.outcome {
            Outcome::Happened(_) => entry.0 += 1,
            Outcome::NotTried(why) => entry.2.clone_from(why),
            Outcome::Failed(_) => entry.1 += 1,
        }
    }
    let lines = counts.iter().map(|(name, (happened, failed, not_tried))| {
        let failed = if *failed > 0 { format!(", {failed} not as planned") } else { String::new() };
        if not_tried.is_empty() { format!("{name}: {happened}{failed}") } else { format!("{name}: not tried: {not_tried}") }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// How many processes of a kind were stopped for longer than their lease.
fn stopped(report: &Report, target: Target) -> usize {
    let paused = |done: &&Done| done.planned.fault == Fault::Pause(target) && matches!(done.outcome, Outcome::Happened(_));
    report.faults.iter().filter(paused).count()
}

fn refused(count: u64, who: &str, stopped: usize) -> String {
    format!("{count}; {stopped} {who} were stopped for longer than a lease")
}

fn verdict(report: &Report) -> String {
    if report.is_good() {
        return "nothing was lost, nothing was repeated without a reason".to_owned();
    }
    let shown = report.wrong.iter().take(MOST_WRONG).map(|wrong| format!("{} {}", wrong.run, wrong.what));
    let more = report.wrong.len().saturating_sub(MOST_WRONG);
    let rest = (more > 0).then(|| format!("and {more} more"));
    format!("WRONG: {}\n{}", report.wrong.len(), shown.chain(rest).collect::<Vec<_>>().join("\n"))
}
