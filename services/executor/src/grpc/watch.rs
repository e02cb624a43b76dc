//! A run's events: lifecycle changes in the order of the journal, and chunks as they come.
//!
//! Changes come from the journal up to now, then from the partition as they become durable; a watcher that falls behind reads the
//! journal again. Chunks come from the event bus and are passed on before the change that follows them.

mod chunks;
mod cursor;
mod outlet;
pub(super) mod relay;

use super::Api;
use crate::{
    message::{Live, Op, change_json},
    routing::moving,
    run::{Key, changes_of},
    view,
};
use chunks::Chunks;
use cursor::Cursor;
use outlet::Outlet;
use std::{sync::Arc, time::Duration};
use tokio::sync::broadcast::{self, error::RecvError};
use troupe_domain::{Error, Result};
use troupe_engine::run::Change;
use troupe_proto::{checkpoint::v1 as pb, executor::v1 as wire};
use troupe_wire::timestamp;

/// Entries read at once.
const PAGE: u32 = 200;

/// At a run's end, chunks are taken until none has come for so long.
const QUIET: Duration = Duration::from_millis(20);

struct Watch {
    api: Api,
    key: Key,
    live: broadcast::Receiver<Arc<Live>>,
    chunks: Chunks,
    /// Where the stream is.
    cursor: Cursor,
    /// The newest entry that is known, and whether the run has ended with it.
    newest: u64,
    ended: bool,
}

/// Why a stream ends.
enum Stop {
    /// The run has ended and all was sent.
    Ended,
    /// Nobody listens any more.
    Gone,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Watch {
    /// Fails when there is no such run, or the cursor is none of its.
    async fn open(api: &Api, key: &Key, request: &wire::WatchRunRequest) -> Result<Self> {
        let cursor = Cursor::parse(&request.cursor)?;
        // From here on no change is missed; what was before is in the journal.
        let live = api.shared.router.ask(key.clone(), |reply| Op::Watch { reply }).await?;
        let summary = api.store().load(&[key.wire()], 0).await?.into_iter().next().and_then(|run| run.summary);
        let summary = summary.ok_or_else(|| key.not_found())?;
        if cursor.seq > summary.seq {
            return Err(Error::invalid_field("cursor", "is beyond the run's last event: it is of another run"));
        }
        let ended = view::has_ended(&summary);
        let topic = (!request.lifecycle_only).then(|| format!("run/{}/{}", key.namespace, key.run));
        let chunks = Chunks::new(api.shared.scheduler.clone(), topic, cursor.bus.clone());
        Ok(Self { api: api.clone(), key: key.clone(), live, chunks, cursor, newest: summary.seq, ended })
    }

    /// Where the stream is, for whoever goes on with it.
    fn position(&self) -> String {
        self.cursor.text()
    }

    async fn run(&mut self, outlet: &mut Outlet) -> Stop {
        let Err(stop) = self.follow(outlet).await else { return Stop::Ended };
        stop
    }

    async fn follow(&mut self, outlet: &mut Outlet) -> Result<(), Stop> {
        self.chunks.open().await;
        self.catch_up(outlet).await?;
        loop {
            if self.ended && self.cursor.seq >= self.newest {
                return Ok(());
            }
            tokio::select! {
                biased;
                chunk = self.chunks.next() => self.pass(chunk, outlet).await?,
                live = self.live.recv() => match live {
                    Ok(live) => {
                        while let Some(chunk) = self.chunks.ready() {
                            self.pass(chunk, outlet).await?;
                        }
                        (self.newest, self.ended) = (live.seq, live.ended);
                        self.emit(live.seq, timestamp(live.at), &live.changes, outlet).await?;
                    }
                    Err(RecvError::Lagged(_)) => self.catch_up(outlet).await?,
                    Err(RecvError::Closed) => return Err(moving().into()),
                },
            }
        }
    }

    /// Sends what the journal has after the cursor.
    async fn catch_up(&mut self, outlet: &mut Outlet) -> Result<(), Stop> {
        // The entry of the cursor comes again: not all of it may have been sent.
        let mut from = self.cursor.seq.max(1);
        loop {
            let entries = self.api.store().entries(self.key.wire(), from, PAGE).await?;
            let Some(last) = entries.last().map(|entry| entry.seq) else { return Ok(()) };
            from = last + 1;
            for entry in &entries {
                if entry.seq > self.newest {
                    (self.newest, self.ended) = (entry.seq, view::ends(entry));
                }
                self.emit_entry(entry, outlet).await?;
            }
        }
    }

    async fn emit_entry(&mut self, entry: &pb::JournalEntry, outlet: &mut Outlet) -> Result<(), Stop> {
        let at = entry.at.unwrap_or_default();
        self.emit(entry.seq, at, &changes_of(entry), outlet).await
    }

    /// Sends the changes of one entry that are not behind the cursor.
    async fn emit(&mut self, seq: u64, at: prost_types::Timestamp, changes: &[Change], outlet: &mut Outlet) -> Result<(), Stop> {
        if seq < self.cursor.seq {
            return Ok(());
        }
        if self.ended && seq == self.newest {
            self.drain_chunks(outlet).await?;
        }
        for (change, index) in changes.iter().zip(0..) {
            if !self.cursor.is_before(seq, index) {
                continue;
            }
            self.cursor.advance(seq, index);
            let event = wire::WatchRunResponse {
                cursor: self.cursor.text(),
                kind: change.kind.clone(),
                at: Some(at),
                step: change.step.clone(),
                data: change_json(change),
            };
            outlet.send(event).await?;
        }
        self.cursor.pass_entry(seq);
        Ok(())
    }

    /// Sends the chunks that are still on their way before the run's last event.
    async fn drain_chunks(&mut self, outlet: &mut Outlet) -> Result<(), Stop> {
        while let Ok(chunk) = tokio::time::timeout(QUIET, self.chunks.next()).await {
            self.pass(chunk, outlet).await?;
        }
        Ok(())
    }

    async fn pass(&mut self, chunk: chunks::Chunk, outlet: &mut Outlet) -> Result<(), Stop> {
        self.cursor.bus = chunk.cursor;
        let Some(event) = chunk.event else { return Ok(()) };
        let event =
            wire::WatchRunResponse { cursor: self.cursor.text(), kind: event.kind, at: event.at, step: event.step, data: event.data };
        outlet.send(event).await
    }
}
