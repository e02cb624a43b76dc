//! Coming to the others at the start of the process.

use super::{LAST_WORDS, Leases, Place};
use crate::backoff::Backoff;
use std::time::Duration;
use tokio::time::Instant;
use troupe_domain::{Error, Result};
use troupe_proto::checkpoint::v1::PartitionLease;

/// How long a start waits for the journal.
const PATIENCE: Duration = Duration::from_secs(30);

/// The reason of the error of an executor that cannot share the journal with those who have it.
const TAKEN: &str = "JOURNAL_TAKEN";

impl Leases {
    /// Joins the live executors and takes what is free of its share, at the start of the process; whatever there is, where it is alone.
    /// Fails where it cannot work together with those who are there.
    pub(crate) async fn join(&mut self) -> Result<()> {
        let (mut backoff, begun) = (Backoff::default(), Instant::now());
        loop {
            match self.try_join().await {
                Ok(()) => return Ok(()),
                // One that has died has its lease until it ends.
                Err(cause) if cause.reason == TAKEN && begun.elapsed() > self.lease + Duration::from_secs(1) => return Err(cause),
                Err(cause) if begun.elapsed() > PATIENCE.max(self.lease * 2) => return Err(cause),
                Err(cause) => tracing::info!(%cause, "partitions cannot be had yet"),
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn try_join(&mut self) -> Result<()> {
        if self.place != Place::Alone {
            // Before others make room for it.
            let leases = self.in_time(self.shared.store.partitions()).await?;
            if let Some(taken) = leases.iter().find(|lease| self.is_in_the_way(lease)) {
                return Err(self.taken(&taken.owner));
            }
        }
        let known = self.renew().await?;
        let wanted: Vec<u32> = match self.place {
            Place::Alone => (0..self.shared.config.partitions).collect(),
            Place::Secluded | Place::Among => self.plan(&known).acquire,
        };
        let most = wanted.len();
        self.acquire(wanted, &known.leases, self.place == Place::Alone).await?;
        if self.place == Place::Secluded && self.held.len() < most {
            // Another one has come at the same moment.
            self.release_all(LAST_WORDS).await;
            return Err(self.taken("another one that starts"));
        }
        Ok(())
    }

    /// Whether a partition is held by somebody with whom this executor cannot share the journal.
    fn is_in_the_way(&self, lease: &PartitionLease) -> bool {
        let is_held = lease.remaining_ms > 0 && lease.owner != self.owner;
        is_held && (self.place == Place::Secluded || !lease.owner.contains('@'))
    }

    fn taken(&self, owner: &str) -> Error {
        let why = match self.place {
            Place::Secluded => "others cannot reach this process",
            Place::Alone | Place::Among => "it cannot be reached by others",
        };
        let error = Error::precondition(format!("this journal is in use by {owner}, and {why}")).with_reason(TAKEN);
        error.with_help("stop it first, or use another database; `troupe service executor` is what works together with others on one")
    }
}
