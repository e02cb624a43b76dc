//! Queues of effects: they never make a partition wait, and never grow without bound.

use crate::metrics::EFFECTS_DROPPED;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use tokio::sync::{Notify, mpsc};

/// The sending half. What does not fit is dropped, and the receiving half learns that something was.
pub(crate) struct Backlog<T> {
    sender: mpsc::UnboundedSender<T>,
    gauge: Arc<Gauge>,
}

impl<T> Clone for Backlog<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), gauge: Arc::clone(&self.gauge) }
    }
}

/// The receiving half.
pub(crate) struct Work<T> {
    receiver: mpsc::UnboundedReceiver<T>,
    gauge: Arc<Gauge>,
}

struct Gauge {
    target: &'static str,
    waiting: AtomicUsize,
    capacity: usize,
    dropped: AtomicBool,
    taken: Notify,
}

/// A queue of at most `capacity` items for `target`.
pub(crate) fn backlog<T>(target: &'static str, capacity: usize) -> (Backlog<T>, Work<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let gauge = Arc::new(Gauge { target, waiting: AtomicUsize::new(0), capacity, dropped: AtomicBool::new(false), taken: Notify::new() });
    (Backlog { sender, gauge: Arc::clone(&gauge) }, Work { receiver, gauge })
}

impl<T> Backlog<T> {
    pub(crate) fn push(&self, item: T) {
        if self.gauge.waiting.load(Ordering::Relaxed) >= self.gauge.capacity {
            self.gauge.dropped.store(true, Ordering::Release);
            metrics::counter!(EFFECTS_DROPPED, "target" => self.gauge.target).increment(1);
            return;
        }
        self.gauge.waiting.fetch_add(1, Ordering::Relaxed);
        // The receiver only goes away when the process stops: then nobody misses the item.
        let _ = self.sender.send(item);
    }

    /// Ends when fewer than `level` items wait.
    pub(crate) async fn below(&self, level: usize) {
        loop {
            let taken = self.gauge.taken.notified();
            if self.gauge.waiting.load(Ordering::Relaxed) < level {
                return;
            }
            taken.await;
        }
    }
}

impl<T> Work<T> {
    /// Waits for items and takes at most `most`; `false`: there will be none.
    pub(crate) async fn take(&mut self, into: &mut Vec<T>, most: usize) -> bool {
        let taken = self.receiver.recv_many(into, most).await;
        self.gauge.waiting.fetch_sub(taken, Ordering::Relaxed);
        self.gauge.taken.notify_waiters();
        taken > 0
    }

    /// Whether half of it is empty.
    pub(crate) fn has_room(&self) -> bool {
        self.gauge.waiting.load(Ordering::Relaxed) < self.gauge.capacity.div_ceil(2)
    }

    /// Whether something was dropped since the last time this was asked.
    pub(crate) fn overflowed(&self) -> bool {
        self.gauge.dropped.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_and_told() {
        let (backlog, mut work) = backlog("test", 2);
        for n in 0..3 {
            backlog.push(n);
        }
        let mut items = Vec::new();
        assert!(work.take(&mut items, 10).await);
        assert_eq!(items, [0, 1]);
        assert!(work.overflowed());
        assert!(!work.overflowed());
        backlog.below(1).await;
        backlog.push(3);
        assert!(work.take(&mut items, 10).await);
        assert_eq!(items, [0, 1, 3]);
    }
}
