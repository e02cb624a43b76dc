//! Child runs.

use crate::driver::{Run, failure, json_of};
use serde_json::{Value, json};
use troupe_domain::RunId;
use troupe_engine::{Command, Event, EventKind, Rejection, RunStatus, StepStatus, command::StartChild, event::ChildOutcome};

const SUB: &str = "{workflow: w, steps: {sub: {workflow: other, with: {n: 1}, retry: {attempts: 2, backoff: {initial: 10s, jitter: 0}}}}}";

fn child(run: &Run) -> StartChild {
    let found = troupe_engine::pending(&run.definition, &run.state).into_iter().find_map(|command| match command {
        Command::StartChild(start) => Some(*start),
        _ => None,
    });
    found.expect("a child is pending")
}

fn ended(child: RunId, outcome: ChildOutcome, output: Value) -> Event {
    Event::with(EventKind::ChildEnded { step: "sub".into(), child, outcome }, json_of(output))
}

#[test]
fn a_child_runs_and_its_output_is_the_steps() {
    let mut run = Run::start(SUB);
    let start = child(&run);
    assert_eq!((start.workflow.as_str(), start.depth, start.priority, start.input.to_value()), ("other", 1, 5, json!({"n": 1})));
    assert_eq!(run.status(), RunStatus::Running);
    assert!(!run.state.has_tasks());
    run.must(ended(start.child, ChildOutcome::Succeeded, json!("out")));
    assert_eq!((run.status(), run.output_of("sub")), (RunStatus::Succeeded, json!("out")));
    assert_eq!(run.try_apply(ended(start.child, ChildOutcome::Succeeded, json!("out"))), Err(Rejection::Duplicate));
}

#[test]
fn a_failed_child_is_tried_again_under_another_id() {
    let mut run = Run::start(SUB);
    let first = child(&run).child;
    run.must(ended(first, ChildOutcome::Failed(failure("BUSY")), json!(null)));
    assert_eq!((run.status(), run.step("sub")), (RunStatus::Waiting, StepStatus::Retrying));
    assert_eq!(run.state.wake_at(), Some(run.now + chrono::Duration::seconds(10)));
    assert!(matches!(run.try_apply(ended(first, ChildOutcome::Succeeded, json!(null))), Err(Rejection::Stale(_))));
    run.tick_after(10.0);
    let second = child(&run).child;
    assert_ne!(first, second);
    run.must(ended(second, ChildOutcome::Failed(failure("BUSY")), json!(null)));
    assert_eq!((run.status(), run.failure_code()), (RunStatus::Failed, "BUSY".into()));
}

#[test]
fn a_cancelled_or_refused_child_fails_the_step() {
    let mut run = Run::start(SUB);
    let id = child(&run).child;
    run.must(ended(id, ChildOutcome::Cancelled, json!(null)));
    assert_eq!(run.failure_code(), "CANCELLED");
    let mut run = Run::start(SUB);
    let refusal = troupe_engine::event::Failure::permanent("NOT_FOUND", "no workflow 'other'");
    run.must(Event::new(EventKind::ChildRefused { step: "sub".into(), child: id, failure: refusal }));
    assert_eq!(run.failure_code(), "NOT_FOUND");
}

#[test]
fn children_nest_only_so_deep() {
    let run = Run::start_child(SUB, 8);
    assert_eq!((run.status(), run.failure_code()), (RunStatus::Failed, "RESOURCE_EXHAUSTED".into()));
    assert!(run.state.failure().unwrap().message.contains("max_child_depth"));
}

#[test]
fn a_cancelled_run_cancels_its_children() {
    let mut run = Run::start(SUB);
    let id = child(&run).child;
    run.must(Event::new(EventKind::Cancelled { reason: "no".into() }));
    assert!(matches!(&run.commands[0], Command::CancelChild { child, .. } if *child == id));
}

#[test]
fn a_child_tells_its_parent_how_it_ended() {
    let yaml = "{workflow: w, steps: {a: {agent: x, retry: {attempts: 1}}}, output: '${ steps.a.output }'}";
    let told = |run: &Run| {
        let Some(Command::NotifyParent { outcome, output, parent }) = run.commands.last() else { panic!("{:?}", run.commands) };
        assert_eq!(parent.step, "sub");
        assert_eq!(troupe_engine::pending(&run.definition, &run.state), [run.commands.last().unwrap().clone()]);
        (outcome.clone(), output.to_value())
    };
    let mut run = Run::start_child(yaml, 1);
    run.complete("a", json!(5));
    assert_eq!(told(&run), (ChildOutcome::Succeeded, json!(5)));
    let mut run = Run::start_child(yaml, 1);
    run.fail("a", failure("BROKEN"));
    assert_eq!(told(&run), (ChildOutcome::Failed(failure("BROKEN")), json!(null)));
    let mut run = Run::start_child(yaml, 1);
    run.must(Event::new(EventKind::Cancelled { reason: String::new() }));
    assert_eq!(told(&run).0, ChildOutcome::Cancelled);
}
