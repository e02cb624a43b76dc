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
    f.journal.release_partitions("b".into(), vec![Claim { partition: 0, epoch: 1 }]).await.unwrap();
    f.journal.release_partitions("a".into(), vec![Claim { partition: 0, epoch: 7 }]).await.unwrap();
    assert_eq!(f.journal.acquire_partitions("b".into(), vec![0], MINUTE, false).await.unwrap(), []);
    f.journal.release_partitions("a".into(), vec![Claim { partition: 0, epoch: 1 }]).await.unwrap();
    let taken = f.journal.acquire_partitions("b".into(), vec![0], MINUTE, false).await.unwrap();
    assert_eq!(taken[0].epoch, 2);
    assert_eq!(f.append(vec![write(row(1), 0, 1)]).await, refused(Code::FailedPrecondition, "STALE_EPOCH"));
}
