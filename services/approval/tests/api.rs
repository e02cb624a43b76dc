//! The service through its gRPC interface.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "api/abandoned.rs"]
mod abandoned;
#[path = "../../../crates/postgres/tests/support/database.rs"]
mod database;
#[path = "api/host.rs"]
mod host;
#[path = "api/replicas.rs"]
mod replicas;
#[path = "api/restart.rs"]
mod restart;
#[path = "api/time.rs"]
mod time;

use host::host;
use troupe_domain::Code;
use troupe_proto::{approval::v1 as wire, common::v1::Page};
use troupe_wire::from_status;

#[tokio::test]
async fn a_decision_is_recorded_once_and_told_to_the_run() {
    let mut host = host().await;
    let request = host.request("a");
    host.store(vec![request.clone()]).await;
    let pending = host.get("a").await;
    assert_eq!((pending.status.as_str(), pending.digest.len()), ("pending", 64));

    let decision = wire::DecideRequest {
        approval_id: "a".into(),
        decision: "approve".into(),
        by: "ann".into(),
        comment: "ship it".into(),
        payload: r#"{"report":"better"}"#.into(),
        digest: pending.digest,
        ..Default::default()
    };
    let decided = host.send(decision).await.unwrap();
    assert_eq!((decided.status.as_str(), decided.decisions.len()), ("approved", 1));

    let again = host.decide("a", "bob", "reject").await.unwrap_err();
    assert_eq!((again.code, again.reason.as_str()), (Code::Conflict, "ALREADY_DECIDED"));
    assert_eq!(again.message, "already approved by ann at 2027-01-15T08:00:00Z");

    let heard = host.executor.heard(1).await;
    assert_eq!((heard[0].run_id.as_str(), heard[0].approval_id.as_str()), (request.run_id.as_str(), "a"));
    assert_eq!((heard[0].status.as_str(), heard[0].by.as_str(), heard[0].comment.as_str()), ("approved", "ann", "ship it"));
    assert_eq!(heard[0].payload, r#"{"report":"better"}"#);
}

#[tokio::test]
async fn two_parallel_requests_are_independent() {
    let mut host = host().await;
    let (a, b) = (host.request("a"), host.request("b"));
    host.store(vec![a, b]).await;
    host.decide("a", "ann", "reject").await.unwrap();
    assert_eq!(host.get("b").await.status, "pending");
    host.decide("b", "ann", "approve").await.unwrap();
    let heard = host.executor.heard(2).await;
    assert_eq!([heard[0].status.as_str(), heard[1].status.as_str()], ["rejected", "approved"]);
}

#[tokio::test]
async fn of_many_who_decide_at_once_one_wins() {
    let mut host = host().await;
    let request = host.request("a");
    host.store(vec![request]).await;
    let decisions = (0..50).map(|n| {
        let mut client = host.client.clone();
        let request = wire::DecideRequest {
            namespace: "team".into(),
            approval_id: "a".into(),
            decision: if n % 2 == 0 { "approve" } else { "reject" }.into(),
            by: format!("person{n}"),
            ..Default::default()
        };
        async move { client.decide(request).await.map_err(|status| from_status(&status).code) }
    });
    let answers = futures::future::join_all(decisions).await;
    assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 1);
    assert!(answers.iter().filter_map(|a| a.as_ref().err()).all(|code| *code == Code::Conflict));
    host.executor.heard(1).await;
    assert_eq!(host.get("a").await.decisions.len(), 1);
}

#[tokio::test]
async fn lists_show_what_is_pending_unless_asked_otherwise() {
    let mut host = host().await;
    let requests = ["a", "b", "c"].map(|id| host.request(id)).to_vec();
    let run = requests[1].run_id.clone();
    host.store(requests).await;
    host.decide("a", "ann", "approve").await.unwrap();
    assert_eq!(host.list(Default::default()).await, ["c", "b"]);
    let approved = wire::ListApprovalsRequest { statuses: vec!["approved".into()], ..Default::default() };
    assert_eq!(host.list(approved).await, ["a"]);
    assert_eq!(host.list(wire::ListApprovalsRequest { run_id: run, ..Default::default() }).await, ["b"]);
    let first =
        wire::ListApprovalsRequest { namespace: "team".into(), page: Some(Page { limit: 1, ..Default::default() }), ..Default::default() };
    let page = host.client.list_approvals(first).await.unwrap().into_inner();
    let rest = Page { limit: 10, cursor: page.next_cursor };
    assert_eq!(host.list(wire::ListApprovalsRequest { page: Some(rest), ..Default::default() }).await, ["b"]);
}

