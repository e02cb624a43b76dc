//! PostgreSQL, its disk, and Redis.

use super::{NotHere, Notes, Seen};
use crate::{plan::Planned, stage::Stage};
use anyhow::{Context, ensure};
use tokio::time::sleep;

pub(super) async fn kill_redis(stage: &Stage, planned: Planned, notes: &mut Notes) -> anyhow::Result<String> {
    notes.victim = "redis".to_owned();
    let mut redis = stage.redis.lock().await;
    redis.kill()?;
    ensure!(redis.flush().is_err(), "it still answers");
    sleep(planned.length).await;
    redis.begin()?;
    redis.ready().await?;
    Ok("it died, and came back empty".to_owned())
}

pub(super) async fn flush_redis(stage: &Stage, notes: &mut Notes) -> anyhow::Result<String> {
    notes.victim = "redis".to_owned();
    stage.redis.lock().await.flush()?;
    Ok("it said OK".to_owned())
}

pub(super) async fn kill_postgres(stage: &Stage, planned: Planned, notes: &mut Notes) -> anyhow::Result<String> {
    notes.victim = "postgres".to_owned();
    let mut postgres = stage.postgres.lock().await;
    postgres.kill()?;
    ensure!(!postgres.is_ready(), "it still answers");
    sleep(planned.length).await;
    postgres.restart().await?;
    Ok("it died, and recovered".to_owned())
}

pub(super) async fn restart_postgres(stage: &Stage, planned: Planned, notes: &mut Notes) -> anyhow::Result<String> {
    notes.victim = "postgres".to_owned();
    let mut postgres = stage.postgres.lock().await;
    postgres.stop().await?;
    sleep(planned.length).await;
    postgres.restart().await?;
    Ok("it stopped in order, and started".to_owned())
}

pub(super) async fn fill_disk(stage: &Stage, planned: Planned, notes: &mut Notes) -> Seen {
    notes.victim = "postgres".to_owned();
    let disk = match &stage.disk {
        Ok(disk) => disk,
        Err(why) => return Ok(Err(NotHere(why.clone()))),
    };
    let mut postgres = stage.postgres.lock().await;
    let filled = disk.fill()?;
    sleep(planned.length).await;
    // What was freed meanwhile was used again, or is filled up now: nothing has gone in.
    let more = disk.fill_more()?;
    disk.clear()?;
    let died = !postgres.is_running();
    postgres.restart().await.context("after the disk had room again")?;
    let end = if died { "it died of it, and recovered" } else { "it lived" };
    Ok(Ok(format!("{filled} MiB filled it, {more} more in {:.1} s; {end}", planned.length.as_secs_f64())))
}
