//! Attempts, records, results.

use crate::driver::{Run, failure};
use serde_json::json;
use std::time::Duration;
use troupe_engine::{
    Command, Rejection, RunStatus, StepStatus, command::TaskTarget, definition::AgentTarget, event::Failure, run::WaitKind,
};

const ONE: &str = "{workflow: w, steps: {a: {agent: x, with: {n: '${ input.n }'}, timeout: 2m, retry: {attempts: 3, backoff: {initial: 1s, factor: 2, jitter: 0}, except: [NEVER]}}}}";

fn one() -> Run {
    Run::start_with(ONE, json!({"n": 1}))
}

#[test]
fn a_dispatch_says_all_there_is_to_know() {
    let run = one();
    let task = run.task("a");
    assert_eq!(task.target, TaskTarget::Agent(AgentTarget::Name("x".into())));
    assert_eq!((task.attempt, task.priority, task.timeout), (1, 5, Some(Duration::from_secs(120))));
    assert_eq!(task.input.to_value(), json!({"n": 1}));
    assert_eq!(run.commands, [Command::Dispatch(Box::new(task))]);
    assert_eq!(run.status(), RunStatus::Running);
    assert!(run.state.has_tasks());
}

#[test]
fn failures_are_retried_with_backoff_until_the_attempts_are_used() {
    let mut run = one();
    run.fail("a", failure("BUSY"));
    assert_eq!(run.changed(), ["step.retrying a"]);
    let task = run.task("a");
    assert_eq!((task.attempt, task.not_before), (2, Some(run.now + chrono::Duration::seconds(1))));
    assert_eq!(troupe_engine::waits(&run.definition, &run.state)[0].kind, WaitKind::Backoff);
    run.pass(1.0).fail("a", failure("BUSY"));
    assert_eq!(run.task("a").not_before, Some(run.now + chrono::Duration::seconds(2)));
    run.pass(2.0).fail("a", failure("BUSY"));
    assert_eq!((run.status(), run.state.dead_queue().as_deref()), (RunStatus::Failed, Some("agent/x")));
    assert_eq!(run.view("a").attempt, 3);
}

#[test]
fn permanent_and_excepted_failures_are_not_retried() {
    for failure in [failure("NEVER"), Failure::permanent("BUSY", "")] {
        let mut run = one();
        run.fail("a", failure);
        assert_eq!(run.status(), RunStatus::Failed);
    }
}

#[test]
fn a_failure_can_ask_for_a_longer_wait() {
    let mut run = one();
    run.fail("a", Failure { retry_after_ms: Some(30_000), ..failure("BUSY") });
    assert_eq!(run.task("a").not_before, Some(run.now + chrono::Duration::seconds(30)));
}

#[test]
fn results_of_old_attempts_and_deliveries_are_stale() {
    let mut run = one();
    run.fail("a", failure("BUSY"));
    let old = run.completed_by("a", 1, 9, json!(0));
    assert!(matches!(run.try_apply(old), Err(Rejection::Stale(_))));
    let record = |fence| troupe_engine::EventKind::TaskRecorded { step: "a".into(), attempt: 2, fence, index: 0, name: "r".into() };
    run.must(troupe_engine::Event::new(record(5)));
    let fenced = run.completed_by("a", 2, 4, json!(0));
    assert!(matches!(run.try_apply(fenced), Err(Rejection::Stale(_))));
    let newer = run.completed_by("a", 2, 6, json!(1));
    run.must(newer);
    assert_eq!(run.output_of("a"), json!(1));
}

#[test]
fn what_was_applied_is_a_duplicate_and_changes_nothing() {
    let mut run = Run::start("{workflow: w, steps: {a: {agent: x}, b: {agent: x, after: a}}}");
    let done = run.completed_by("a", 1, 2, json!(1));
    run.must(done.clone());
    assert_eq!(run.try_apply(done), Err(Rejection::Duplicate));
    let other = run.completed_by("a", 1, 3, json!(2));
    assert_eq!(run.try_apply(other), Err(Rejection::Duplicate));
    let older = run.completed_by("a", 1, 1, json!(2));
    assert!(matches!(run.try_apply(older), Err(Rejection::Stale(_))));
    let failed = run.failed_by("a", 1, 2, failure("LATE"));
    assert!(matches!(run.try_apply(failed), Err(Rejection::Stale(_))));
    assert_eq!(run.output_of("a"), json!(1));
    let last = run.completed_by("b", 1, 1, json!(1));
    run.must(last.clone());
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_eq!(run.try_apply(last), Err(Rejection::Duplicate));
}

