//! Decisions.

use crate::driver::Run;
use serde_json::json;
use troupe_engine::{Command, Rejection, RunStatus, StepStatus, event::DecisionStatus as Status, run::WaitKind};

const GATE: &str = "{workflow: w, state: {report: {default: draft}}, steps: {gate: {approve: {title: 'Publish ${ state.report }?', approvers: ['role:boss'], edit: [report], expires: 24h}, routes: {approved: go, rejected: stop, expired: stop}}, go: {agent: x, with: {r: '${ state.report }', by: '${ steps.gate.output.by }'}}, stop: {set: {stopped: true}}}}";

#[test]
fn an_approval_waits_for_a_person_and_edits_the_state() {
    let mut run = Run::start(GATE);
    let Command::RequestApproval(request) = &run.commands[0] else { panic!("{:?}", run.commands) };
    assert_eq!((request.title.as_str(), request.values.to_value()), ("Publish draft?", json!({"report": "draft"})));
    assert_eq!((request.show.to_value(), request.expires_at), (json!({"report": "draft"}), Some(run.now + chrono::Duration::hours(24))));
    assert_eq!((run.status(), run.step("gate")), (RunStatus::Waiting, StepStatus::Waiting));
    assert!(!run.state.has_tasks());
    assert_eq!(run.changed(), ["run.started", "step.started gate", "step.waiting gate", "run.waiting"]);
    run.decide("gate", Status::Approved, json!({"report": "better"})).unwrap();
    assert_eq!(run.task("go").input.to_value(), json!({"r": "better", "by": "ann"}));
    assert_eq!(run.output_of("gate"), json!({"status": "approved", "by": "ann", "comment": "ok", "edits": {"report": "better"}}));
    assert_eq!(run.step("stop"), StepStatus::Skipped);
}

#[test]
fn only_what_may_be_edited_is() {
    let mut run = Run::start(GATE);
    for edits in [json!({"other": 1}), json!("text")] {
        assert!(matches!(run.decide("gate", Status::Approved, edits), Err(Rejection::NotPossible(_))));
    }
    assert!(matches!(run.decide("gate", Status::Answered, json!(1)), Err(Rejection::NotPossible(_))));
    assert_eq!(run.step("gate"), StepStatus::Waiting);
}

#[test]
fn a_decision_that_does_not_fit_fails_the_step_for_nobody_decides_again() {
    let mut run = Run::start(GATE);
    run.limits.max_state_bytes = 20;
    run.decide("gate", Status::Approved, json!({"report": "x".repeat(50)})).unwrap();
    assert_eq!((run.status(), run.failure_code().as_str()), (RunStatus::Failed, "STATE_TOO_LARGE"));
    assert!(run.commands.is_empty(), "the approval is settled: {:?}", run.commands);
}

#[test]
fn a_second_decision_is_a_duplicate_and_an_unknown_one_stale() {
    let mut run = Run::start(GATE);
    let id = run.approval("gate");
    run.decide("gate", Status::Approved, json!(null)).unwrap();
    assert_eq!(run.try_apply(Run::decision(&id, Status::Rejected, json!(null))), Err(Rejection::Duplicate));
    assert!(matches!(run.try_apply(Run::decision("other", Status::Approved, json!(null))), Err(Rejection::Stale(_))));
    run.complete("go", json!(null));
    assert_eq!(run.try_apply(Run::decision(&id, Status::Rejected, json!(null))), Err(Rejection::Duplicate));
    assert_eq!(run.try_apply(Run::decision("other", Status::Approved, json!(null))), Err(Rejection::Ended));
}

#[test]
fn a_no_goes_the_way_that_routes_say() {
    for status in [Status::Rejected, Status::Expired] {
        let mut run = Run::start(GATE);
        run.decide("gate", status, json!(null)).unwrap();
        assert_eq!((run.status(), run.step("go"), run.step("stop")), (RunStatus::Succeeded, StepStatus::Skipped, StepStatus::Succeeded));
    }
}

#[test]
fn a_no_without_routes_fails_the_step() {
    let yaml = "{workflow: w, steps: {gate: {approve: {title: t}}, go: {agent: x, after: gate}}}";
    for (status, code) in [(Status::Rejected, "APPROVAL_REJECTED"), (Status::Expired, "APPROVAL_EXPIRED")] {
        let mut run = Run::start(yaml);
        run.decide("gate", status, json!(null)).unwrap();
        assert_eq!((run.status(), run.failure_code().as_str(), run.state.dead_queue()), (RunStatus::Failed, code, None));
    }
}

#[test]
fn expiry_can_mean_yes_or_no() {
    for (policy, code, status) in [("approve", "", RunStatus::Succeeded), ("reject", "APPROVAL_REJECTED", RunStatus::Failed)] {
        let mut run = Run::start(&format!("{{workflow: w, steps: {{gate: {{approve: {{title: t, expires: 1h, on_expire: {policy}}}}}}}}}"));
        run.decide("gate", Status::Expired, json!(null)).unwrap();
        assert_eq!((run.status(), run.failure_code().as_str()), (status, code));
    }
}

#[test]
fn a_question_takes_an_answer_of_its_schema() {
    let mut run = Run::start(
        "{workflow: w, steps: {ask: {approve: {title: 'How many?', question: {type: integer}}, save: {n: '${ output.answer }'}}}}",
    );
    assert!(matches!(run.decide("ask", Status::Approved, json!(null)), Err(Rejection::NotPossible(_))));
    assert!(matches!(run.decide("ask", Status::Answered, json!("many")), Err(Rejection::NotPossible(_))));
    run.decide("ask", Status::Answered, json!(3)).unwrap();
    assert_eq!((run.status(), run.state.channels()), (RunStatus::Succeeded, json!({"n": 3})));
}

#[test]
fn approvals_are_answered_independently() {
    let mut run = Run::start("{workflow: w, steps: {a: {approve: {title: a}}, b: {approve: {title: b}}}}");
    let before = run.approval("b");
    run.decide("a", Status::Approved, json!(null)).unwrap();
    assert!(run.commands.is_empty(), "{:?}", run.commands);
    assert_eq!((run.step("b"), run.approval("b")), (StepStatus::Waiting, before));
    let waits = troupe_engine::waits(&run.definition, &run.state);
    assert_eq!((waits.len(), waits[0].kind, waits[0].detail.as_str()), (1, WaitKind::Approval, "b"));
}

#[test]
fn a_cancelled_run_withdraws_its_approvals() {
    let mut run = Run::start(GATE);
    let id = run.approval("gate");
    run.must(troupe_engine::Event::new(troupe_engine::EventKind::Cancelled { reason: "no".into() }));
    assert!(matches!(&run.commands[0], Command::WithdrawApproval { id: withdrawn, .. } if *withdrawn == id));
    assert_eq!(run.try_apply(Run::decision(&id, Status::Approved, json!(null))), Err(Rejection::Ended));
}
