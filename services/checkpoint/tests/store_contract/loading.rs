use crate::fixture::{Fixture, ended, entry, key, namespace, row, snapshot, write};
use bytes::Bytes;
use troupe_checkpoint::model::{Entry, Micros, RunKey, RunRow, RunWrite, Status};

pub(crate) async fn states_at_any_number_are_read(f: Fixture) {
    f.own().await;
    for seq in 0..10 {
        // Snapshots after 3, 6 and 9.
        let snapshot = if (seq + 1) % 3 == 0 { snapshot(seq + 1) } else { None };
        f.append(vec![RunWrite { snapshot, ..write(row(1), seq, 1) }]).await.unwrap();
    }
    for at in 0..=12 {
        let last: u64 = if at == 0 { 10 } else { at.min(10) };
        let run = f.journal.load_runs(vec![key(1)], at).await.unwrap().remove(0);
        let from = last / 3 * 3;
        assert_eq!(run.snapshot.map_or(0, |snapshot| snapshot.seq), from, "at {at}");
        assert_eq!(run.entries, (from + 1..=last).map(entry).collect::<Vec<_>>(), "at {at}");
    }
}

pub(crate) async fn snapshots_are_thinned_at_the_end(f: Fixture) {
    f.own().await;
    for seq in 0..5 {
        f.append(vec![RunWrite { snapshot: snapshot(seq + 1), ..write(row(1), seq, 1) }]).await.unwrap();
    }
    assert_eq!(f.journal.load_runs(vec![key(1)], 1).await.unwrap()[0].snapshot, snapshot(1));
    let done = RunRow { status: Status::Succeeded, ended_at: Some(Micros(9)), ..row(1) };
    f.append(vec![write(done, 5, 1)]).await.unwrap();
    // Three are kept: 3, 4 and 5. Older states come from the entries.
    assert_eq!(f.journal.load_runs(vec![key(1)], 3).await.unwrap()[0].snapshot, snapshot(3));
    let old = f.journal.load_runs(vec![key(1)], 2).await.unwrap().remove(0);
    assert_eq!((old.snapshot, old.entries), (None, vec![entry(1), entry(2)]));
}

pub(crate) async fn open_runs_come_in_pages(f: Fixture) {
    f.own().await;
    let mut writes: Vec<_> = (1..=5).rev().map(|n| write(row(n), 0, 2)).collect();
    let twin = RunKey { namespace: namespace("other"), ..key(2) };
    writes.push(write(RunRow { key: twin.clone(), ..row(2) }, 0, 1));
    writes.push(ended(6, Micros(1)));
    f.append(writes).await.unwrap();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = f.journal.load_open_runs(0, 2, after).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.row.key.id);
        assert!(page.iter().all(|run| !run.entries.is_empty()));
        seen.extend(page.into_iter().map(|run| run.row.key));
    }
    assert_eq!(seen.len(), 6);
    assert!(seen.is_sorted_by_key(|key| key.id) && seen.contains(&twin));
    assert_eq!(f.journal.load_open_runs(1, 2, None).await.unwrap(), []);
}

pub(crate) async fn due_runs_come_soonest_first(f: Fixture) {
    f.own().await;
    let waiting = |n: u128, at: i64| write(RunRow { wake_at: Some(Micros(at)), ..row(n) }, 0, 1);
    f.append(vec![waiting(1, 300), waiting(2, 100), waiting(3, 200), waiting(4, 400), write(row(5), 0, 1)]).await.unwrap();
    let due = async |before: i64, limit: usize| {
        let runs = f.journal.list_due(0, Micros(before), limit).await.unwrap();
        runs.into_iter().map(|run| (run.key.id.0.as_u128(), run.wake_at.0)).collect::<Vec<_>>()
    };
    assert_eq!(due(300, 10).await, [(2, 100), (3, 200), (1, 300)]);
    assert_eq!(due(300, 2).await, [(2, 100), (3, 200)]);
    // The timer moves, and goes.
    f.append(vec![write(RunRow { wake_at: Some(Micros(500)), ..row(2) }, 1, 1), write(row(3), 1, 1)]).await.unwrap();
    assert_eq!(due(450, 10).await, [(1, 300), (4, 400)]);
}

pub(crate) async fn large_payloads_come_back_whole(f: Fixture) {
    f.own().await;
    let large = Bytes::from(vec![b'x'; 300 * 1024]);
    let with = |mut write: RunWrite| {
        write.entries[0].payload = large.clone();
        write
    };
    f.append(vec![with(write(row(1), 0, 1)), with(write(row(2), 0, 1))]).await.unwrap();
    f.append(vec![with(write(row(1), 1, 1))]).await.unwrap();
    let expected = |seq| Entry { payload: large.clone(), ..entry(seq) };
    assert_eq!(f.journal.read_entries(key(1), 1, 10).await.unwrap(), [expected(1), expected(2)]);
    assert_eq!(f.journal.load_runs(vec![key(2)], 0).await.unwrap()[0].entries, [expected(1)]);
}

pub(crate) async fn entries_are_bounded(f: Fixture) {
    f.own().await;
    let mut big = write(row(1), 0, 5);
    for (i, entry) in (0_u8..).zip(&mut big.entries) {
        entry.payload = Bytes::from(vec![i; 3 << 20]);
    }
    f.append(vec![big]).await.unwrap();
    let seqs = async |from: u64, limit: usize| {
        f.journal.read_entries(key(1), from, limit).await.unwrap().into_iter().map(|entry| entry.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(1, 10).await, [1, 2]);
    assert_eq!(seqs(3, 1).await, [3]);
    assert_eq!(seqs(5, 10).await, [5]);
    assert!(seqs(6, 10).await.is_empty());
}
