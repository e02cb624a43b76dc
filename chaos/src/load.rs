//! The load: which runs are started when, with which input, and what each of them must give. All of it follows from the seed.

use crate::{stage::PARTITIONS, worker::COUNTED};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use std::time::Duration;
use troupe_domain::{Namespace, RunId, id::DEFAULT_NAMESPACE, partition_of};

/// More attempts than any fault can use up: what is asked is whether work is lost, not how soon one gives up.
const RETRY: &str = "retry: { attempts: 100, backoff: { initial: 50ms, max: 1s } }";

/// The built-in worker's part of the load.
pub const AGENT: &str = "\
agent: square
kind: code
code: |
  function run({ n }) { return { n: n * n }; }
";

/// Every workflow of the load; children before their parents.
pub fn workflows() -> Vec<String> {
    let texts = [SEQUENCE, FAN, CIRCLE, HUMAN, CHILD, FAMILY, LONG, NAP, SQUARES, DOOMED, PULSE];
    texts.into_iter().map(|text| text.replace("RETRY", RETRY)).collect()
}

const SEQUENCE: &str = "\
workflow: sequence
steps:
  a: { agent: noop, with: { n: \"${ input.n }\" }, RETRY }
  b: { after: a, agent: charge, with: { n: \"${ steps.a.output.n }\" }, RETRY }
  c: { after: b, agent: noop, with: { n: \"${ steps.b.output.n }\" }, RETRY }
output: \"${ steps.c.output.n }\"
";

const FAN: &str = "\
workflow: fan
state: { seen: { merge: append, default: [] } }
steps:
  part: { for_each: \"${ input.items }\", concurrency: 4, agent: noop, with: { n: \"${ item }\" }, save: { seen: \"${ output.n }\" }, RETRY }
  join: { after: part, agent: charge, with: { n: \"${ size(state.seen) }\" }, RETRY }
output: { seen: \"${ state.seen }\", n: \"${ steps.join.output.n }\" }
";

const CIRCLE: &str = "\
workflow: circle
state: { seen: { merge: append, default: [] } }
steps:
  again: { loop: { while: \"${ loop.index < 4 }\", max: 9 }, agent: noop, with: { n: \"${ loop.index }\" }, save: { seen: \"${ output.n }\" }, RETRY }
output: \"${ state.seen }\"
";

const HUMAN: &str = "\
workflow: human
state: { note: { default: none }, got: { merge: append, default: [] } }
steps:
  first: { agent: noop, with: { n: \"${ input.n }\" }, RETRY }
  sign: { after: first, approve: { title: \"Go on?\", edit: [note] } }
  one: { after: sign, signal: go, save: { got: \"${ output }\" } }
  two: { after: one, signal: go, save: { got: \"${ output }\" } }
  rest: { after: two, sleep: 200ms }
  last: { after: rest, agent: noop, with: { n: \"${ steps.first.output.n }\" }, RETRY }
output: { note: \"${ state.note }\", got: \"${ state.got }\", n: \"${ steps.last.output.n }\" }
";

const CHILD: &str = "\
workflow: child
steps:
  nap: { sleep: 100ms }
  work: { after: nap, agent: noop, with: { n: \"${ input.n }\" }, RETRY }
output: \"${ steps.work.output.n }\"
";

const FAMILY: &str = "\
workflow: family
steps:
  left: { workflow: child, with: { n: \"${ input.n }\" } }
  right: { workflow: child, with: { n: \"${ input.n + 10 }\" } }
output: \"${ steps.left.output + steps.right.output }\"
";

const LONG: &str = "\
workflow: long
steps:
  count: { agent: counter, with: {}, RETRY }
  moody: { after: count, agent: flaky, with: { n: \"${ steps.count.output.sum }\", refuse: \"${ input.refuse }\" }, RETRY }
output: \"${ steps.moody.output.n }\"
";

const NAP: &str = "\
workflow: nap
steps:
  rest: { sleep: \"${ input.rest }\" }
  work: { after: rest, agent: slow, with: { n: \"${ input.n }\" }, RETRY }
output: \"${ steps.work.output.n }\"
";

const SQUARES: &str = "\
workflow: squares
state: { total: { merge: sum, default: 0 } }
steps:
  each: { for_each: \"${ input.items }\", agent: square, with: { n: \"${ item }\" }, save: { total: \"${ output.n }\" }, RETRY }
output: \"${ state.total }\"
";

/// Nobody sends its signal: it is cancelled.
const DOOMED: &str = "\
workflow: doomed
steps:
  work: { agent: noop, with: { n: \"${ input.n }\" }, RETRY }
  never: { after: work, signal: never }
output: none
";

/// One side effect after the other, until it is cancelled: where it stops, its partition stands still.
const PULSE: &str = "\
workflow: pulse
steps:
  beat: { loop: { while: \"${ loop.index < 1000 }\", max: 1000 }, agent: beat, with: {}, RETRY }
output: none
";

/// A run of [`PULSE`] is followed by the next one after this time: before it has used up its rounds.
const PULSE_TIME: Duration = Duration::from_secs(100);

/// How a run must end.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    Output(Value),
    Cancelled,
}

/// What the driver does for a run besides starting it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guide {
    Nothing,
    /// Decides its approval with this note, and sends these signals.
    Person {
        note: String,
        signals: [u64; 2],
    },
    /// Cancels it after so long.
    Cancel(Duration),
    /// Cancels it after so long, or when the load is over.
    Beat(Duration),
}

/// One run of the load.
#[derive(Clone, Debug)]
pub struct Job {
    pub number: u64,
    /// Its idempotency key.
    pub key: String,
    pub workflow: &'static str,
    pub input: Value,
    pub expected: Expected,
    pub guide: Guide,
}

impl Job {
    /// The run of this number of the load of a seed.
    pub fn new(seed: u64, number: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let n: u64 = rng.random_range(0..1_000);
        let output = Expected::Output;
        let (workflow, input, expected) = match rng.random_range(0..100) {
            0..22 => ("sequence", json!({ "n": n }), output(json!(n + 3))),
            22..34 => {
                let items: Vec<u64> = (n..n + 8).collect();
                let seen: Vec<u64> = items.iter().map(|n| n + 1).collect();
                ("fan", json!({ "items": items }), output(json!({ "seen": seen, "n": 9 })))
            }
            34..44 => ("circle", json!({}), output(json!([1, 2, 3, 4]))),
            44..60 => ("human", json!({ "n": n }), output(json!({ "note": format!("note {number}"), "got": [n, n + 1], "n": n + 2 }))),
            60..70 => ("family", json!({ "n": n }), output(json!(2 * n + 12))),
            70..80 => ("long", json!({ "refuse": rng.random_range(0..3) }), output(json!(COUNTED + 1))),
            80..88 => {
                let rest = format!("{}ms", rng.random_range(100..1_500));
                ("nap", json!({ "rest": rest, "n": n }), output(json!(n + 1)))
            }
            88..94 => {
                let items = [n, n + 1, n + 2];
                ("squares", json!({ "items": items }), output(json!(items.iter().map(|n| n * n).sum::<u64>())))
            }
            _ => ("doomed", json!({ "n": n }), Expected::Cancelled),
        };
        let guide = match workflow {
            "human" => Guide::Person { note: format!("note {number}"), signals: [n, n + 1] },
            "doomed" => Guide::Cancel(Duration::from_millis(rng.random_range(50..800))),
            _ => Guide::Nothing,
        };
        Self { number, key: format!("chaos-{seed}-{number}"), workflow, input, expected, guide }
    }

    /// The run of this number that shows whether a partition moves: its key leads there.
    pub fn pulse(seed: u64, partition: u32, number: u64) -> Self {
        let namespace = Namespace::parse(DEFAULT_NAMESPACE).ok();
        let leads = |key: &String| namespace.as_ref().is_some_and(|own| partition_of(RunId::for_key(own, key), PARTITIONS) == partition);
        let mut keys = (0..10_000).map(|attempt| format!("pulse-{seed}-{partition}-{number}-{attempt}"));
        Self {
            number,
            // One in eight does.
            key: keys.find(leads).unwrap_or_default(),
            workflow: "pulse",
            input: json!({}),
            expected: Expected::Cancelled,
            guide: Guide::Beat(PULSE_TIME),
        }
    }

    /// Runs that it consists of: itself and its children.
    pub fn runs(&self) -> usize {
        if self.workflow == "family" { 3 } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use troupe_engine::{Limits, agent, language};

    #[test]
    fn every_file_is_valid() {
        for source in workflows() {
            language::parse(&source, &Limits::default()).unwrap_or_else(|faults| panic!("{source}{faults:?}"));
        }
        assert!(agent::parse(AGENT, &Limits::default()).is_ok());
    }

    #[test]
    fn each_partition_has_a_pulse() {
        let keys: BTreeSet<String> = (0..PARTITIONS).map(|partition| Job::pulse(7, partition, 0).key).collect();
        assert!(keys.len() == PARTITIONS as usize && !keys.contains(""));
    }

    #[test]
    fn a_seed_gives_one_load_with_all_of_the_workflows() {
        let load = |seed| (0..400).map(move |number| Job::new(seed, number));
        assert!(load(7).zip(load(7)).all(|(one, other)| one.input == other.input && one.guide == other.guide));
        assert!(load(7).zip(load(8)).any(|(one, other)| one.workflow != other.workflow));
        assert_eq!(
            load(7).map(|job| job.workflow).collect::<BTreeSet<_>>().len(),
            workflows().len() - 2,
            "all but the child and the pulse"
        );
    }
}
