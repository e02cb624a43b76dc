//! An executor that others cannot reach has the whole journal, or nothing of it.

use crate::world::{Cluster, LEASE, holding};
use serde_json::json;
use std::time::{Duration, Instant};
use troupe_domain::{Code, Error};

/// Why it does not start.
fn refused(outcome: anyhow::Result<crate::world::World>) -> Error {
    let cause = outcome.err().expect("it is refused");
    cause.downcast::<Error>().expect("it says why")
}

async fn all_of(cluster: &Cluster) -> Vec<usize> {
    cluster.owners().await.into_values().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_one_is_refused_and_names_the_first() {
    let cluster = Cluster::new(holding()).await;
    let mut first = cluster.seclude().await.unwrap();
    assert_eq!(all_of(&cluster).await, [8]);
    first.apply("workflow: one\nsteps:\n  only: { agent: echo, with: {} }\n").await;
    for second in [cluster.seclude().await, cluster.try_add().await] {
        let error = refused(second);
        assert_eq!((error.code, error.reason.as_str()), (Code::FailedPrecondition, "JOURNAL_TAKEN"));
        assert!(error.message.contains(&format!("executor-of-process-{}", std::process::id())), "{}", error.message);
        assert_eq!(all_of(&cluster).await, [8], "the first one has all it had");
    }
    first.begin("one", json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_one_has_it_as_soon_as_the_lease_of_a_dead_one_ends() {
    let cluster = Cluster::new(holding()).await;
    let first = cluster.seclude().await.unwrap();
    first.crash().await;
    let died = Instant::now();
    let second = cluster.seclude().await.unwrap();
    assert!(died.elapsed() < LEASE + Duration::from_secs(1), "{:?}", died.elapsed());
    assert_eq!(all_of(&cluster).await, [8]);
    second.service.drain().await;
    second.crash().await;
    let third = cluster.add().await;
    cluster.settles(&[8]).await;
    drop(third);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_start_together_do_not_share() {
    let cluster = Cluster::new(holding()).await;
    let (first, second) = tokio::join!(cluster.seclude(), cluster.seclude());
    assert_eq!(usize::from(first.is_ok()) + usize::from(second.is_ok()), 1);
    assert_eq!(all_of(&cluster).await, [8]);
}
