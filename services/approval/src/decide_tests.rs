use super::*;
use crate::{approval::OnExpire, request::tests::approval};
use serde_json::json;

fn by(name: &str, verdict: Verdict) -> Submission {
    let at = approval("x").requested_at + chrono::Duration::seconds(5);
    Submission { verdict, by: name.into(), comment: String::new(), payload: Json::null(), digest: String::new(), at }
}

fn yes(name: &str) -> Submission {
    by(name, Verdict::Approve)
}

fn refusal(approval: &Approval, submission: &Submission) -> (Code, String) {
    let error = decide(approval, submission).unwrap_err();
    (error.code, error.reason)
}

#[test]
fn a_request_is_decided_once() {
    let after = decide(&approval("a"), &Submission { comment: "ship it".into(), ..yes("ann") }).unwrap();
    assert_eq!((after.status, after.outcome().by.as_str(), after.outcome().comment.as_str()), (Status::Approved, "ann", "ship it"));
    let again = decide(&after, &by("bob", Verdict::Reject)).unwrap_err();
    assert_eq!((again.code, again.reason.as_str()), (Code::Conflict, "ALREADY_DECIDED"));
    assert_eq!(again.message, "already approved by ann at 2027-01-15T08:00:05Z");
}

#[test]
fn a_decision_is_bound_to_what_was_seen() {
    let a = approval("a");
    assert_eq!(refusal(&a, &Submission { digest: "00".into(), ..yes("ann") }), (Code::FailedPrecondition, "DIGEST_MISMATCH".into()));
    let seen = Submission { digest: a.digest.to_uppercase(), ..yes("ann") };
    assert_eq!(decide(&a, &seen).unwrap().decisions[0].digest, a.digest);
}

#[test]
fn only_approvers_decide() {
    let a = Approval { approvers: vec!["user:ann".into(), "role:oncall".into(), "carl".into()], ..approval("a") };
    for good in ["ann", "user:ann", "role:oncall", "role:oncall/bob", "role:any/ann", "carl", "user:carl"] {
        assert!(decide(&a, &yes(good)).is_ok(), "{good}");
    }
    for bad in ["bob", "user:bob", "role:admin", "role:admin/bob", "oncall", "user:oncall", "Ann"] {
        assert_eq!(refusal(&a, &yes(bad)), (Code::PermissionDenied, "NOT_AN_APPROVER".into()), "{bad}");
    }
}

#[test]
fn a_quorum_is_of_different_people_and_one_no_is_a_no() {
    let a = Approval { required: 2, ..approval("a") };
    let once = decide(&a, &yes("ann")).unwrap();
    assert_eq!((once.status, once.decided_at), (Status::Pending, None));
    for same in ["ann", "user:ann", "role:oncall/ann"] {
        assert_eq!(refusal(&once, &yes(same)), (Code::Conflict, "SAME_PERSON".into()), "{same}");
    }
    let twice = decide(&once, &yes("bob")).unwrap();
    assert_eq!((twice.status, twice.outcome().by.as_str()), (Status::Approved, "ann, bob"));
    let rejected = decide(&once, &by("bob", Verdict::Reject)).unwrap();
    assert_eq!((rejected.status, rejected.outcome().by.as_str()), (Status::Rejected, "bob"));
}

#[test]
fn edits_are_for_the_fields_that_allow_it() {
    let a = approval("a");
    let edit = |payload| Submission { payload: Json::from(payload), ..yes("ann") };
    let after = decide(&a, &edit(json!({"report": "not all is well"}))).unwrap();
    assert_eq!(after.outcome().payload.to_value(), json!({"report": "not all is well"}));
    let error = decide(&a, &edit(json!({"score": 1}))).unwrap_err();
    assert_eq!((error.code, error.faults[0].path.as_str()), (Code::InvalidArgument, "payload.score"));
    assert!(decide(&a, &edit(json!(["report"]))).is_err());
    let rejection = Submission { payload: Json::from(json!({"report": ""})), ..by("ann", Verdict::Reject) };
    assert_eq!(refusal(&a, &rejection).0, Code::InvalidArgument);
}