#[test]
fn nonsense_is_stale() {
    let mut run = one();
    for (step, attempt) in [("a", 0), ("a", 2), ("b", 1), ("", 1), ("a.b", 1), ("a[0]", 1), ("a[", 1), ("a[99999999999]", 1)] {
        let event = run.completed_by(step, attempt, 1, json!(0));
        assert!(matches!(run.try_apply(event), Err(Rejection::Stale(_))), "{step} {attempt}");
    }
}

#[test]
fn records_come_in_order_and_travel_with_each_attempt() {
    let mut run = one();
    run.record("a", 0, json!("first")).unwrap();
    assert_eq!(run.changed(), ["step.recorded a"]);
    assert_eq!(run.record("a", 0, json!("again")), Err(Rejection::Duplicate));
    assert!(matches!(run.record("a", 2, json!("gap")), Err(Rejection::NotPossible(_))));
    run.record("a", 1, json!("second")).unwrap();
    run.fail("a", failure("BUSY"));
    let values: Vec<_> = run.task("a").records.iter().map(|record| record.value.to_value()).collect();
    assert_eq!(values, [json!("first"), json!("second")]);
    run.record("a", 2, json!("third")).unwrap();
    run.complete("a", json!(null));
    assert!(!run.stored().contains("third"), "records go with the task");
}

#[test]
fn records_are_bounded() {
    let mut run = one();
    run.limits.max_records = 1;
    run.limits.max_payload_bytes = 10;
    assert!(matches!(run.record("a", 0, json!("far too long")), Err(Rejection::Limit(text)) if text.contains("max_payload_bytes")));
    run.record("a", 0, json!(1)).unwrap();
    assert!(matches!(run.record("a", 1, json!(1)), Err(Rejection::Limit(text)) if text.contains("max_records")));
}

#[test]
fn an_output_that_misses_the_schema_is_tried_again_with_the_fault() {
    let mut run = Run::start("{workflow: w, steps: {a: {agent: x, schema: {type: object, required: ['n']}, retry: {attempts: 2}}}}");
    run.complete("a", json!({"m": 1}));
    let task = run.task("a");
    assert_eq!(task.attempt, 2);
    assert!(task.feedback.unwrap().contains("\"n\" is a required property"));
    run.complete("a", json!([]));
    assert_eq!((run.status(), run.failure_code()), (RunStatus::Failed, "OUTPUT_INVALID".into()));
    let mut run = Run::start("{workflow: w, steps: {a: {agent: x, schema: {type: object, required: ['n']}}}}");
    run.complete("a", json!({"n": 1}));
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn payloads_are_bounded() {
    let mut run = one();
    run.limits.max_payload_bytes = 10;
    run.complete("a", json!("more than ten bytes"));
    assert_eq!((run.status(), run.failure_code()), (RunStatus::Failed, "PAYLOAD_TOO_LARGE".into()));
}

#[test]
fn tools_are_tasks_too() {
    let mut run = Run::start("{workflow: w, steps: {a: {tool: http.get, priority: 1, with: {url: '${ env.URL }'}}}}");
    let task = run.task("a");
    assert_eq!((task.target, task.priority), (TaskTarget::Tool("http.get".into()), 1));
    assert_eq!(task.input.to_value(), json!({"url": "http://x"}));
    run.fail("a", Failure::permanent("GONE", ""));
    assert_eq!(run.state.dead_queue().as_deref(), Some("tool/http.get"));
}

#[test]
fn the_step_shows_who_did_it() {
    let mut run = one();
    run.complete("a", json!(null));
    let view = run.view("a");
    assert_eq!(
        (view.agent.as_str(), view.choice.as_str(), view.kind, view.status),
        ("someone", "only one", "agent", StepStatus::Succeeded)
    );
    assert_eq!((view.started_at, view.ended_at), (Some(run.now), Some(run.now)));
}

#[test]
fn long_messages_of_workers_are_cut() {
    let mut run = one();
    run.fail("a", Failure::permanent("X".repeat(1_000), "ä".repeat(1 << 20)));
    let failure = run.state.failure().unwrap();
    assert!(failure.message.len() < 9_000 && failure.code.len() < 300);
}
