//! The command line.

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::{io::IsTerminal, ops::Range, process::ExitCode, time::Instant};
use troupe_simulation::{
    range,
    seed::{Outcome, Sabotage, Settings},
};

/// Simulates Troupe's services under faults, one seed after the other. The same seed gives the same simulation.
#[derive(Parser)]
#[command(name = "troupe-simulation", version)]
struct Cli {
    /// One seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Seeds FROM up to, not including, TO.
    #[arg(long, value_name = "FROM..TO", value_parser = seeds)]
    seeds: Option<Range<u64>>,
    /// Seeds at once; as many as there are processors where nothing is said.
    #[arg(long)]
    jobs: Option<usize>,
    /// Print every event, and what the services log.
    #[arg(long)]
    trace: bool,
    /// Print each seed's hash: the same for the same seed.
    #[arg(long)]
    hashes: bool,
    /// Break something on purpose, to see that it is found.
    #[arg(long)]
    break_on_purpose: Option<Broken>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Broken {
    StaleEpochs,
    Forgetful,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("write FROM..TO")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("'{text}': {error}"));
    Ok(number(from)?..number(to)?)
}

pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let range = cli.seed.map(|seed| seed..seed + 1).or(cli.seeds).unwrap_or(0..1_000);
    let jobs = cli.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    if cli.trace {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).init();
    }
    let sabotage = cli.break_on_purpose.map(|broken| match broken {
        Broken::StaleEpochs => Sabotage::StaleEpochs,
        Broken::Forgetful => Sabotage::Forgetful,
    });
    let (begun, mut sum) = (Instant::now(), Sum::default());
    let bar = progress(&range);
    let done = range::run(range, jobs, Settings { trace: cli.trace, sabotage }, |outcome| {
        sum.add(&outcome);
        if cli.hashes {
            println!("{} {:016x} {}", outcome.seed, outcome.hash, outcome.events);
        }
        if !outcome.broken.is_empty() {
            bar.suspend(|| show(&outcome));
        }
        bar.inc(1);
    });
    bar.finish_and_clear();
    if let Err(error) = done {
        eprintln!("seeds cannot be run: {error}");
        return ExitCode::FAILURE;
    }
    println!("{}", sum.text(begun.elapsed().as_secs_f64()));
    if sum.broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A bar where somebody looks. It draws by itself only: a thread of its own would be lost in forked processes.
fn progress(range: &Range<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(range.end.saturating_sub(range.start));
    match ProgressStyle::with_template("{wide_bar} {pos}/{len} seeds, {per_sec}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn show(outcome: &Outcome) {
    for line in &outcome.last {
        println!("  {line}");
    }
    println!("seed {} broke {} promises:", outcome.seed, outcome.broken.len());
    for text in &outcome.broken {
        println!("  {text}");
    }
    println!("again, with every event: cargo run -p troupe-simulation -- --seed {} --trace", outcome.seed);
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    broken: u64,
    runs: u64,
    tasks: u64,
    faults: u64,
    repeated: u64,
    batches: u64,
    stale: u64,
    millis: u64,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.broken += u64::from(!outcome.broken.is_empty());
        self.runs += outcome.runs;
        self.tasks += outcome.tasks;
        self.faults += outcome.faults;
        self.repeated += outcome.repeated;
        self.batches += outcome.batches;
        self.stale += outcome.stale;
        self.millis += outcome.millis;
    }

    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn text(&self, seconds: f64) -> String {
        format!(
            "{} seeds ({} broken): {} runs, {} tasks, {} faults, {} batches, {} of overtaken owners refused, {} recorded steps repeated, {:.1} simulated hours in {seconds:.1} s: {:.0} seeds a minute",
            self.seeds,
            self.broken,
            self.runs,
            self.tasks,
            self.faults,
            self.batches,
            self.stale,
            self.repeated,
            self.millis as f64 / 3_600_000.0,
            self.seeds as f64 * 60.0 / seconds
        )
    }
}