#[tokio::test]
async fn bad_calls_are_told_what_is_wrong() {
    let mut host = host().await;
    let good = host.request("a");
    let bad = wire::Approval { run_id: "7".into(), ..host.request("b") };
    let worse = wire::Approval { show: "{".into(), ..host.request("c") };
    let status = host.client.request_approvals(wire::RequestApprovalsRequest { approvals: vec![good, bad, worse] }).await.unwrap_err();
    let faults: Vec<_> = from_status(&status).faults.into_iter().map(|f| f.path).collect();
    assert_eq!(faults, ["approvals[1].run_id", "approvals[2].show"]);
    assert!(host.list(Default::default()).await.is_empty(), "all or none");

    let request = host.request("a");
    host.store(vec![request]).await;
    for (id, by, decision, code) in [
        ("x", "ann", "approve", Code::NotFound),
        ("a", "", "approve", Code::InvalidArgument),
        ("a", "system:expiry", "approve", Code::InvalidArgument),
        ("a", "ann", "perhaps", Code::InvalidArgument),
        ("a", "ann", "withdraw", Code::InvalidArgument),
        ("a", "ann", "answer", Code::InvalidArgument),
    ] {
        assert_eq!(host.decide(id, by, decision).await.unwrap_err().code, code, "{id} {by} {decision}");
    }
    let long = wire::DecideRequest {
        approval_id: "a".into(),
        decision: "approve".into(),
        by: "ann".into(),
        comment: "x".repeat(9000),
        payload: format!("\"{}\"", "x".repeat(5 << 20)).into(),
        ..Default::default()
    };
    assert_eq!(host.send(long).await.unwrap_err().faults.len(), 2);
    let other = wire::GetApprovalRequest { namespace: "other".into(), approval_id: "a".into() };
    assert_eq!(host.client.get_approval(other).await.unwrap_err().code(), tonic::Code::NotFound);
    let cursor = Page { limit: 1, cursor: "x".into() };
    let list = wire::ListApprovalsRequest { page: Some(cursor), ..Default::default() };
    assert_eq!(host.client.list_approvals(list).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    assert_eq!(host.get("a").await.status, "pending");
}

#[tokio::test]
async fn withdrawn_requests_are_not_delivered() {
    let mut host = host().await;
    let (a, b) = (host.request("a"), host.request("b"));
    host.store(vec![a, b]).await;
    let ids = vec!["a".into(), "unknown".into()];
    let request = wire::WithdrawApprovalsRequest { namespace: "team".into(), approval_ids: ids, reason: "run cancelled".into() };
    host.client.withdraw_approvals(request).await.unwrap();
    let withdrawn = host.get("a").await;
    assert_eq!((withdrawn.status.as_str(), withdrawn.decisions[0].comment.as_str()), ("withdrawn", "run cancelled"));
    assert_eq!(host.decide("a", "ann", "approve").await.unwrap_err().code, Code::Conflict);
    host.decide("b", "ann", "approve").await.unwrap();
    assert_eq!(host.executor.heard(1).await[0].approval_id, "b");
}

#[tokio::test]
async fn a_drained_service_refuses_writes_and_still_reads() {
    let mut host = host().await;
    let request = host.request("a");
    host.store(vec![request]).await;
    host.service.drain().await;
    assert_eq!(host.decide("a", "ann", "approve").await.unwrap_err().code, Code::Unavailable);
    assert_eq!(host.get("a").await.status, "pending");
    assert!(host.service.health().await.iter().all(|d| d.ok));
}
