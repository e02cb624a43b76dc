use crate::fixture::{Fixture, MINUTE, refused, row, write};
use troupe_checkpoint::model::{Claim, Micros};
use troupe_domain::Code;

pub(crate) async fn acquiring_raises_the_epoch(f: Fixture) {
    let epochs =
        |leases: Vec<troupe_checkpoint::model::Lease>| leases.iter().map(|lease| (lease.partition, lease.epoch)).collect::<Vec<_>>();
    assert_eq!(epochs(f.journal.acquire_partitions("a".into(), vec![3, 1], MINUTE, false).await.unwrap()), [(3, 1), (1, 1)]);
    // The same owner again: a restarted process fences its former self.
    assert_eq!(epochs(f.journal.acquire_partitions("a".into(), vec![1], MINUTE, false).await.unwrap()), [(1, 2)]);
    let listed = f.journal.list_partitions().await.unwrap();
    assert_eq!(listed[0].expires_at, Micros(f.now().0 + 60_000_000));
    assert_eq!(epochs(listed), [(1, 2), (3, 1)]);
}

pub(crate) async fn held_partitions_are_not_given_away(f: Fixture) {
    f.own().await;
    assert_eq!(f.journal.acquire_partitions("b".into(), vec![0], MINUTE, false).await.unwrap(), []);
    let forced = f.journal.acquire_partitions("b".into(), vec![0], MINUTE, true).await.unwrap();
    assert_eq!((forced[0].epoch, forced[0].owner.as_str()), (2, "b"));
    f.pass(MINUTE);
    let expired = f.journal.acquire_partitions("c".into(), vec![0], MINUTE, false).await.unwrap();
    assert_eq!((expired[0].epoch, expired[0].owner.as_str()), (3, "c"));
}

pub(crate) async fn renewal_says_what_is_lost(f: Fixture) {
    f.journal.acquire_partitions("a".into(), vec![0, 1], MINUTE, false).await.unwrap();
    f.journal.acquire_partitions("b".into(), vec![1], MINUTE, true).await.unwrap();
    f.pass(MINUTE * 2);
    let claims = vec![Claim { partition: 0, epoch: 1 }, Claim { partition: 1, epoch: 1 }, Claim { partition: 9, epoch: 1 }];
    let renewal = f.journal.renew_partitions("a".into(), claims, MINUTE).await.unwrap();
    assert_eq!(renewal.lost, [1, 9]);
    assert_eq!((renewal.held.len(), renewal.held[0].expires_at), (1, Micros(f.now().0 + 60_000_000)));
    // The renewed lease counts.
    assert_eq!(f.journal.acquire_partitions("b".into(), vec![0], MINUTE, false).await.unwrap(), []);
}

pub(crate) async fn released_partitions_are_free(f: Fixture) {
    f.own().await;
    f.journal.release_partitions("b".into(), vec![Claim { partition: 0, epoch: 1 }], false).await.unwrap();
    f.journal.release_partitions("a".into(), vec![Claim { partition: 0, epoch: 7 }], false).await.unwrap();
    assert_eq!(f.journal.acquire_partitions("b".into(), vec![0], MINUTE, false).await.unwrap(), []);
    f.journal.release_partitions("a".into(), vec![Claim { partition: 0, epoch: 1 }], false).await.unwrap();
    let taken = f.journal.acquire_partitions("b".into(), vec![0], MINUTE, false).await.unwrap();
    assert_eq!(taken[0].epoch, 2);
    assert_eq!(f.append(vec![write(row(1), 0, 1)]).await, refused(Code::FailedPrecondition, "STALE_EPOCH"));
}

pub(crate) async fn who_comes_back_at_another_address_takes_its_own(f: Fixture) {
    f.journal.acquire_partitions("a@http://h:1".into(), vec![0, 1], MINUTE, false).await.unwrap();
    assert_eq!(f.journal.acquire_partitions("ab@http://h:2".into(), vec![0], MINUTE, false).await.unwrap(), []);
    let again = f.journal.acquire_partitions("a@http://h:3".into(), vec![0], MINUTE, false).await.unwrap();
    assert_eq!((again[0].epoch, again[0].owner.as_str()), (2, "a@http://h:3"));
    // What its former self holds is not renewed under the new address.
    let claims = vec![Claim { partition: 0, epoch: 2 }, Claim { partition: 1, epoch: 1 }];
    let renewal = f.journal.renew_partitions("a@http://h:3".into(), claims, MINUTE).await.unwrap();
    assert_eq!((renewal.held.len(), renewal.lost), (1, vec![1]));
}

pub(crate) async fn executors_join_and_leave(f: Fixture) {
    let join = async |owner: &str| f.journal.renew_partitions(owner.into(), Vec::new(), MINUTE).await.unwrap().executors;
    assert_eq!(join("b@http://h:2").await, ["b@http://h:2"]);
    assert_eq!(join("a@http://h:1").await, ["a@http://h:1", "b@http://h:2"]);
    // One name is one executor, wherever it is.
    assert_eq!(join("b@http://h:3").await, ["a@http://h:1", "b@http://h:3"]);
    // Its former self cannot take it out.
    f.journal.release_partitions("b@http://h:2".into(), Vec::new(), true).await.unwrap();
    f.journal.release_partitions("b@http://h:3".into(), Vec::new(), false).await.unwrap();
    assert_eq!(join("a@http://h:1").await, ["a@http://h:1", "b@http://h:3"]);
    f.journal.release_partitions("b@http://h:3".into(), Vec::new(), true).await.unwrap();
    assert_eq!(join("a@http://h:1").await, ["a@http://h:1"]);
}

pub(crate) async fn a_membership_that_is_not_renewed_ends(f: Fixture) {
    let renew = async |owner: &str| f.journal.renew_partitions(owner.into(), Vec::new(), MINUTE).await.unwrap().executors;
    renew("a").await;
    f.pass(MINUTE / 2);
    assert_eq!(renew("b").await, ["a", "b"]);
    f.pass(MINUTE / 2);
    assert_eq!(renew("b").await, ["b"]);
    assert_eq!(renew("a").await, ["a", "b"], "it comes back");
}

pub(crate) async fn a_renewal_shows_who_owns_what(f: Fixture) {
    let granted = f.journal.acquire_partitions("a@http://h:1".into(), vec![0, 2], MINUTE, false).await.unwrap();
    assert_eq!(granted[0].remaining_ms, 60_000);
    f.pass(MINUTE / 2);
    f.journal.acquire_partitions("b".into(), vec![1], MINUTE, false).await.unwrap();
    f.journal.release_partitions("a@http://h:1".into(), vec![Claim { partition: 2, epoch: 1 }], false).await.unwrap();
    let renewal = f.journal.renew_partitions("b".into(), vec![Claim { partition: 1, epoch: 1 }], MINUTE * 2).await.unwrap();
    let rows: Vec<_> = renewal.leases.iter().map(|lease| (lease.partition, lease.owner.as_str(), lease.remaining_ms)).collect();
    assert_eq!(rows, [(0, "a@http://h:1", 30_000), (1, "b", 120_000), (2, "", 0)]);
    assert_eq!(renewal.leases, f.journal.list_partitions().await.unwrap());
    f.pass(MINUTE);
    let listed = f.journal.list_partitions().await.unwrap();
    assert_eq!((listed[0].owner.as_str(), listed[0].remaining_ms, listed[1].remaining_ms), ("a@http://h:1", 0, 60_000));
}
