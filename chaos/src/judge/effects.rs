//! Side effects: none without its result, none repeated but for a reason.
//!
//! The rule. Lines of the ledger with one idempotency key, in the order of their times, are explained pair by pair:
//!
//! - another attempt: the journal must say that the earlier attempt ended in a failure (a handler's own, or that its worker was lost);
//! - the same attempt, delivered again: its fence must be greater (each delivery has its own), and between the first line and the second a
//!   fault must have been active, or over for less than [`GRACE`], that can lose a delivery: a lease has to end before a task is given away;
//!   a fault of one worker explains nothing that this worker has not done;
//! - the same attempt, delivered again without a fault: the earlier execution must have written nothing for a whole lease before the next
//!   one did: its lease had ended, as it does when a machine is too busy. These are counted apart;
//! - anything else is unexplained: the same delivery twice, an older delivery after a newer one without a fault, an attempt after a success.
//!
//! Recorded steps are bound more tightly: what the journal has as recorded by one attempt no later attempt may do again.

use super::{
    Wrong,
    journal::{Ending, Journal},
};
use crate::{
    clock::{Micros, micros},
    inflict::Done,
    ledger::{Line, What},
    stage::TASK_LEASE_SECONDS,
    worker::BY_DESIGN,
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

/// After a fault is over, deliveries that it lost are made again for so long: leases end, services find each other.
pub const GRACE: Duration = Duration::from_secs(20);

/// A time in which deliveries could be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disturbance {
    pub from: Micros,
    pub to: Micros,
    /// The worker whose deliveries these were; none: anybody's.
    pub worker: Option<String>,
}

impl Disturbance {
    /// What a fault was, where it could lose any.
    pub fn of(done: &Done) -> Option<Self> {
        let fault = done.planned.fault;
        // A link's name begins with who it comes from.
        let victim = done.victim.split('>').next().unwrap_or_default().to_owned();
        fault.loses_deliveries().then(|| Self { from: done.from, to: done.to, worker: fault.hits_worker().then_some(victim) })
    }

