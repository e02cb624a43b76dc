//! Time and signals.

use crate::driver::{Run, failure, started};
use serde_json::json;
use troupe_engine::{Command, Event, EventKind, Rejection, RunStatus, StepStatus, event::Started, run::WaitKind};

#[test]
fn a_sleep_ends_in_its_time() {
    for span in ["30s", "${ input.n }", "${ duration('30s') }"] {
        let mut run =
            Run::start_with(&format!("{{workflow: w, steps: {{a: {{sleep: \"{span}\"}}, b: {{agent: x, after: a}}}}}}"), json!({"n": 30}));
        assert_eq!((run.status(), run.step("a")), (RunStatus::Waiting, StepStatus::Waiting));
        assert_eq!(run.state.wake_at(), Some(run.now + chrono::Duration::seconds(30)), "{span}");
        assert_eq!(troupe_engine::waits(&run.definition, &run.state)[0].kind, WaitKind::Timer);
        run.pass(29.0);
        assert_eq!(run.try_apply(Event::new(EventKind::Tick)), Err(Rejection::Already));
        run.tick_after(1.0);
        assert_eq!((run.dispatched(), run.state.wake_at()), (vec!["b".to_owned()], None));
    }
}

#[test]
fn until_waits_for_a_time_or_not_at_all() {
    let mut run = Run::start("{workflow: w, steps: {a: {until: '1970-01-01T00:01:00Z'}, b: {agent: x, after: a}}}");
    run.tick_after(60.0);
    assert_eq!(run.dispatched(), ["b"]);
    let run = Run::start("{workflow: w, steps: {a: {until: '1969-01-01T00:00:00Z'}, b: {agent: x, after: a}}}");
    assert_eq!(run.dispatched(), ["b"]);
    let run = Run::start_with("{workflow: w, steps: {a: {until: '${ input.when }'}}}", json!({"when": "soon"}));
    assert_eq!(run.failure_code(), "EXPRESSION_FAILED");
}

#[test]
fn one_tick_does_everything_due() {
    let mut run = Run::start("{workflow: w, steps: {a: {sleep: 1s}, b: {sleep: 2s, after: a}, c: {sleep: 5s}}}");
    run.tick_after(3.0);
    assert_eq!((run.step("a"), run.step("b"), run.step("c")), (StepStatus::Succeeded, StepStatus::Waiting, StepStatus::Waiting));
    run.tick_after(2.0);
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn a_signal_wakes_its_step() {
    let mut run = Run::start("{workflow: w, steps: {a: {signal: go, save: {got: '${ output.v }'}}}}");
    assert_eq!(troupe_engine::waits(&run.definition, &run.state)[0].reference, "go");
    run.signal("other", "1", json!(null)).unwrap();
    assert_eq!(run.status(), RunStatus::Waiting);
    run.signal("go", "2", json!({"v": 7})).unwrap();
    assert_eq!((run.status(), run.state.channels()), (RunStatus::Succeeded, json!({"got": 7})));
    assert_eq!(run.signal("go", "2", json!(null)), Err(Rejection::Duplicate));
    assert_eq!(run.signal("go", "3", json!(null)), Err(Rejection::Ended));
}

#[test]
fn a_signal_that_comes_early_waits() {
    let mut run = Run::start("{workflow: w, steps: {a: {agent: x}, b: {signal: go, after: a}, c: {signal: go, after: b}}}");
    run.signal("go", "1", json!(1)).unwrap();
    run.signal("go", "2", json!(2)).unwrap();
    assert_eq!(run.signal("go", "1", json!(1)), Err(Rejection::Duplicate));
    run.complete("a", json!(null));
    assert_eq!((run.status(), run.output_of("b"), run.output_of("c")), (RunStatus::Succeeded, json!(1), json!(2)));
}

#[test]
fn waiting_signals_are_bounded() {
    let mut run = Run::start("{workflow: w, steps: {a: {agent: x}}}");
    run.limits.max_waiting_signals = 2;
    run.signal("go", "", json!(1)).unwrap();
    run.signal("go", "", json!(1)).unwrap();
    assert!(matches!(run.signal("go", "", json!(1)), Err(Rejection::Limit(text)) if text.contains("max_waiting_signals")));
    run.limits.max_state_bytes = 5;
    assert!(matches!(run.signal("new", "", json!("abcdef")), Err(Rejection::Limit(text)) if text.contains("max_state_bytes")));
}

#[test]
fn a_signal_that_does_not_come_fails_its_step() {
    let mut run = Run::start("{workflow: w, steps: {a: {signal: {name: go, timeout: 1m}, on_error: h}, h: {agent: x}}}");
    run.tick_after(60.0);
    assert_eq!((run.code_of("a"), run.dispatched()), ("SIGNAL_TIMEOUT".into(), vec!["h".to_owned()]));
    run.signal("go", "1", json!(1)).unwrap();
    assert_eq!(run.step("a"), StepStatus::Failed);
}

#[test]
fn a_step_has_its_deadline_over_all_attempts() {
    let mut run = Run::start("{workflow: w, steps: {a: {agent: x, deadline: 10s, on_error: continue}, b: {agent: x, after: a}}}");
    assert_eq!(run.task("a").deadline, Some(run.now + chrono::Duration::seconds(10)));
    run.pass(5.0).fail("a", failure("BUSY"));
    run.tick_after(5.0);
    assert_eq!(run.code_of("a"), "DEADLINE_EXCEEDED");
    assert!(matches!(&run.commands[0], Command::CancelTask { step, .. } if step == "a"));
    assert_eq!(run.dispatched(), ["b"]);
}

#[test]
fn a_step_in_time_forgets_its_deadline() {
    let mut run = Run::start("{workflow: w, steps: {g: {deadline: 10s, steps: {a: {agent: x}}}, b: {agent: x}}}");
    assert_eq!(run.task("g.a").deadline, Some(run.now + chrono::Duration::seconds(10)));
    run.complete("g.a", json!(null));
    assert_eq!(run.state.wake_at(), None);
}

#[test]
fn a_run_has_its_deadline() {
    let mut run = Run::new("{workflow: w, steps: {a: {agent: x}, g: {approve: {title: t}}}}");
    let deadline = Some(run.now + chrono::Duration::seconds(9));
    run.must(Event::new(EventKind::Started(Box::new(Started { deadline, ..started() }))));
    assert_eq!((run.state.wake_at(), run.task("a").deadline), (deadline, deadline));
    run.tick_after(9.0);
    assert_eq!((run.status(), run.failure_code()), (RunStatus::Failed, "DEADLINE_EXCEEDED".into()));
    assert_eq!(run.commands.len(), 2);
}
