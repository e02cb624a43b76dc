//! What the system is asked to do, by a client that believes only what is acknowledged, and what must come of it.

mod ask;
mod cases;

use crate::{trace::Dice, world::World};
use ask::Caller;
use cases::{Case, SOURCES};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Runs are started within this time.
const STARTS: u64 = 12_000;

/// What the clients have to say. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Verdicts(Arc<Mutex<Said>>);

#[derive(Default)]
struct Said {
    faults: Vec<String>,
    runs: u64,
    done: u64,
}

impl Verdicts {
    fn with<T>(&self, look: impl FnOnce(&mut Said) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A promise was broken.
    pub(crate) fn fault(&self, text: String) {
        self.with(|said| said.faults.push(text));
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.with(|said| said.faults.clone())
    }

    /// Runs that were asked for, and those whose end was seen and right.
    pub(crate) fn counts(&self) -> (u64, u64) {
        self.with(|said| (said.runs, said.done))
    }
}

/// Everything that the clients do until every run has ended, or `limit` is over.
pub(crate) async fn drive(seed: u64, world: &World, limit: Duration) -> Verdicts {
    let verdicts = Verdicts::default();
    let mut dice = Dice::new(seed, "load");
    let until = Instant::now() + limit;
    let caller = Caller::new(world, until);
    let mut clients = Vec::new();
    let count = dice.between(8, 16);
    for source in SOURCES {
        if let Err(error) = caller.apply(&cases::source(source)).await {
            verdicts.fault(format!("a workflow was not applied: {error}"));
        }
    }
    verdicts.with(|said| said.runs = count);
    for number in 0..count {
        let case = Case::draw(&mut dice, number);
        let wait = Duration::from_millis(dice.below(STARTS));
        let (caller, verdicts, net) = (caller.clone(), verdicts.clone(), world.net.clone());
        let dice = Dice::new(seed, &format!("case {number}"));
        clients.push(async move {
            tokio::time::sleep(wait).await;
            let name = case.key();
            match case.play(&caller, dice).await {
                Ok(()) => {
                    net.note(&format!("{name} is done"));
                    verdicts.with(|said| said.done += 1);
                }
                Err(fault) => {
                    net.note(&format!("{name}: {fault}"));
                    verdicts.fault(format!("{name}: {fault}"));
                }
            }
        });
    }
    futures::future::join_all(clients).await;
    verdicts
}
