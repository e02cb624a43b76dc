//! Channels, scopes, outputs.

use crate::driver::{Run, started};
use serde_json::json;
use troupe_domain::Json;
use troupe_engine::{Event, EventKind, Limits, Rejection, RunState, RunStatus, apply, event::Started};

#[test]
fn channels_begin_with_their_defaults() {
    let run = Run::start(
        "{workflow: w, state: {a: {}, b: {default: 1}, c: {merge: append}, d: {merge: sum}, e: {merge: merge}, f: {merge: max}}, steps: {x: {agent: x}}}",
    );
    assert_eq!(run.state.channels(), json!({"b": 1, "c": [], "d": 0, "e": {}}));
}

#[test]
fn set_and_save_write_and_merge() {
    let mut run = Run::start(
        "{workflow: w, state: {log: {merge: append}, n: {merge: sum}}, steps: {a: {set: {log: first, n: 2, plain: '${ input }'}}, b: {after: a, agent: x, save: {log: '${ output.more }', n: '${ output.n }'}}}}",
    );
    assert_eq!(run.output_of("a"), json!({"log": "first", "n": 2, "plain": {}}));
    run.complete("b", json!({"more": ["second", "third"], "n": 3}));
    assert_eq!(run.state.channels(), json!({"log": ["first", "second", "third"], "n": 5, "plain": {}}));
    assert_eq!(run.output(), run.state.channels(), "without an output, the whole state is it");
}

#[test]
fn all_writes_of_a_step_happen_or_none() {
    let mut run = Run::start(
        "{workflow: w, state: {log: {merge: append}, n: {merge: sum}}, steps: {b: {agent: x, on_error: continue, save: {log: x, n: '${ output }'}}}}",
    );
    run.complete("b", json!("no number"));
    assert_eq!((run.code_of("b"), run.state.channels()), ("MERGE_FAILED".into(), json!({"log": [], "n": 0})));
    let mut run = Run::start_with(
        "{workflow: w, state: {log: {merge: append}, n: {merge: sum}}, steps: {b: {for_each: '${ input }', agent: x, on_error: continue, save: {log: x, n: '${ output }'}}}}",
        json!([1, 2]),
    );
    run.complete("b[0]", json!(1)).complete("b[1]", json!("no number"));
    assert_eq!((run.code_of("b"), run.state.channels()), ("MERGE_FAILED".into(), json!({"log": [], "n": 0})));
}

#[test]
fn the_state_is_bounded() {
    let mut run = Run::start("{workflow: w, state: {log: {merge: append}}, steps: {b: {agent: x, save: {log: '${ output }'}}}}");
    run.limits.max_state_bytes = 100;
    run.complete("b", json!("x".repeat(200)));
    assert_eq!(run.failure_code(), "STATE_TOO_LARGE");
    assert!(run.state.failure().unwrap().message.contains("max_state_bytes"));
}

#[test]
fn a_channel_cannot_nest_in_itself_for_ever() {
    let run = Run::start(
        "{workflow: w, state: {n: {default: 0}}, steps: {a: {loop: {while: '${ true }', max: 200}, set: {n: '${ [state.n] }'}}}}",
    );
    assert_eq!(run.status(), RunStatus::Failed);
    assert!(run.state.failure().unwrap().message.contains("deep"), "{:?}", run.state.failure());
}

#[test]
fn expressions_see_the_run_and_the_step() {
    let run = Run::start_with(
        "{workflow: w, steps: {g: {steps: {a: {agent: x, with: {run: '${ run.id }', try: '${ run.attempt }', label: '${ run.labels.team }', step: '${ step.id }', name: '${ step.name }', now: '${ now }', text: 'n=${ input.n }!'}}}}}}",
        json!({"n": 3}),
    );
    assert_eq!(
        run.task("g.a").input.to_value(),
        json!({"run": crate::driver::run_id().to_string(), "try": 1, "label": "blue", "step": "g.a", "name": "a", "now": "1970-01-01T00:00:00Z", "text": "n=3!"})
    );
}

#[test]
fn steps_of_the_groups_around_are_seen() {
    let mut run = Run::start(
        "{workflow: w, steps: {a: {agent: x}, g: {after: a, steps: {b: {agent: x, with: {a: '${ steps.a.output }', c: '${ steps.c.status }'}}, c: {agent: x, after: b}}}}}",
    );
    run.complete("a", json!([1]));
    assert_eq!(run.task("g.b").input.to_value(), json!({"a": [1], "c": "pending"}));
}

#[test]
fn the_output_is_computed_from_what_there_is() {
    let mut run = Run::start(
        "{workflow: w, steps: {a: {agent: x, save: {n: '${ output }'}}}, output: {n: '${ state.n }', a: '${ steps.a.output }', i: '${ input }'}}",
    );
    run.complete("a", json!(2));
    assert_eq!(run.output(), json!({"n": 2, "a": 2, "i": {}}));
    let mut run = Run::start("{workflow: w, steps: {a: {agent: x}}, output: {n: '${ state.n }'}}");
    run.complete("a", json!(2));
    assert_eq!((run.status(), run.failure_code()), (RunStatus::Failed, "EXPRESSION_FAILED".into()));
}

#[test]
fn a_missing_channel_can_be_asked_for() {
    let run = Run::start(
        "{workflow: w, state: {other: {default: 1}}, steps: {a: {agent: x, when: '${ !has(state.score) || state.score < 8 }'}}}",
    );
    assert_eq!(run.dispatched(), ["a"]);
    let run = Run::start("{workflow: w, state: {other: {default: 1}}, steps: {a: {agent: x, when: '${ state.score < 8 }'}}}");
    assert!(run.state.failure().unwrap().message.contains("other"), "{:?}", run.state.failure());
}

#[test]
fn a_run_keeps_the_limits_of_its_start() {
    let yaml = "{workflow: w, state: {log: {merge: append}}, steps: {a: {agent: x, save: {log: '${ output }'}}, b: {after: a, agent: x}}}";
    let mut run = Run::new(yaml);
    let limits = Some(Box::new(Limits { max_records: 2, ..Limits::default() }));
    run.must(Event::with(EventKind::Started(Box::new(Started { limits, ..started() })), Json::object()));
    run.record("a", 0, json!("x".repeat(100))).unwrap();
    run.record("a", 1, json!(1)).unwrap();
    assert!(matches!(run.record("a", 2, json!(1)), Err(Rejection::Limit(_))));
    run.complete("a", json!("y".repeat(200)));
    // The settings have changed since: every event means what it meant.
    let small = Limits { max_payload_bytes: 10, max_records: 0, max_state_bytes: 10, max_steps_per_event: 1, ..Limits::default() };
    let mut state = RunState::new();
    for (event, at) in &run.journal {
        apply(&run.definition, &mut state, event, *at, &small).unwrap();
    }
    assert_eq!(serde_json::to_string(&state).unwrap(), run.stored());
}

#[test]
fn reasons_are_kept_in_their_beginnings() {
    let long = "é".repeat(100_000);
    let run = Run::start_with("{workflow: w, steps: {a: {fail: {reason: '${ input }', code: '${ input }'}}}}", json!(long));
    let failure = run.state.failure().unwrap();
    assert!(failure.message.len() < 10_000 && failure.message.starts_with('é') && failure.code.len() < 300, "{}", failure.message.len());
    let run = Run::start_with("{workflow: w, steps: {a: {set: {n: '${ input }'}, schema: {type: integer}}}}", json!(long));
    assert!(run.state.failure().unwrap().message.len() < 10_000);
}
