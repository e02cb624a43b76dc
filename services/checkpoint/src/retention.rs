//! Removes what retention no longer keeps, now and then.

use crate::{Clock, Config, Journal};
use std::{sync::Arc, time::Duration};
use tokio::time::MissedTickBehavior;
use troupe_service_kit::Tasks;

/// Runs until the process is told to stop. The first removal comes one interval after the start.
pub(crate) async fn run(journal: Arc<dyn Journal>, config: Config, clock: Clock, tasks: Tasks) {
    let every = Duration::from_secs(config.prune_interval_seconds);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = tasks.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let removal = journal.prune(config.retention(clock.now()));
        let outcome = tokio::select! {
            () = tasks.cancelled() => return,
            outcome = removal => outcome,
        };
        match outcome {
            Ok(pruned) if pruned.runs > 0 => tracing::info!(runs = pruned.runs, blobs = pruned.blobs, "retention removed runs"),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "retention failed; the next interval tries again"),
        }
    }
}
