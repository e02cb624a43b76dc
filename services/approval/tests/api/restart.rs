//! A file survives its process.

use crate::host::{FakeExecutor, host_on, new_clock, sqlite};
use std::time::{Duration, Instant};
use tonic::Code as Grpc;
use troupe_domain::Code;
use troupe_proto::approval::v1 as wire;

#[tokio::test]
async fn what_was_decided_but_not_delivered_is_delivered_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let executor = FakeExecutor::default();
    *executor.failures.lock().unwrap() = [Grpc::Unavailable].into();
    let mut host = host_on(sqlite(dir.path()), executor, new_clock()).await;
    let requests = vec![host.request("a"), host.request("b")];
    host.store(requests).await;
    host.decide("a", "ann", "approve").await.unwrap();
    // The clock stands still, so this process never tries again.
    assert_eq!(host.executor.heard(1).await.len(), 1);

    let mut host = host.restart(sqlite(dir.path())).await;
    let heard = host.executor.heard(2).await;
    assert!(heard.iter().all(|d| (d.approval_id.as_str(), d.by.as_str()) == ("a", "ann")));
    let again = host.decide("a", "bob", "reject").await.unwrap_err();
    assert_eq!((again.code, again.message.as_str()), (Code::Conflict, "already approved by ann at 2027-01-15T08:00:00Z"));
    assert_eq!(host.get("b").await.status, "pending");
    host.decide("b", "bob", "reject").await.unwrap();
}

#[tokio::test]
async fn what_expired_while_nobody_was_there_is_settled_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = host_on(sqlite(dir.path()), FakeExecutor::default(), new_clock()).await;
    let request = host.expiring("a", 60, "reject");
    host.store(vec![request]).await;
    assert!(host.tasks.stop(Duration::from_secs(20)).await);
    host.clock.advance(Duration::from_secs(3600));
    let host = host.restart(sqlite(dir.path())).await;
    assert_eq!(host.executor.heard(1).await[0].status, "rejected");
}

#[tokio::test]
async fn many_requests_are_stored_and_found_again() {
    const COUNT: usize = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let mut host = host_on(sqlite(dir.path()), FakeExecutor::default(), new_clock()).await;
    let begun = Instant::now();
    for batch in 0..COUNT / 1000 {
        let requests = (0..1000).map(|n| host.request(&format!("{batch}-{n}"))).collect();
        host.store(requests).await;
    }
    println!("{} requests in {:?}", COUNT, begun.elapsed());
    let mut host = host.restart(sqlite(dir.path())).await;
    let mut seen = 0;
    let mut cursor = String::new();
    loop {
        let page = Some(troupe_proto::common::v1::Page { limit: 500, cursor });
        let request = wire::ListApprovalsRequest { namespace: "team".into(), page, ..Default::default() };
        let listed = host.client.list_approvals(request).await.unwrap().into_inner();
        seen += listed.approvals.len();
        cursor = listed.next_cursor;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(seen, COUNT);
    host.decide("7-7", "ann", "approve").await.unwrap();
    assert_eq!(host.executor.heard(1).await[0].approval_id, "7-7");
}
