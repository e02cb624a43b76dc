//! Runs a program until it ends or the operating system asks it to stop.

use crate::Tasks;
use std::{future::Future, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// Ends at SIGTERM or SIGINT (Ctrl-C), with the signal's name.
pub async fn stop_signal() -> anyhow::Result<&'static str> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::select! { _ = term.recv() => "SIGTERM", _ = int.recv() => "SIGINT" })
}

/// Waits for a stop signal or a failed task, drains for at most `limit`, then stops the tasks.
pub async fn until_stopped(tasks: &Tasks, limit: Duration, drain: impl Future<Output = ()>) -> anyhow::Result<()> {
    tokio::select! {
        name = stop_signal() => tracing::info!(target: "troupe", signal = name?, "stopping"),
        () = tasks.cancelled() => tracing::warn!(target: "troupe", "stopping: a server ended"),
    }
    if tokio::time::timeout(limit, drain).await.is_err() {
        tracing::warn!(target: "troupe", "the drain took too long and was cut off");
    }
    if !tasks.stop(limit).await {
        tracing::warn!(target: "troupe", "some tasks did not end in time");
    }
    Ok(())
}
