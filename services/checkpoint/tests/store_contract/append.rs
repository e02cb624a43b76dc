use crate::fixture::{Fixture, MINUTE, ended, entry, key, namespace, refused, row, snapshot, write};
use futures::future::join_all;
use troupe_checkpoint::{
    StoreError,
    model::{Batch, Micros, RunKey, RunRow, RunWrite, Status},
    store::Committed,
};
use troupe_domain::{Code, RunId};
use uuid::Uuid;

pub(crate) async fn what_was_appended_is_read_back(f: Fixture) {
    f.own().await;
    let full = RunRow {
        labels: [("team".to_owned(), "größe \"x\"".to_owned())].into(),
        wake_at: Some(Micros(77)),
        parent: Some(RunId(Uuid::from_u128(99))),
        ..row(1)
    };
    let first = RunWrite { snapshot: snapshot(1), ..write(full, 0, 2) };
    f.append(vec![first.clone(), write(row(2), 0, 1)]).await.unwrap();
    let failed = RunRow {
        status: Status::Failed,
        ended_at: Some(Micros(99)),
        wake_at: None,
        error_code: "TIMEOUT".into(),
        error_message: "too slow".into(),
        dead_queue: "agent/x".into(),
        version: "2".into(),
        priority: 9,
        updated_at: Micros(8),
        ..first.row.clone()
    };
    let second = write(failed, 2, 1);
    f.append(vec![second.clone()]).await.unwrap();

    let missing = key(404);
    let runs = f.journal.load_runs(vec![key(2), missing.clone(), key(1)], 0).await.unwrap();
    assert_eq!(runs.iter().map(|run| run.row.key.clone()).collect::<Vec<_>>(), [key(2), key(1)]);
    assert_eq!(runs[1].row, second.row);
    assert_eq!(runs[1].snapshot, first.snapshot);
    assert_eq!(runs[1].entries, [entry(2), entry(3)]);
    assert_eq!(f.journal.read_entries(key(1), 0, 10).await.unwrap(), [entry(1), entry(2), entry(3)]);
    assert_eq!(f.journal.read_entries(missing, 1, 10).await.unwrap_err().code(), Code::NotFound);
}

pub(crate) async fn stale_epochs_are_refused(f: Fixture) {
    let stale = refused(Code::FailedPrecondition, "STALE_EPOCH");
    assert_eq!(f.append_as(0, vec![write(row(1), 0, 1)]).await, stale, "a partition that nobody acquired");
    f.own().await;
    f.append(vec![write(row(1), 0, 1)]).await.unwrap();
    f.journal.acquire_partitions("b".into(), vec![0], MINUTE, true).await.unwrap();
    assert_eq!(f.append_as(1, vec![write(row(1), 1, 1)]).await, stale);
    assert_eq!(f.append_as(3, vec![write(row(1), 1, 1)]).await, stale);
    f.append_as(2, vec![write(row(1), 1, 1)]).await.unwrap();
}

pub(crate) async fn a_wrong_sequence_refuses_the_whole_batch(f: Fixture) {
    f.own().await;
    f.append(vec![write(row(1), 0, 3)]).await.unwrap();
    let batch = vec![write(row(2), 0, 1), write(row(1), 2, 1), write(row(3), 0, 1)];
    assert_eq!(f.append(batch).await, refused(Code::Conflict, "SEQUENCE"));
    // A run that does not exist is at 0.
    assert_eq!(f.append(vec![write(row(2), 1, 1)]).await, refused(Code::Conflict, "SEQUENCE"));
    let runs = f.journal.load_runs(vec![key(1), key(2), key(3)], 0).await.unwrap();
    assert_eq!((runs.len(), runs[0].row.seq, runs[0].entries.len()), (1, 3, 3));
}

pub(crate) async fn a_duplicate_is_refused(f: Fixture) {
    f.own().await;
    f.append(vec![write(row(1), 0, 2)]).await.unwrap();
    assert_eq!(f.append(vec![write(row(1), 0, 2)]).await, refused(Code::Conflict, "SEQUENCE"));
    assert_eq!(f.journal.read_entries(key(1), 1, 10).await.unwrap().len(), 2);
}

