//! One topic: what it keeps, and who listens.

use super::BusSettings;
use crate::clock::Millis;
use prost::Message;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::mpsc;
use troupe_proto::scheduler::v1::Event;

/// Memory that an event takes beside its encoded size.
const OVERHEAD: usize = 128;

#[derive(Clone)]
pub(super) struct Stored {
    pub(super) seq: u64,
    pub(super) at: Millis,
    pub(super) event: Arc<Event>,
}

impl Stored {
    fn size(&self) -> usize {
        self.event.encoded_len() + OVERHEAD
    }
}

/// The reading end of a subscription.
pub(super) struct Subscriber {
    /// What was kept when it joined.
    pub(super) past: VecDeque<Stored>,
    pub(super) receiver: mpsc::Receiver<Stored>,
    pub(super) lagged: Arc<AtomicBool>,
}

impl Subscriber {
    pub(super) fn has_lagged(&self) -> bool {
        self.lagged.load(Ordering::Acquire)
    }
}

#[derive(Default)]
pub(super) struct Topic {
    kept: VecDeque<Stored>,
    bytes: usize,
    subscribers: Vec<(mpsc::Sender<Stored>, Arc<AtomicBool>)>,
}

impl Topic {
    /// Gives an event to all who listen; who has no room left is cut off.
    pub(super) fn give(&mut self, stored: &Stored) {
        self.subscribers.retain(|(sender, lagged)| match sender.try_send(stored.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                lagged.store(true, Ordering::Release);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
    }

    pub(super) fn keep(&mut self, stored: Stored, settings: &BusSettings, now: Millis) {
        self.bytes += stored.size();
        self.kept.push_back(stored);
        let oldest = now.saturating_sub(settings.age);
        // The newest stays, whatever its size: the bus as a whole is bounded too.
        while self.kept.len() > 1
            && (self.kept.len() > settings.events || self.bytes > settings.topic_bytes || self.kept.front().is_some_and(|e| e.at < oldest))
        {
            self.bytes -= self.kept.pop_front().map_or(0, |e| e.size());
        }
    }

    /// What is kept after `seq` and is not older than `oldest`.
    pub(super) fn after(&self, seq: u64, oldest: Millis) -> Vec<Stored> {
        let start = self.kept.partition_point(|e| e.seq <= seq || e.at < oldest);
        self.kept.range(start..).cloned().collect()
    }

    pub(super) fn join(&mut self, sender: mpsc::Sender<Stored>) -> Arc<AtomicBool> {
        let lagged = Arc::new(AtomicBool::new(false));
        self.subscribers.push((sender, Arc::clone(&lagged)));
        lagged
    }

    /// Forgets who has gone, and says whether somebody is left.
    pub(super) fn has_subscribers(&mut self) -> bool {
        self.subscribers.retain(|(sender, _)| !sender.is_closed());
        !self.subscribers.is_empty()
    }

    /// The sequence number of the newest event kept; 0: none.
    pub(super) fn newest(&self) -> u64 {
        self.kept.back().map_or(0, |e| e.seq)
    }

    pub(super) fn newest_at(&self) -> Millis {
        self.kept.back().map_or(0, |e| e.at)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.bytes = 0;
    }
}
