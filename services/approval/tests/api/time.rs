//! Expiry, escalation and retried deliveries, on a clock that the test moves.

use crate::host::{Host, host};
use std::time::Duration;
use tonic::Code as Grpc;
use troupe_domain::Code;
use troupe_proto::approval::v1 as wire;

async fn wait_for(host: &mut Host, id: &str, fits: impl Fn(&wire::Approval) -> bool) -> wire::Approval {
    for _ in 0..20_000 {
        let approval = host.get(id).await;
        if fits(&approval) {
            return approval;
        }
        tokio::task::yield_now().await;
    }
    panic!("{id} did not get there: {:?}", host.get(id).await);
}

#[tokio::test]
async fn time_settles_what_nobody_decides() {
    let mut host = host().await;
    let requests = vec![
        host.expiring("e", 60, ""),
        host.expiring("r", 60, "reject"),
        host.expiring("a", 60, "approve"),
        host.expiring("late", 120, ""),
    ];
    host.store(requests).await;
    host.clock.advance(Duration::from_secs(60));
    let mut heard = host.executor.heard(3).await;
    heard.sort_by(|x, y| x.approval_id.cmp(&y.approval_id));
    let told: Vec<_> = heard.iter().map(|d| (d.approval_id.as_str(), d.status.as_str(), d.by.as_str())).collect();
    assert_eq!(told, [("a", "approved", "system:expiry"), ("e", "expired", "system:expiry"), ("r", "rejected", "system:expiry")]);
    assert_eq!(host.get("late").await.status, "pending");
    assert_eq!(host.decide("e", "ann", "approve").await.unwrap_err().code, Code::Conflict);
}

#[tokio::test]
async fn a_request_that_comes_later_can_expire_first() {
    let mut host = host().await;
    let late = host.expiring("late", 600, "");
    host.store(vec![late]).await;
    let soon = host.expiring("soon", 10, "");
    host.store(vec![soon]).await;
    host.clock.advance(Duration::from_secs(10));
    assert_eq!(host.executor.heard(1).await[0].approval_id, "soon");
}

#[tokio::test]
async fn escalation_asks_others_and_then_expires() {
    let mut host = host().await;
    let escalating = |id: &str| wire::Approval {
        approvers: vec!["role:oncall".into()],
        escalate_to: vec!["role:director".into()],
        expires_after: Some(prost_duration(60)),
        ..host.expiring(id, 60, "escalate")
    };
    let requests = vec![escalating("a"), escalating("b")];
    host.store(requests).await;
    assert_eq!(host.decide("a", "role:director", "approve").await.unwrap_err().code, Code::PermissionDenied);
    host.clock.advance(Duration::from_secs(60));
    let escalated = wait_for(&mut host, "a", |a| a.escalations == 1).await;
    assert_eq!((escalated.status.as_str(), escalated.approvers[0].as_str()), ("pending", "role:director"));
    assert_eq!(host.decide("a", "role:oncall", "approve").await.unwrap_err().code, Code::PermissionDenied);
    host.decide("a", "role:director/zoe", "approve").await.unwrap();
    assert_eq!(host.executor.heard(1).await[0].by, "role:director/zoe");
    host.clock.advance(Duration::from_secs(60));
    let heard = host.executor.heard(2).await;
    assert_eq!((heard[1].approval_id.as_str(), heard[1].status.as_str()), ("b", "expired"));
}

fn prost_duration(seconds: u64) -> prost_types::Duration {
    troupe_wire::duration(Duration::from_secs(seconds))
}

#[tokio::test]
async fn deliveries_are_repeated_until_they_are_answered() {
    let mut host = host().await;
    *host.executor.failures.lock().unwrap() = [Grpc::Unavailable, Grpc::Internal].into();
    let request = host.request("a");
    host.store(vec![request]).await;
    host.decide("a", "ann", "approve").await.unwrap();
    for n in 1..3 {
        assert_eq!(host.executor.heard(n).await.len(), n);
        // Each pause is longer than the one before, at most the limit.
        advance_until_called(&host, n + 1).await;
    }
    host.clock.advance(Duration::from_secs(3600));
    let other = host.request("b");
    host.store(vec![other]).await;
    host.decide("b", "ann", "approve").await.unwrap();
    let heard = host.executor.heard(4).await;
    let told: Vec<_> = heard.iter().map(|d| d.approval_id.as_str()).collect();
    assert_eq!(told, ["a", "a", "a", "b"], "what was answered is not told again");
}

/// The retry is put into the store a moment after the call: the clock is moved again until it is seen.
async fn advance_until_called(host: &Host, n: usize) {
    while host.executor.calls() < n {
        host.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_outcome_of_a_deleted_run_is_given_up() {
    let mut host = host().await;
    *host.executor.failures.lock().unwrap() = [Grpc::NotFound].into();
    let requests = vec![host.request("a"), host.request("b")];
    host.store(requests).await;
    host.decide("a", "ann", "approve").await.unwrap();
    host.executor.heard(1).await;
    host.clock.advance(Duration::from_secs(3600));
    host.decide("b", "ann", "approve").await.unwrap();
    let heard = host.executor.heard(2).await;
    assert_eq!(heard[1].approval_id, "b");
}
