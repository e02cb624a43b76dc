//! Cancel, pause, resume, retry, fork.

use crate::driver::{Run, failure, json_of};
use serde_json::json;
use troupe_domain::RunId;
use troupe_engine::{Command, Event, EventKind, Rejection, RunStatus, StepStatus, event::DecisionStatus, fork, pending, run::WaitKind};

fn cancel() -> Event {
    Event::new(EventKind::Cancelled { reason: "enough".into() })
}

fn pause() -> Event {
    Event::new(EventKind::Paused { reason: "lunch".into() })
}

fn resume() -> Event {
    Event::new(EventKind::Resumed)
}

fn retry() -> Event {
    Event::new(EventKind::Retried)
}

#[test]
fn a_retry_that_is_repeated_happens_once() {
    let run = &mut Run::start("{workflow: w, steps: {a: {agent: x}}}");
    run.try_apply(cancel()).unwrap();
    let retry = |retries| Event::new(EventKind::RetriedAfter { retries });
    run.try_apply(retry(0)).unwrap();
    assert_eq!(run.try_apply(retry(0)).unwrap_err(), Rejection::Already);
    run.try_apply(cancel()).unwrap();
    assert_eq!(run.try_apply(retry(0)).unwrap_err(), Rejection::Already, "although it could be retried");
    run.try_apply(retry(1)).unwrap();
    assert_eq!(run.state.retries(), 2);
}

#[test]
fn before_its_start_a_run_takes_nothing() {
    let mut run = Run::new("{workflow: w, steps: {a: {agent: x}}}");
    for event in [cancel(), pause(), resume(), retry(), Event::new(EventKind::Tick)] {
        assert!(matches!(run.try_apply(event), Err(Rejection::NotPossible(_))));
    }
    let run = &mut Run::start("{workflow: w, steps: {a: {agent: x}}}");
    let again = Event::new(EventKind::Started(Box::new(crate::driver::started())));
    assert_eq!(run.try_apply(again), Err(Rejection::Duplicate));
}

#[test]
fn a_cancelled_run_takes_everything_back() {
    let mut run =
        Run::start("{workflow: w, steps: {a: {agent: x}, b: {workflow: other}, c: {approve: {title: t}}, d: {sleep: 1h}, e: {signal: s}}}");
    run.must(cancel());
    assert_eq!((run.status(), run.state.wake_at(), run.state.has_tasks()), (RunStatus::Cancelled, None, false));
    assert!(matches!(&run.commands[..], [Command::CancelTask { .. }, Command::CancelChild { .. }, Command::WithdrawApproval { .. }]));
    assert!(pending(&run.definition, &run.state).is_empty());
    assert_eq!(run.try_apply(cancel()), Err(Rejection::Already));
    assert_eq!(run.try_apply(pause()), Err(Rejection::Ended));
}

#[test]
fn a_paused_run_takes_results_and_starts_nothing() {
    let mut run = Run::start("{workflow: w, steps: {a: {agent: x}, b: {agent: x, after: a}, c: {agent: x, retry: {attempts: 2}}}}");
    run.must(pause());
    assert_eq!((run.status(), run.changed()), (RunStatus::Paused, vec!["run.paused".to_owned()]));
    assert_eq!(run.try_apply(pause()), Err(Rejection::Already));
    run.complete("a", json!(1));
    assert!(run.commands.is_empty());
    assert_eq!((run.step("a"), run.step("b"), run.status()), (StepStatus::Succeeded, StepStatus::Pending, RunStatus::Paused));
    run.fail("c", failure("BUSY"));
    assert!(run.commands.is_empty() && pending(&run.definition, &run.state).is_empty());
    assert_eq!((run.step("c"), run.state.has_tasks()), (StepStatus::Retrying, false));
    assert_eq!(troupe_engine::waits(&run.definition, &run.state)[0].kind, WaitKind::Pause);
    run.must(resume());
    assert_eq!((run.dispatched(), run.status()), (vec!["b".to_owned(), "c".to_owned()], RunStatus::Running));
    assert_eq!(run.task("c").attempt, 2);
    assert_eq!(run.try_apply(resume()), Err(Rejection::Already));
}

