//! Runs of every kind, each with the result that it must have, worked out here on its own.

use super::ask::Caller;
use crate::{trace::Dice, work::answer};
use serde_json::{Value, json};
use std::time::Duration;
use troupe_domain::Error;

/// Lost workers and schedulers use attempts up: here are enough.
const RETRY: &str = "retry: { attempts: 40, backoff: { initial: 100ms, factor: 2, max: 800ms } }";

/// The workflows.
pub(super) static SOURCES: [&str; 9] = [
    "workflow: line\nsteps:\n  a: { agent: calm, with: { n: '${ input.n }' }, RETRY }\n  b: { after: a, agent: calm, with: { n: '${ steps.a.output.n }' }, RETRY }\n  c: { after: b, agent: other, with: { n: '${ steps.b.output.n }' }, RETRY }\noutput: { n: '${ steps.c.output.n }' }\n",
    "workflow: fan\nstate: { sum: { merge: sum, default: 0 } }\nsteps:\n  each: { for_each: '${ input.items }', agent: { capability: counting }, with: { n: '${ item }' }, save: { sum: '${ output.n }' }, RETRY }\noutput: { n: '${ state.sum }' }\n",
    "workflow: records\nsteps:\n  only: { agent: calm, with: { n: '${ input.n }', records: '${ input.records }' }, RETRY }\noutput: { n: '${ steps.only.output.n }' }\n",
    "workflow: flaky\nsteps:\n  only: { agent: other, with: { n: '${ input.n }', failures: '${ input.failures }' }, RETRY }\noutput: { n: '${ steps.only.output.n }' }\n",
    "workflow: told\nsteps:\n  first: { agent: calm, with: { n: '${ input.n }' }, RETRY }\n  wait: { signal: go }\n  last: { after: [first, wait], agent: calm, with: { n: '${ steps.wait.output.n }' }, RETRY }\noutput: { n: '${ steps.first.output.n + steps.last.output.n }' }\n",
    "workflow: sleeper\nsteps:\n  wait: { sleep: '${ input.span }' }\n  then: { after: wait, agent: calm, with: { n: '${ input.n }' }, RETRY }\noutput: { n: '${ steps.then.output.n }' }\n",
    "workflow: parent\nsteps:\n  child: { workflow: line, with: { n: '${ input.n }' } }\n  own: { after: child, agent: calm, with: { n: '${ steps.child.output.n }' }, RETRY }\noutput: { n: '${ steps.own.output.n }' }\n",
    "workflow: signed\nsteps:\n  sign:\n    approve: { title: 'Go on?' }\n    routes: { approved: go, _: drop }\n  go: { agent: calm, with: { n: '${ input.n }' }, RETRY }\n  drop: { set: { dropped: true } }\noutput: { n: '${ steps.go.output == null ? 0 : steps.go.output.n }' }\n",
    "workflow: around\nstate: { n: { default: 0 } }\nsteps:\n  again: { loop: { while: '${ loop.index < input.times }', max: 20 }, agent: calm, with: { n: '${ loop.index }' }, save: { n: '${ output.n }' }, RETRY }\noutput: { n: '${ state.n }' }\n",
];

/// The text of a workflow.
pub(super) fn source(text: &str) -> String {
    text.replace("RETRY", RETRY)
}

#[derive(Clone, Debug)]
enum Kind {
    Line,
    Fan(Vec<i64>),
    Records(u32),
    Flaky(u32),
    Told(i64),
    Sleeper(u64),
    Parent,
    Signed(bool),
    Around(i64),
    /// Cancelled while it runs.
    Cancelled,
}

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Case {
    number: u64,
    n: i64,
    kind: Kind,
}

