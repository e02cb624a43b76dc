use crate::harness::{Harness, RUN};

#[tokio::test]
async fn the_same_key_gets_the_same_answer() {
    let gateway = Harness::start().await;
    let path = format!("/api/v1/runs/{RUN}/cancel");
    let key = [("idempotency-key", "k-1")];
    let first = gateway.post_with(&path, r#"{"reason":"a"}"#, &key).await;
    let second = gateway.post_with(&path, r#"{"reason":"a"}"#, &key).await;
    assert_eq!((first.status, &first.body), (second.status, &second.body));
    assert_eq!((first.header("idempotency-replayed"), second.header("idempotency-replayed")), ("", "true"));
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
    assert_eq!(gateway.fakes.seen().controls.len(), 1);

    gateway.post_with(&path, r#"{"reason":"b"}"#, &key).await.problem(409, "CONFLICT");
    gateway.post_with(&path, r#"{"reason":"b"}"#, &[("idempotency-key", "k-2")]).await;
    gateway.post_with(&path, r#"{"reason":"b"}"#, &[("idempotency-key", "k-1"), ("troupe-namespace", "other")]).await;
    gateway.post_with(&format!("/api/v1/runs/{RUN}/pause"), r#"{"reason":"b"}"#, &key).await;
    assert_eq!(gateway.fakes.seen().controls.len(), 4, "another key, namespace or path is another request");
}

#[tokio::test]
async fn an_approval_decided_twice_with_one_key_is_decided_once() {
    let gateway = Harness::start().await;
    let path = format!("/api/v1/approvals/{RUN}/decision");
    let body = r#"{"decision":"approve"}"#;
    for _ in 0..2 {
        assert_eq!(gateway.post_with(&path, body, &[("idempotency-key", "k")]).await.status, 200);
    }
    gateway.post(&path, body).await.problem(409, "CONFLICT");
}

#[tokio::test]
async fn failures_are_not_kept() {
    let gateway = Harness::start().await;
    let path = "/api/v1/workflows";
    let key = [("idempotency-key", "k")];
    for _ in 0..2 {
        gateway.post_with(path, "broken", &key).await.problem(400, "INVALID_ARGUMENT");
    }
    assert_eq!(gateway.fakes.seen().applied.len(), 2);
    gateway.post_with(path, &"x".repeat(9 << 20), &key).await.problem(413, "PAYLOAD_TOO_LARGE");
}

#[tokio::test]
async fn two_at_once_run_once() {
    let gateway = Harness::start().await;
    let path = format!("/api/v1/runs/{RUN}/retry");
    let key = [("idempotency-key", "k")];
    let (a, b, c) =
        tokio::join!(gateway.post_with(&path, "", &key), gateway.post_with(&path, "", &key), gateway.post_with(&path, "", &key));
    assert!([a, b, c].iter().all(|reply| reply.status == 200));
    assert_eq!(gateway.fakes.seen().controls.len(), 1);
}