#[test]
fn a_paused_run_has_no_timers_and_catches_up() {
    let mut run = Run::start("{workflow: w, steps: {a: {sleep: 10s}, b: {agent: x, after: a}}}");
    run.must(pause());
    assert_eq!(run.state.wake_at(), None);
    run.pass(20.0);
    assert_eq!(run.try_apply(Event::new(EventKind::Tick)), Err(Rejection::Already));
    run.must(resume());
    assert!(run.state.wake_at().unwrap() < run.now);
    run.must(Event::new(EventKind::Tick));
    assert_eq!(run.dispatched(), ["b"]);
}

#[test]
fn a_paused_run_ends_only_when_it_is_resumed() {
    let mut run = Run::start("{workflow: w, steps: {a: {agent: x, retry: {attempts: 1}}}}");
    run.must(pause()).complete("a", json!(1));
    assert_eq!(run.status(), RunStatus::Paused);
    run.must(resume());
    assert_eq!((run.status(), run.changed()), (RunStatus::Succeeded, vec!["run.succeeded".to_owned()]));
    let mut run = Run::start("{workflow: w, steps: {a: {agent: x, retry: {attempts: 1}}}}");
    run.must(pause()).fail("a", failure("BROKEN"));
    assert_eq!(run.status(), RunStatus::Paused);
    run.must(cancel());
    assert_eq!(run.status(), RunStatus::Cancelled);
}

#[test]
fn items_and_iterations_wait_for_the_resume() {
    let mut run = Run::start_with(
        "{workflow: w, steps: {a: {for_each: '${ input }', concurrency: 1, agent: x}, b: {loop: {while: '${ true }', max: 2}, agent: x}}}",
        json!([1, 2]),
    );
    run.must(pause()).complete("a[0]", json!(1)).complete("b[0]", json!(1));
    assert!(pending(&run.definition, &run.state).is_empty());
    run.must(resume());
    assert_eq!(run.dispatched(), ["a[1]", "b[1]"]);
}

#[test]
fn a_retried_run_begins_again_where_it_failed() {
    let mut run = Run::start(
        "{workflow: w, steps: {a: {agent: x}, b: {agent: x, after: a, retry: {attempts: 2, backoff: {initial: 1s}}}, c: {agent: x}, d: {agent: x, after: b}}}",
    );
    run.complete("a", json!(1));
    run.record("b", 0, json!("kept")).unwrap();
    run.fail("b", failure("BROKEN")).pass(2.0).fail("b", failure("BROKEN"));
    assert_eq!(run.status(), RunStatus::Failed);
    let old = run.completed_by("b", 2, 1, json!(0));
    run.must(retry());
    assert_eq!((run.status(), run.dispatched()), (RunStatus::Running, vec!["b".to_owned(), "c".to_owned()]));
    assert_eq!((run.task("b").attempt, run.task("c").attempt, run.state.dead_queue()), (3, 2, None));
    assert_eq!(run.task("b").records[0].value.to_value(), json!("kept"));
    assert!(matches!(run.try_apply(old), Err(Rejection::Stale(_))));
    run.fail("b", failure("BROKEN"));
    assert_eq!(run.task("b").attempt, 4, "the policy counts anew");
    run.complete("b", json!(2)).complete("c", json!(3)).complete("d", json!(4));
    assert_eq!((run.status(), run.output_of("a")), (RunStatus::Succeeded, json!(1)));
    assert!(matches!(run.try_apply(retry()), Err(Rejection::NotPossible(_))));
}

#[test]
fn a_retried_run_keeps_finished_items_and_iterations() {
    let mut run = Run::start_with(
        "{workflow: w, steps: {a: {for_each: '${ input }', concurrency: 2, agent: x, retry: {attempts: 1}}, b: {loop: {while: '${ true }', max: 3}, steps: {c: {agent: x}, d: {agent: x, after: c}}}}}",
        json!([1, 2, 3]),
    );
    run.complete("b[0].c", json!(0)).complete("b[0].d", json!(0)).complete("b[1].c", json!(1));
    run.complete("a[0]", json!("zero")).fail("a[1]", failure("BROKEN"));
    assert_eq!(run.status(), RunStatus::Failed);
    run.must(retry());
    assert_eq!(run.tasks(), ["a[1]", "a[2]", "b[1].d"]);
    run.complete("b[1].d", json!(1)).complete("b[2].c", json!(2)).complete("b[2].d", json!(2));
    run.complete("a[2]", json!("two")).complete("a[1]", json!("one"));
    assert_eq!((run.status(), run.output_of("a")), (RunStatus::Succeeded, json!(["zero", "one", "two"])));
}

