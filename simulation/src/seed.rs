//! One seed, from the start of its nodes to the verdict.

use crate::{
    appends::Appends,
    checks, faults, load,
    net::{Inspect, Net},
    os,
    trace::Trace,
    world::{World, spawn},
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

pub use crate::appends::Sabotage;

/// Simulated time that clients wait for the end of their runs.
const LIMIT: Duration = Duration::from_secs(180);

/// How a seed is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Print every event.
    pub trace: bool,
    /// Break something on purpose.
    pub sabotage: Option<Sabotage>,
}

/// What came of a seed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub seed: u64,
    /// Broken promises; none: all is well.
    pub broken: Vec<String>,
    /// The same whenever the seed is run.
    pub hash: u64,
    pub events: u64,
    pub faults: u64,
    pub runs: u64,
    pub tasks: u64,
    /// Recorded steps that were executed more than once: their worker was lost before it heard that they were durable.
    pub repeated: u64,
    /// Batches that were written to the journal.
    pub batches: u64,
    /// Batches of overtaken owners that were refused.
    pub stale: u64,
    /// Simulated milliseconds.
    pub millis: u64,
    /// The last events before the end, if it did not end well.
    pub last: Vec<String>,
}

/// Runs a seed. It turns the process's clocks and randomness into simulated ones for good: see [`crate::range`] for processes of their own.
pub(crate) fn run(seed: u64, settings: Settings) -> Outcome {
    os::simulate(seed);
    // Hash maps and generators keep the randomness that a thread has drawn first: a new thread has drawn none.
    let ended = std::thread::scope(|scope| scope.spawn(|| run_here(seed, settings)).join());
    ended.unwrap_or_else(|_| Outcome { seed, broken: vec!["the simulation panicked".to_owned()], ..Outcome::default() })
}

fn run_here(seed: u64, settings: Settings) -> Outcome {
    let built = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(error) => return Outcome { seed, broken: vec![format!("no runtime: {error}")], ..Outcome::default() },
    };
    let outcome = runtime.block_on(async {
        os::follow_runtime();
        let outcome = simulate(seed, settings).await;
        os::stand();
        outcome
    });
    // Whatever still runs goes with the process.
    std::mem::forget(runtime);
    outcome
}

async fn simulate(seed: u64, settings: Settings) -> Outcome {
    let net = Net::new(seed, Trace::new(settings.trace));
    let world = match World::start(seed, net.clone()).await {
        Ok(world) => world,
        Err(error) => return Outcome { seed, broken: vec![format!("the system does not start: {error}")], ..Outcome::default() },
    };
    let appends = Arc::new(Appends::new(Arc::clone(&world.journal), settings.sabotage));
    net.inspect(world.checkpoint(), Arc::clone(&appends) as Arc<dyn Inspect>);
    let watched = load::Verdicts::default();
    let watching = spawn(checks::watch_leases(world.clone(), watched.clone()));
    let (faults, verdicts) = tokio::join!(faults::make(seed, &world), load::drive(seed, &world, LIMIT));
    if verdicts.faults().is_empty() {
        checks::queues_empty(&world, &verdicts).await;
    }
    checks::journals(&world, &verdicts, &net).await;
    checks::take_over(&world, &verdicts).await;
    watching.abort();
    let (hash, events, last) = net.trace();
    let (runs, done) = verdicts.counts();
    let (batches, stale) = appends.counts();
    let (tasks, repeated) = world.book.counts();
    let mut broken = [verdicts.faults(), watched.faults(), appends.faults(), world.book.faults()].concat();
    if broken.is_empty() && done < runs {
        broken.push(format!("{} clients of {runs} never said how their run ended", runs - done));
    }
    let last = if broken.is_empty() { Vec::new() } else { last };
    Outcome { seed, broken, hash, events, faults, runs, tasks, repeated, batches, stale, millis: net.now(), last }
}
