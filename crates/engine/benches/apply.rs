//! How long one event takes, and how the cost grows.

#![expect(clippy::unwrap_used, reason = "a benchmark may stop at the first surprise")]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::{collections::BTreeMap, hint::black_box};
use troupe_domain::{Json, Namespace, RunId};
use troupe_engine::{Command, Definition, Event, EventKind, Limits, RunState, Time, Transition, apply, event::Started, language};

const FIVE: &str = "{workflow: w, steps: {a: {agent: x, with: {q: '${ input.q }'}, save: {a: '${ output }'}}, b: {agent: x, after: a}, c: {agent: x, after: b}, d: {agent: x, after: c}, e: {agent: x, after: d}}}";
const FAN_OUT: &str = "{workflow: w, state: {found: {merge: append}}, steps: {a: {for_each: '${ range(100) }', agent: x, with: {n: '${ item }'}, save: {found: '${ output }'}}}}";
const WIDE: &str = "{workflow: w, state: {found: {merge: append}}, steps: {a: {for_each: '${ range(10000) }', agent: x, with: {n: '${ item }'}, save: {found: '${ output }'}}}}";
const LOOP: &str = "{workflow: w, state: {n: {default: 0}}, steps: {a: {loop: {while: '${ loop.index < 1000 }', max: 1000}, agent: x, save: {n: '${ output }'}}}}";
const INSTANT: &str =
    "{workflow: w, state: {n: {default: 0}}, steps: {a: {loop: {while: '${ state.n < 1000 }', max: 1000}, set: {n: '${ state.n + 1 }'}}}}";

fn definition(text: &str) -> Definition {
    language::parse(text, &Limits::default()).unwrap()
}

fn start(definition: &Definition) -> (RunState, Transition) {
    let started = Started {
        namespace: Namespace::parse("").unwrap(),
        run: RunId(uuid::Uuid::from_u128(7)),
        priority: 5,
        labels: BTreeMap::new(),
        deadline: None,
        parent: None,
        env: BTreeMap::new(),
        limits: None,
        traceparent: String::new(),
    };
    let event = Event::with(EventKind::Started(Box::new(started)), Json::parse(br#"{"q":"why"}"#, "input").unwrap());
    let mut state = RunState::new();
    let transition = apply(definition, &mut state, &event, Time::UNIX_EPOCH, &Limits::default()).unwrap();
    (state, transition)
}

fn completed(command: &Command) -> Option<Event> {
    let Command::Dispatch(dispatch) = command else { return None };
    let kind = EventKind::TaskCompleted {
        step: dispatch.step.clone(),
        attempt: dispatch.attempt,
        fence: 1,
        agent: "x".into(),
        worker: "w".into(),
        choice: String::new(),
    };
    Some(Event::with(kind, Json::parse(br#"{"text":"an answer of some length","score":7}"#, "output").unwrap()))
}

/// Answers every task until the run ends.
fn drive(definition: &Definition, state: &mut RunState, first: Transition) {
    let limits = Limits::default();
    let mut tasks: std::collections::VecDeque<Command> = first.commands.into();
    while let Some(command) = tasks.pop_front() {
        if let Some(event) = completed(&command) {
            tasks.extend(apply(definition, state, &event, Time::UNIX_EPOCH, &limits).unwrap().commands);
        }
    }
    assert!(state.status.is_ended());
}

fn whole_runs(criterion: &mut Criterion) {
    for (name, text) in [
        ("run of 5 steps", FIVE),
        ("fan-out of 100", FAN_OUT),
        ("fan-out of 10000", WIDE),
        ("loop of 1000 tasks", LOOP),
        ("loop of 1000 sets", INSTANT),
    ] {
        let definition = definition(text);
        criterion.bench_function(name, |bencher| bencher.iter(|| whole_run(&definition)));
    }
}

fn whole_run(definition: &Definition) {
    let (mut state, first) = start(definition);
    drive(definition, &mut state, first);
    black_box(state);
}

fn one_event(criterion: &mut Criterion) {
    for (name, text) in [("one result of 5 steps", FIVE), ("one result of 10000", WIDE)] {
        let definition = definition(text);
        let (state, first) = start(&definition);
        let event = completed(&first.commands[0]).unwrap();
        let fresh = || state.clone();
        criterion.bench_function(name, |bencher| {
            let limits = Limits::default();
            bencher.iter_batched_ref(
                fresh,
                |state| apply(&definition, state, &event, Time::UNIX_EPOCH, &limits).unwrap(),
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = one_event, whole_runs
}
criterion_main!(benches);