impl Case {
    pub(super) fn draw(dice: &mut Dice, number: u64) -> Self {
        let n = i64::try_from(dice.below(1_000)).unwrap_or(0);
        let kind = match dice.below(10) {
            0 => Kind::Line,
            1 => Kind::Fan((0..dice.between(2, 6)).map(|i| n + i64::try_from(i).unwrap_or(0)).collect()),
            2 => Kind::Records(u32::try_from(dice.between(2, 6)).unwrap_or(2)),
            3 => Kind::Flaky(u32::try_from(dice.between(1, 3)).unwrap_or(1)),
            4 => Kind::Told(n + 7),
            5 => Kind::Sleeper(dice.between(200, 6_000)),
            6 => Kind::Parent,
            7 => Kind::Signed(dice.percent(70)),
            8 => Kind::Around(i64::try_from(dice.between(1, 4)).unwrap_or(1)),
            _ => Kind::Cancelled,
        };
        Self { number, n, kind }
    }

    /// Its idempotency key.
    pub(super) fn key(&self) -> String {
        format!("{}-{}", self.workflow(), self.number)
    }

    fn workflow(&self) -> &'static str {
        match self.kind {
            Kind::Line => "line",
            Kind::Fan(_) => "fan",
            Kind::Records(_) => "records",
            Kind::Flaky(_) => "flaky",
            Kind::Told(_) | Kind::Cancelled => "told",
            Kind::Sleeper(_) => "sleeper",
            Kind::Parent => "parent",
            Kind::Signed(_) => "signed",
            Kind::Around(_) => "around",
        }
    }

    fn input(&self) -> Value {
        let n = self.n;
        match &self.kind {
            Kind::Fan(items) => json!({ "items": items }),
            Kind::Records(records) => json!({ "n": n, "records": records }),
            Kind::Flaky(failures) => json!({ "n": n, "failures": failures }),
            Kind::Sleeper(span) => json!({ "n": n, "span": format!("{span}ms") }),
            Kind::Around(times) => json!({ "times": times }),
            _ => json!({ "n": n }),
        }
    }

    /// The number in its output.
    fn result(&self) -> i64 {
        let once = |n| answer(n, 0);
        match &self.kind {
            Kind::Line => once(once(once(self.n))),
            Kind::Fan(items) => items.iter().map(|n| once(*n)).sum(),
            Kind::Records(records) => answer(self.n, *records),
            Kind::Flaky(_) | Kind::Sleeper(_) => once(self.n),
            Kind::Told(payload) => once(self.n) + once(*payload),
            Kind::Parent => once(once(once(once(self.n)))),
            Kind::Signed(approve) => i64::from(*approve) * once(self.n),
            Kind::Around(times) => once(times - 1),
            Kind::Cancelled => 0,
        }
    }

    /// Plays it to its end; the error says which promise was broken.
    pub(super) async fn play(&self, caller: &Caller, mut dice: Dice) -> Result<(), String> {
        let said = |what: &'static str| move |error: Error| format!("{what}: {error}");
        let run = caller.start(self.workflow(), &self.key(), &self.input()).await.map_err(said("start"))?;
        let wait = Duration::from_millis(dice.below(4_000));
        match &self.kind {
            Kind::Told(payload) => {
                tokio::time::sleep(wait).await;
                caller.signal(&run, "go", &json!({ "n": payload })).await.map_err(said("signal"))?;
            }
            Kind::Signed(approve) => {
                let id = caller.approval(&run).await.map_err(said("approval"))?;
                tokio::time::sleep(wait).await;
                caller.decide(&id, *approve).await.map_err(said("decide"))?;
            }
            Kind::Cancelled => {
                tokio::time::sleep(wait).await;
                caller.cancel(&run).await.map_err(said("cancel"))?;
            }
            _ => {}
        }
        let ended = caller.ended(&run).await.map_err(said("end"))?;
        let status = if matches!(self.kind, Kind::Cancelled) { "cancelled" } else { "succeeded" };
        if ended.status != status {
            return Err(format!("run {run} ended as {} instead of {status}: {:?}", ended.status, ended.error));
        }
        let output: Value = serde_json::from_slice(&ended.output).unwrap_or_default();
        match status {
            "succeeded" if output != json!({ "n": self.result() }) => Err(format!("run {run} gave {output} instead of {}", self.result())),
            _ => Ok(()),
        }
    }
}