#[test]
fn a_retried_approval_is_asked_again_under_another_id() {
    let mut run = Run::start("{workflow: w, steps: {a: {approve: {title: t}}}}");
    let first = run.approval("a");
    run.decide("a", DecisionStatus::Rejected, json!(null)).unwrap();
    run.must(retry());
    assert_ne!(run.approval("a"), first);
    assert_eq!(run.try_apply(Run::decision(&first, DecisionStatus::Approved, json!(null))), Err(Rejection::Duplicate));
    run.decide("a", DecisionStatus::Approved, json!(null)).unwrap();
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[test]
fn a_run_that_failed_at_its_end_can_be_retried() {
    let mut run = Run::start("{workflow: w, steps: {a: {agent: x}}, output: {n: '${ state.n }'}}");
    run.complete("a", json!(1));
    assert_eq!(run.failure_code(), "EXPRESSION_FAILED");
    run.must(retry());
    assert_eq!((run.status(), run.failure_code()), (RunStatus::Failed, "EXPRESSION_FAILED".into()));
    let mut run = Run::start("{workflow: w, steps: {g: {steps: {a: {agent: x}}, save: {n: '${ output.a.b }'}}}}");
    run.complete("g.a", json!(1));
    assert_eq!(run.status(), RunStatus::Failed);
    run.must(retry());
    assert_eq!(run.status(), RunStatus::Failed, "the same group ends the same way");
}

fn forked(run: &Run, changes: serde_json::Value) -> (Run, Event) {
    let mut copy = Run::new("{workflow: w, steps: {a: {agent: x}}}");
    copy.definition = crate::driver::definition(YAML);
    copy.state = fork(&run.state, RunId(uuid::Uuid::from_u128(99)), "");
    copy.now = run.now;
    (copy, Event::with(EventKind::Forked { from: crate::driver::run_id(), checkpoint: 3 }, json_of(changes)))
}

const YAML: &str = "{workflow: w, state: {n: {default: 1}}, steps: {a: {agent: x}, b: {agent: x, after: a, with: {n: '${ state.n }'}}, c: {approve: {title: t}}, d: {workflow: other}}}";

#[test]
fn a_fork_goes_on_from_there_under_its_own_ids() {
    let run = Run::start(YAML);
    let (mut copy, event) = forked(&run, json!({"n": 2}));
    copy.must(event.clone());
    assert_eq!(copy.commands, pending(&copy.definition, &copy.state));
    assert_eq!((copy.commands.len(), copy.changed()[0].as_str()), (3, "run.forked"));
    assert_ne!(copy.approval("c"), run.approval("c"));
    let (Command::StartChild(a), Command::StartChild(b)) = (&copy.commands[2], &run.commands[2]) else { panic!() };
    assert_ne!(a.child, b.child);
    copy.complete("a", json!(null));
    assert_eq!(copy.task("b").input.to_value(), json!({"n": 2}));
    copy.decide("c", DecisionStatus::Approved, json!(null)).unwrap();
    assert!(matches!(copy.try_apply(event), Err(Rejection::NotPossible(_))));
    assert_eq!(run.tasks(), ["a"]);
}

#[test]
fn a_fork_changes_only_channels_that_there_are() {
    let run = Run::start(YAML);
    for changes in [json!({"m": 2}), json!([1])] {
        let (mut copy, event) = forked(&run, changes);
        assert!(matches!(copy.try_apply(event), Err(Rejection::NotPossible(_))));
    }
    let (_, event) = forked(&run, json!(null));
    let mut original = Run::start(YAML);
    assert!(matches!(original.try_apply(event), Err(Rejection::NotPossible(_))));
}

#[test]
fn a_fork_of_an_ended_run_is_as_that_was() {
    let mut run = Run::start(YAML);
    run.must(cancel());
    let (mut copy, event) = forked(&run, json!(null));
    copy.must(event);
    assert_eq!((copy.status(), copy.commands.len()), (RunStatus::Cancelled, 0));
    copy.must(retry());
    assert_eq!(copy.dispatched(), ["a"]);
}
