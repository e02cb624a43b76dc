use crate::fixture::{Fixture, ended, key, row, write};
use bytes::Bytes;
use std::time::Duration;
use troupe_checkpoint::model::{Micros, Pruned, Retention, RunQuery, RunRow, Status};

const DAY: Duration = Duration::from_secs(86_400);

/// What the service of the gRPC fixture has in its settings too.
async fn prune(f: &Fixture) -> Pruned {
    let ended_before = Some(Micros(f.now().0 - i64::try_from(DAY.as_micros()).unwrap()));
    f.journal.prune(Retention { ended_before, keep: Some(2) }).await.unwrap()
}

async fn left(f: &Fixture) -> Vec<u128> {
    let page = f.journal.list_runs(RunQuery::new(key(1).namespace)).await.unwrap();
    page.items.iter().map(|row| row.key.id.0.as_u128()).collect()
}

pub(crate) async fn old_runs_go(f: Fixture) {
    f.own().await;
    let labelled = |n, at| {
        let mut write = ended(n, at);
        write.row.labels.insert("a".into(), "1".into());
        write
    };
    f.append(vec![labelled(1, f.now())]).await.unwrap();
    f.pass(DAY / 2);
    f.append(vec![labelled(2, f.now())]).await.unwrap();
    assert_eq!(prune(&f).await, Pruned::default());
    f.pass(DAY / 2 + Duration::from_secs(1));
    assert_eq!(prune(&f).await, Pruned { runs: 1, blobs: 0 });
    assert_eq!(left(&f).await, [2]);
    assert_eq!(f.journal.load_runs(vec![key(1)], 0).await.unwrap(), []);
    // The id may be used again, and nothing of the old run comes back.
    f.append(vec![write(row(1), 0, 1)]).await.unwrap();
    assert_eq!(f.journal.read_entries(key(1), 1, 10).await.unwrap().len(), 1);
    let labels = [("a".to_owned(), "1".to_owned())].into();
    let found = f.journal.list_runs(RunQuery { labels, ..RunQuery::new(key(1).namespace) }).await.unwrap();
    assert_eq!(found.items.len(), 1);
}

pub(crate) async fn only_so_many_runs_stay(f: Fixture) {
    f.own().await;
    let mut writes: Vec<_> = (1..=5).map(|n| ended(n, Micros(f.now().0 + i64::try_from(n).unwrap()))).collect();
    // Another workflow has its own count.
    writes.push(write(RunRow { workflow: "other".into(), ..ended(6, f.now()).row }, 0, 1));
    f.append(writes).await.unwrap();
    assert_eq!(prune(&f).await, Pruned { runs: 3, blobs: 0 });
    assert_eq!(left(&f).await, [6, 5, 4]);
    assert_eq!(prune(&f).await, Pruned::default());
}

pub(crate) async fn a_blob_goes_with_its_last_user(f: Fixture) {
    f.own().await;
    let with_blob = |n: u128, after: i64| {
        let mut write = ended(n, Micros(f.now().0 + after));
        write.entries[0].payload = Bytes::from(vec![b'x'; 300 * 1024]);
        write
    };
    f.append(vec![with_blob(1, 1), ended(2, Micros(f.now().0 + 2)), with_blob(3, 3), ended(4, Micros(f.now().0 + 4))]).await.unwrap();
    assert_eq!(prune(&f).await, Pruned { runs: 2, blobs: 0 });
    assert_eq!(f.journal.read_entries(key(3), 1, 1).await.unwrap()[0].payload.len(), 300 * 1024);
    f.pass(DAY * 2);
    assert_eq!(prune(&f).await, Pruned { runs: 2, blobs: 1 });
}

pub(crate) async fn open_runs_stay(f: Fixture) {
    f.own().await;
    let reopened = RunRow { status: Status::Running, ..row(2) };
    f.append(vec![write(row(1), 0, 3000), ended(2, f.now()), ended(3, f.now())]).await.unwrap();
    f.append(vec![write(reopened, 1, 1)]).await.unwrap();
    f.pass(DAY * 9);
    assert_eq!(prune(&f).await, Pruned { runs: 1, blobs: 0 });
    assert_eq!(left(&f).await, [2, 1]);
    // A long run goes in several steps.
    f.append(vec![write(RunRow { status: Status::Cancelled, ended_at: Some(f.now()), ..row(1) }, 3000, 1)]).await.unwrap();
    f.pass(DAY * 2);
    assert_eq!(prune(&f).await, Pruned { runs: 1, blobs: 0 });
    assert_eq!(left(&f).await, [2]);
}
