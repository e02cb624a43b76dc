//! What everything else stands on: the disk's time for a sync, PostgreSQL's for a commit, and the system's to wake somebody who waits.

use super::{
    millis, percentile,
    table::{Column, Table},
};
use sqlx::{Connection, Executor, PgConnection};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const TIMES: usize = 300;
const WAKE: &str = "another thread is asked and answers, p50: over a channel (embedded), over loopback (distributed)";

/// What `column` is compared with, measured just before it: a machine's neighbours come and go.
pub(super) fn embedded(folder: &Path, column: Column, table: &mut Table) -> anyhow::Result<()> {
    let (append, sync) = (sync_time(folder, false)?, sync_time(folder, true)?);
    let shown = format!("{:.3} / {:.3} ms", millis(append), millis(sync));
    table.row("disk: write 4 KiB and sync, p50, appended / in place", column, shown);
    table.unit(column, sync);
    table.row(WAKE, column, format!("{:.3} ms", millis(channel_time()?)));
    Ok(())
}

/// The same for separate processes.
pub(super) async fn distributed(postgres: &str, column: Column, table: &mut Table) -> anyhow::Result<()> {
    table.row(WAKE, column, format!("{:.3} ms", millis(loopback_time()?)));
    if !postgres.is_empty() {
        let commit = commit_time(postgres).await?;
        table.row("PostgreSQL: insert and commit, p50", column, format!("{:.3} ms", millis(commit)));
        table.unit(column, commit);
    }
    Ok(())
}

/// SQLite's log grows at first, and is then written in place.
fn sync_time(folder: &Path, in_place: bool) -> anyhow::Result<Duration> {
    let mut file = File::create(folder.join("sync"))?;
    let mut times = Vec::new();
    for _ in 0..TIMES {
        if in_place {
            file.seek(SeekFrom::Start(0))?;
        }
        file.write_all(&[7; 4096])?;
        let start = Instant::now();
        file.sync_data()?;
        times.push(start.elapsed());
    }
    Ok(percentile(&mut times, 50))
}

/// To another thread and back.
fn channel_time() -> anyhow::Result<Duration> {
    let (ask, asked) = mpsc::channel::<()>();
    let (answer, answered) = mpsc::channel();
    let other = thread::spawn(move || while asked.recv().is_ok_and(|()| answer.send(()).is_ok()) {});
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let start = Instant::now();
        ask.send(())?;
        answered.recv()?;
        times.push(start.elapsed());
    }
    drop(ask);
    // Its end is all there is to it.
    let _ = other.join();
    Ok(percentile(&mut times, 50))
}

/// One byte to another thread and back, as it takes for a call between processes at the least.
fn loopback_time() -> anyhow::Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut ask = TcpStream::connect(listener.local_addr()?)?;
    let (mut asked, _) = listener.accept()?;
    ask.set_nodelay(true)?;
    asked.set_nodelay(true)?;
    let other = thread::spawn(move || {
        let mut byte = [0];
        while asked.read_exact(&mut byte).is_ok() && asked.write_all(&byte).is_ok() {}
    });
    let (mut times, mut byte) = (Vec::new(), [0]);
    for _ in 0..TIMES {
        let start = Instant::now();
        ask.write_all(&byte)?;
        ask.read_exact(&mut byte)?;
        times.push(start.elapsed());
    }
    drop(ask);
    // Its end is all there is to it.
    let _ = other.join();
    Ok(percentile(&mut times, 50))
}

/// One row and one commit at a time, over one connection.
async fn commit_time(url: &str) -> anyhow::Result<Duration> {
    let mut connection = PgConnection::connect(url).await?;
    connection
        .execute("CREATE SCHEMA IF NOT EXISTS troupe_bench; CREATE TABLE IF NOT EXISTS troupe_bench.commits (n bigint, body text)")
        .await?;
    let mut times = Vec::new();
    for n in 0..TIMES {
        let start = Instant::now();
        let number = i64::try_from(n)?;
        sqlx::query("INSERT INTO troupe_bench.commits VALUES ($1, $2)").bind(number).bind("x".repeat(200)).execute(&mut connection).await?;
        times.push(start.elapsed());
    }
    connection.execute("DROP SCHEMA troupe_bench CASCADE").await?;
    Ok(percentile(&mut times, 50))
}