#[test]
fn the_second_approver_decides_on_the_first_ones_edit() {
    let a = Approval { required: 2, ..approval("a") };
    let edit = |name, text: &str| Submission { payload: Json::from(json!({"report": text})), ..yes(name) };
    let once = decide(&a, &edit("ann", "better")).unwrap();
    assert_eq!(once.values.to_value(), json!({"report": "better"}));
    assert_eq!(refusal(&once, &Submission { digest: a.digest.clone(), ..yes("bob") }).1, "DIGEST_MISMATCH");
    assert_eq!(refusal(&once, &edit("bob", "best")), (Code::FailedPrecondition, "EDIT_AFTER_APPROVAL".into()));
    let twice = decide(&once, &Submission { digest: once.digest.clone(), ..yes("bob") }).unwrap();
    assert_eq!((twice.status, twice.outcome().payload.to_value()), (Status::Approved, json!({"report": "better"})));
}

#[test]
fn questions_are_answered_and_only_they_are() {
    let question = Approval { mode: Mode::Question, edit: Vec::new(), ..approval("a") };
    let answer = |payload| Submission { payload: Json::from(payload), ..by("ann", Verdict::Answer) };
    let after = decide(&question, &answer(json!("42"))).unwrap();
    assert_eq!((after.status, after.outcome().payload.to_value()), (Status::Answered, json!("42")));
    assert_eq!(refusal(&question, &answer(json!(42))).0, Code::InvalidArgument);
    assert_eq!(refusal(&question, &yes("ann")).0, Code::InvalidArgument);
    assert_eq!(refusal(&approval("b"), &answer(json!("42"))).0, Code::InvalidArgument);
    assert_eq!(decide(&question, &by("ann", Verdict::Reject)).unwrap().status, Status::Rejected);
}

#[test]
fn an_answer_fits_its_schema() {
    let schema = json!({"type": "object", "required": ["host"], "properties": {"host": {"type": "string", "pattern": "^(a+)+$"}}});
    let question = Approval { mode: Mode::Question, answer_schema: Some(Json::from(schema)), ..approval("a") };
    let answer = |payload| Submission { payload: Json::from(payload), ..by("ann", Verdict::Answer) };
    check_schema(&question, &answer(json!({"host": "aaa"}))).unwrap();
    assert_eq!(decide(&question, &answer(json!({"host": "aaa"}))).unwrap().status, Status::Answered);
    let error = check_schema(&question, &answer(json!({"host": format!("{}b", "a".repeat(10_000))}))).unwrap_err();
    assert_eq!(error.faults[0].path, "payload/host");
    for bad in [json!({"type": "nonsense"}), json!({"$ref": "https://example.com/schema.json"})] {
        let broken = Approval { answer_schema: Some(Json::from(bad)), ..question.clone() };
        assert_eq!(check_schema(&broken, &answer(json!("x"))).unwrap_err().reason, "BAD_ANSWER_SCHEMA");
    }
}

#[test]
fn a_decision_after_the_time_is_too_late_even_before_the_loop_has_run() {
    let a = approval("a");
    let due = Approval { expires_at: Some(a.requested_at + chrono::Duration::seconds(1)), ..a };
    assert!(decide(&due, &yes("ann")).unwrap_err().message.starts_with("already expired at"));
    let escalating = Approval { on_expire: OnExpire::Escalate, escalate_to: vec!["boss".into()], approvers: vec!["ann".into()], ..due };
    assert_eq!(refusal(&escalating, &yes("ann")).0, Code::PermissionDenied);
    assert_eq!(decide(&escalating, &yes("boss")).unwrap().status, Status::Approved);
}

#[test]
fn withdrawing_keeps_the_reason_and_leaves_what_is_settled() {
    let a = approval("a");
    let after = withdraw(&a, "run cancelled", a.requested_at).unwrap();
    assert_eq!((after.status, after.decisions[0].comment.as_str()), (Status::Withdrawn, "run cancelled"));
    assert!(withdraw(&after, "again", a.requested_at).is_none());
    assert!(decide(&after, &yes("ann")).unwrap_err().message.starts_with("already withdrawn at"));
}
