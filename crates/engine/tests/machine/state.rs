//! Channels, scopes, outputs.

use crate::driver::Run;
use serde_json::json;
use troupe_engine::RunStatus;

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