    /// Whether a delivery of the one could have been lost and made again as the other.
    fn explains(&self, one: &Line, other: &Line) -> bool {
        let hit = self.worker.as_ref().is_none_or(|worker| [&one.worker, &other.worker].contains(&worker));
        hit && self.from <= other.at && one.at <= self.to + micros(GRACE)
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Effects {
    /// Lines of side effects.
    pub lines: u64,
    /// Idempotency keys.
    pub keys: u64,
    /// Pairs, by what explains them.
    pub explained: BTreeMap<&'static str, u64>,
    pub unexplained: u64,
    /// Recorded steps that were done again although the record was durable, by the same attempt delivered again.
    pub recorded_again: u64,
    #[serde(skip)]
    pub wrong: Vec<Wrong>,
}

impl Effects {
    /// Effects that a fault repeated.
    pub fn repeated(&self) -> u64 {
        self.explained.iter().filter(|(why, _)| **why != DESIGNED).map(|(_, count)| count).sum::<u64>() + self.unexplained
    }
}

const DESIGNED: &str = "attempts that failed by design";
const LOST: &str = "attempts that the journal says failed";
const AGAIN: &str = "deliveries lost to a fault";
const LATE: &str = "leases that ended without a fault";

/// What each execution wrote.
type Signs<'a> = HashMap<(u32, u64), Vec<&'a Line>>;

/// Compares the ledger with the journals.
pub fn check(lines: &[Line], journals: &HashMap<String, Journal>, disturbances: &[Disturbance]) -> Effects {
    let mut effects = Effects::default();
    let mut by_key: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.what != What::Recorded) {
        by_key.entry(&line.key).or_default().push(line);
        effects.lines += 1;
    }
    effects.keys = by_key.len() as u64;
    let nothing = Journal::default();
    let mut signs = Signs::new();
    for line in lines {
        signs.entry((line.pid, line.execution)).or_default().push(line);
    }
    for lines in by_key.values() {
        let journal = journals.get(&lines[0].run).unwrap_or(&nothing);
        for pair in lines.windows(2) {
            match explain(pair[0], pair[1], journal, disturbances, &signs) {
                Ok(why) => *effects.explained.entry(why).or_default() += 1,
                Err(why) => {
                    effects.unexplained += 1;
                    effects
                        .wrong
                        .push(Wrong::new(&pair[0].run, format!("{} was repeated: {why} ({:?} and {:?})", pair[0].key, pair[0], pair[1])));
                }
            }
        }
    }
    records(&mut effects, lines, journals);
    results(&mut effects, lines, journals);
    effects
}

fn explain(one: &Line, other: &Line, journal: &Journal, disturbances: &[Disturbance], signs: &Signs<'_>) -> Result<&'static str, String> {
    if (one.pid, one.execution) == (other.pid, other.execution) {
        return Err("one call of a handler did it twice".to_owned());
    }
    let disturbed = || disturbances.iter().any(|disturbance| disturbance.explains(one, other));
    if one.attempt != other.attempt {
        let earlier = one.attempt.min(other.attempt);
        return match journal.attempts.get(&(one.step.clone(), earlier)) {
            Some(Ending::Failed(code)) if code == BY_DESIGN => Ok(DESIGNED),
            Some(Ending::Failed(_)) if one.attempt < other.attempt || disturbed() => Ok(LOST),
            Some(ending) => Err(format!("attempt {earlier} ended with {ending:?}")),
            None => Err(format!("the journal has no end of attempt {earlier}")),
        };
    }
    match (one.fence == other.fence, disturbed()) {
        (true, _) => Err("one delivery was executed twice".to_owned()),
        (false, false) if was_silent(one, other, signs) => Ok(LATE),
        (false, false) => Err("it was delivered again, no fault had lost a delivery, and its lease had not ended".to_owned()),
        (false, true) => Ok(AGAIN),
    }
}

/// Whether the execution of `one` had written nothing for a lease when that of `other` began.
fn was_silent(one: &Line, other: &Line, signs: &Signs<'_>) -> bool {
    let of = |line: &Line| signs.get(&(line.pid, line.execution)).into_iter().flatten().map(|line| line.at);
    let begun = of(other).min().unwrap_or(other.at);
    let last = of(one).filter(|at| *at <= begun).max().unwrap_or(one.at);
    // Work between two lines takes some milliseconds, and a lease ends some milliseconds early or late.
    begun.saturating_sub(last) + 500_000 >= micros(Duration::from_secs(TASK_LEASE_SECONDS))
}

/// No attempt does again what an earlier one has recorded.
fn records(effects: &mut Effects, lines: &[Line], journals: &HashMap<String, Journal>) {
    let mut told: HashSet<(&str, u32)> = HashSet::new();
    for line in lines {
        let Some(index) = line.index else { continue };
        let recorded = journals.get(&line.run).and_then(|journal| journal.records.get(&(line.step.clone(), index)));
        match (line.what, recorded) {
            (What::Recorded, None) => {
                effects
                    .wrong
                    .push(Wrong::new(&line.run, format!("record {index} of {} was acknowledged, and is not in the journal", line.step)));
            }
            (What::Recorded, Some(_)) => _ = told.insert((&line.key, line.attempt)),
            (What::Step, Some(attempt)) if line.attempt > *attempt => {
                let what = format!("record {index} of {} is from attempt {attempt}, and attempt {} did it again", line.step, line.attempt);
                effects.wrong.push(Wrong::new(&line.run, what));
            }
            (What::Step, _) if told.contains(&(line.key.as_str(), line.attempt)) => effects.recorded_again += 1,
            _ => {}
        }
    }
}

/// No result and no record without its side effect: nothing was made up.
fn results(effects: &mut Effects, lines: &[Line], journals: &HashMap<String, Journal>) {
    let done: HashSet<(&str, &str, Option<u32>)> = lines.iter().map(|line| (line.run.as_str(), line.step.as_str(), line.index)).collect();
    let own: HashSet<(&str, &str)> = lines.iter().map(|line| (line.run.as_str(), line.step.as_str())).collect();
    for (run, journal) in journals {
        for (step, index) in journal.records.keys() {
            if !done.contains(&(run.as_str(), step.as_str(), Some(*index))) {
                effects.wrong.push(Wrong::new(run, format!("record {index} of {step} is in the journal, and nobody did it")));
            }
        }
        let completed = journal.attempts.iter().filter(|(_, ending)| **ending == Ending::Completed);
        for ((step, _), _) in completed {
            // What the built-in worker does it does not write down.
            if !own.contains(&(run.as_str(), step.as_str())) && !step.starts_with("each[") {
                effects.wrong.push(Wrong::new(run, format!("{step} has a result, and nobody did it")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(attempt: u32, fence: u64, at: Micros, execution: u64) -> Line {
        Line {
            what: What::Effect,
            key: "default/run/a".to_owned(),
            run: "run".to_owned(),
            step: "a".to_owned(),
            attempt,
            fence,
            index: None,
            at,
            worker: "w".to_owned(),
            pid: 1,
            execution,
        }
    }

    fn journal(ends: &[(u32, Ending)]) -> HashMap<String, Journal> {
        let attempts = ends.iter().map(|(attempt, ending)| (("a".to_owned(), *attempt), ending.clone())).collect();
        HashMap::from([("run".to_owned(), Journal { attempts, ..Journal::default() })])
    }

    const FAULT: Disturbance = Disturbance { from: 15, to: 16, worker: None };

    #[test]
    fn a_repetition_needs_a_reason() {
        let (completed, lost) = ([(1, Ending::Completed)], [(1, Ending::Failed("WORKER_LOST".into())), (2, Ending::Completed)]);
        let twice = [line(1, 7, 10, 1), line(1, 8, 20, 2)];
        assert_eq!(check(&twice, &journal(&completed), &[]).unexplained, 1, "no fault");
        assert_eq!(check(&twice, &journal(&completed), &[FAULT]).explained, BTreeMap::from([(AGAIN, 1)]));
        let late = [line(1, 7, 10, 1), line(1, 8, 5_000_010, 2)];
        assert_eq!(check(&late, &journal(&completed), &[]).explained, BTreeMap::from([(LATE, 1)]));
        let same = [line(1, 7, 10, 1), line(1, 7, 20, 2)];
        assert_eq!(check(&same, &journal(&completed), &[FAULT]).unexplained, 1, "one delivery, twice");
        let next = [line(1, 7, 10, 1), line(2, 8, 20, 2)];
        assert_eq!(check(&next, &journal(&lost), &[]).explained, BTreeMap::from([(LOST, 1)]));
        assert_eq!(check(&next, &journal(&completed), &[FAULT]).unexplained, 1, "after a success");
        assert_eq!(check(&next, &journal(&[]), &[FAULT]).unexplained, 1, "the journal knows nothing of it");
    }

    #[test]
    fn a_fault_of_one_worker_explains_only_its_own() {
        let twice = [line(1, 7, 10, 1), Line { worker: "v".to_owned(), ..line(1, 8, 20, 2) }];
        for (worker, unexplained) in [("w", 0), ("v", 0), ("u", 1)] {
            let fault = Disturbance { worker: Some(worker.to_owned()), ..FAULT };
            assert_eq!(check(&twice, &journal(&[(1, Ending::Completed)]), &[fault]).unexplained, unexplained, "{worker}");
        }
    }

    #[test]
    fn a_later_attempt_never_does_again_what_is_recorded() {
        let step = |attempt, execution| Line { what: What::Step, index: Some(0), ..line(attempt, u64::from(attempt), 10, execution) };
        let records = BTreeMap::from([(("a".to_owned(), 0), 1)]);
        let journals =
            HashMap::from([("run".to_owned(), Journal { records, ..journal(&[(1, Ending::Failed("X".into()))])["run"].clone() })]);
        assert!(check(&[step(1, 1)], &journals, &[]).wrong.is_empty());
        assert_eq!(check(&[step(1, 1), step(2, 2)], &journals, &[]).wrong.len(), 1);
    }

    #[test]
    fn nothing_is_made_up() {
        assert_eq!(check(&[], &journal(&[(1, Ending::Completed)]), &[]).wrong.len(), 1);
    }
}
