//! A seed's plan of faults.

use crate::fault::{Fault, Target, WORK};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::Serialize;
use std::time::Duration;

/// What two minutes have to show: it comes before everything else, in the seed's order.
const FIRST: [Fault; 10] = [
    Fault::Kill(Target::Executor),
    Fault::Kill(Target::Scheduler),
    Fault::Kill(Target::Worker),
    Fault::Kill(Target::Gateway),
    Fault::Pause(Target::Executor),
    Fault::Cut(WORK),
    Fault::RedisFlush,
    Fault::PostgresRestart,
    Fault::DiskFull,
    Fault::Scale,
];

/// Groups of faults that take turns.
const GROUPS: usize = 11;

/// One fault of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// After the start of the load.
    pub at: Duration,
    pub fault: Fault,
    /// How long it lasts.
    pub length: Duration,
    /// Which of several processes or links; taken modulo their number.
    #[serde(skip)]
    pub victim: usize,
    /// How much of it: milliseconds of a delay, seconds of a clock's jump, whether one link or all of a process's.
    pub amount: i64,
}

/// What is done during `time` of load. The same seed gives the same plan: what comes of it differs, because real time passes.
pub fn plan(seed: u64, faults: &[Fault], time: Duration, lease: Duration) -> Vec<Planned> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut planned, mut at) = (Vec::new(), Duration::from_secs(2));
    let mut deck = Vec::new();
    while !faults.is_empty() {
        let fault = match deck.pop() {
            Some(fault) => fault,
            None => {
                deck = shuffled(&mut rng, faults);
                continue;
            }
        };
        let length = Duration::from_millis(rng.random_range(fault.span(lease)));
        let (victim, amount) = (rng.random_range(0..1_000), amount(&mut rng, fault));
        if at + fault.whole(length) > time {
            break;
        }
        planned.push(Planned { at, fault, length, victim, amount });
        at += fault.whole(length) + fault.calm(lease) + Duration::from_millis(rng.random_range(300..1_500));
    }
    planned
}

/// All of them once, last first: what has to be shown, then one of each group, then the next of each.
fn shuffled(rng: &mut StdRng, faults: &[Fault]) -> Vec<Fault> {
    let (mut order, rest): (Vec<Fault>, Vec<Fault>) = faults.iter().copied().partition(|fault| FIRST.contains(fault));
    order.shuffle(rng);
    let mut groups: Vec<Vec<Fault>> = vec![Vec::new(); GROUPS];
    for fault in rest {
        groups[group(fault)].push(fault);
    }
    for group in &mut groups {
        group.shuffle(rng);
    }
    while order.len() < faults.len() {
        order.extend(groups.iter_mut().filter_map(Vec::pop));
    }
    order.reverse();
    order
}

/// Those that have nobody in [`FIRST`] are before the others.
fn group(fault: Fault) -> usize {
    match fault {
        Fault::Drain(_) => 0,
        Fault::Clock(_) => 1,
        Fault::Silence(_) => 2,
        Fault::Delay(_) => 3,
        Fault::Pause(_) => 4,
        Fault::Cut(_) => 5,
        Fault::Kill(_) => 6,
        Fault::RedisKill | Fault::RedisFlush => 7,
        Fault::PostgresKill | Fault::PostgresRestart => 8,
        Fault::DiskFull => 9,
        Fault::Scale => 10,
    }
}

fn amount(rng: &mut StdRng, fault: Fault) -> i64 {
    match fault {
        Fault::Delay(_) => rng.random_range(20..150),
        Fault::Clock(_) => rng.random_range(20..31) * if rng.random() { 1 } else { -1 },
        _ => rng.random_range(0..2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(5);

    #[test]
    fn a_seed_gives_one_plan() {
        let plan = |seed| plan(seed, &Fault::all(), Duration::from_secs(600), LEASE);
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn all_come_once_before_any_comes_twice_and_none_begins_in_another() {
        let plan = plan(3, &Fault::all(), Duration::from_secs(3_600), LEASE);
        let mut first: Vec<Fault> = plan.iter().take(Fault::all().len()).map(|planned| planned.fault).collect();
        first.sort_unstable();
        let mut all = Fault::all();
        all.sort_unstable();
        assert_eq!(first, all);
        assert!(plan.windows(2).all(|pair| pair[0].at + pair[0].length < pair[1].at));
    }

    #[test]
    fn two_minutes_have_what_must_be_shown_and_every_group() {
        for seed in 0..100 {
            let plan = plan(seed, &Fault::all(), Duration::from_secs(120), LEASE);
            assert!(FIRST.iter().all(|fault| plan.iter().any(|planned| planned.fault == *fault)), "seed {seed}");
            assert!((0..GROUPS).all(|one| plan.iter().any(|planned| group(planned.fault) == one)), "seed {seed}");
        }
    }

    #[test]
    fn who_is_stopped_loses_his_lease() {
        let plan = plan(1, &Fault::all(), Duration::from_secs(3_600), LEASE);
        let stopped: Vec<&Planned> = plan.iter().filter(|planned| matches!(planned.fault, Fault::Pause(_))).collect();
        assert!(stopped.len() >= Target::ALL.len() && stopped.iter().all(|planned| planned.length > LEASE));
    }
}