pub(crate) async fn one_batch_may_write_a_run_twice(f: Fixture) {
    f.own().await;
    let done = RunRow { status: Status::Succeeded, ended_at: Some(Micros(9)), ..row(1) };
    f.append(vec![write(row(1), 0, 2), write(row(2), 0, 1), write(done, 2, 1)]).await.unwrap();
    let stored = f.row(&key(1)).await;
    assert_eq!((stored.seq, stored.status), (3, Status::Succeeded));
    let gap = vec![write(row(3), 0, 2), write(row(3), 3, 1)];
    assert_eq!(f.append(gap).await, refused(Code::Conflict, "SEQUENCE"));
    assert_eq!(f.journal.load_runs(vec![key(3)], 0).await.unwrap(), []);
}

pub(crate) async fn contradictions_are_refused(f: Fixture) {
    f.own().await;
    let mut gap = write(row(1), 0, 2);
    gap.entries[1].seq = 3;
    let mut row_behind = write(row(1), 0, 2);
    row_behind.row.seq = 1;
    let other_partition = write(RunRow { partition: 1, ..row(1) }, 0, 1);
    let not_ended = write(RunRow { status: Status::Failed, ..row(1) }, 0, 1);
    let nothing = write(row(1), 0, 0);
    let future_snapshot = RunWrite { snapshot: snapshot(2), ..write(row(1), 0, 1) };
    for (name, bad) in [
        ("gap", gap),
        ("row behind", row_behind),
        ("partition", other_partition),
        ("ended", not_ended),
        ("nothing", nothing),
        ("snapshot", future_snapshot),
    ] {
        assert_eq!(f.append(vec![write(row(2), 0, 1), bad]).await, refused(Code::InvalidArgument, ""), "{name}");
    }
    assert_eq!(f.journal.load_runs(vec![key(1), key(2)], 0).await.unwrap(), []);
}

pub(crate) async fn queued_batches_keep_their_order(f: Fixture) {
    f.own().await;
    // Nobody waits for one batch before the next is handed over; one that cannot fit does not disturb the others.
    let batch = |writes| f.journal.append(Batch { partition: 0, epoch: 1, writes });
    let mut batches: Vec<_> = (0..50).map(|i| batch(vec![write(row(1), i, 1)])).collect();
    batches.insert(25, batch(vec![write(row(1), 1000, 1)]));
    // Over gRPC these are calls of their own, each sent when it is first polled: the stream keeps the order there (`tests/api.rs`).
    let outcomes = if f.is_remote { each(batches).await } else { join_all(batches).await };
    let failed: Vec<_> = outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_err()).map(|(i, _)| i).collect();
    assert_eq!(failed, [25]);
    assert_eq!(f.row(&key(1)).await.seq, 50);
}

async fn each(batches: Vec<Committed>) -> Vec<Result<(), StoreError>> {
    let mut outcomes = Vec::new();
    for batch in batches {
        outcomes.push(batch.await);
    }
    outcomes
}

pub(crate) async fn an_ended_run_may_be_reopened(f: Fixture) {
    f.own().await;
    f.append(vec![ended(1, Micros(5))]).await.unwrap();
    assert_eq!(f.journal.load_open_runs(0, 10, None).await.unwrap(), []);
    f.append(vec![write(row(1), 1, 1)]).await.unwrap();
    let open = f.journal.load_open_runs(0, 10, None).await.unwrap();
    assert_eq!((open.len(), open[0].row.status, open[0].row.ended_at), (1, Status::Running, None));
}

pub(crate) async fn another_partition_is_refused(f: Fixture) {
    f.own().await;
    f.append(vec![write(row(1), 0, 1)]).await.unwrap();
    f.journal.acquire_partitions("a".into(), vec![1], MINUTE, false).await.unwrap();
    let moved = write(RunRow { partition: 1, ..row(1) }, 1, 1);
    let error = f.journal.append(Batch { partition: 1, epoch: 1, writes: vec![moved] }).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, "PARTITION"));
}

pub(crate) async fn namespaces_do_not_meet(f: Fixture) {
    f.own().await;
    let other = RunKey { namespace: namespace("other"), ..key(1) };
    f.append(vec![write(row(1), 0, 2)]).await.unwrap();
    assert_eq!(f.journal.load_runs(vec![other.clone()], 0).await.unwrap(), []);
    assert_eq!(f.journal.read_entries(other.clone(), 1, 10).await.unwrap_err().code(), Code::NotFound);
    // The same id in another namespace is another run.
    f.append(vec![write(RunRow { key: other.clone(), ..row(1) }, 0, 1)]).await.unwrap();
    assert_eq!((f.row(&key(1)).await.seq, f.row(&other).await.seq), (2, 1));
}
