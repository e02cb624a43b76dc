//! Timers that are due soon. Those that are due later are rows of the journal's index.

use crate::{
    run::{Key, now},
    store::Store,
};
use chrono::TimeDelta;
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};
use tokio::time::Instant;
use troupe_domain::RunId;
use troupe_engine::Time;
use troupe_wire::time;

/// How far ahead timers are read from the journal.
const AHEAD: TimeDelta = TimeDelta::seconds(60);

/// Timers read at once.
const PAGE: u32 = 4_096;

/// The journal is not asked more often than this.
const SOON: Duration = Duration::from_millis(200);

/// How long a timer waits that could not be served.
const LATER: TimeDelta = TimeDelta::seconds(1);

/// Every run whose `wake_at` is not after `horizon` is here.
pub(super) struct Timers {
    partition: u32,
    due: BTreeSet<(Time, RunId)>,
    keys: HashMap<RunId, (Time, Key)>,
    horizon: Time,
    /// When the journal is asked again.
    refill_at: Instant,
}

impl Timers {
    pub(super) fn new(partition: u32) -> Self {
        Self { partition, due: BTreeSet::new(), keys: HashMap::new(), horizon: Time::MIN_UTC, refill_at: Instant::now() }
    }

    /// When the partition must look here next.
    pub(super) fn next_wake(&self) -> Instant {
        let Some((at, _)) = self.due.first() else { return self.refill_at };
        let wait = (*at - now()).to_std().unwrap_or(Duration::ZERO);
        self.refill_at.min(Instant::now() + wait)
    }

    /// Takes a run's next wake-up as its committed row says it.
    pub(super) fn set(&mut self, key: &Key, wake_at: Option<Time>) {
        self.remove(key.run);
        if let Some(at) = wake_at.filter(|at| *at <= self.horizon) {
            self.insert(key.clone(), at);
        }
    }

    /// Takes a timer that could not be served now.
    pub(super) fn postpone(&mut self, key: &Key) {
        self.remove(key.run);
        self.insert(key.clone(), now() + LATER);
    }

    fn insert(&mut self, key: Key, at: Time) {
        self.due.insert((at, key.run));
        self.keys.insert(key.run, (at, key));
    }

    fn remove(&mut self, run: RunId) {
        if let Some((at, _)) = self.keys.remove(&run) {
            self.due.remove(&(at, run));
        }
    }

    /// Takes at most `most` runs whose time has come.
    pub(super) fn take_due(&mut self, now: Time, most: usize) -> Vec<Key> {
        let mut keys = Vec::new();
        while keys.len() < most
            && let Some((at, run)) = self.due.first().copied()
            && at <= now
        {
            self.due.pop_first();
            if let Some((_, key)) = self.keys.remove(&run) {
                keys.push(key);
            }
        }
        keys
    }

    /// Reads what is due soon, when it is time to.
    pub(super) async fn refill(&mut self, store: &Store) {
        if Instant::now() < self.refill_at {
            return;
        }
        let before = now() + AHEAD;
        let rows = match store.due(self.partition, before, PAGE).await {
            Ok(rows) => rows,
            Err(cause) => {
                tracing::warn!(partition = self.partition, %cause, "timers cannot be read");
                self.refill_at = Instant::now() + Duration::from_secs(1);
                return;
            }
        };
        let complete = rows.len() < PAGE as usize;
        let last = rows.last().and_then(|row| time(row.wake_at.as_ref()));
        // A full page ends in the middle of what is due: what comes after it is read when the page has been served.
        self.horizon = last.filter(|_| !complete).unwrap_or(before);
        let covered = (self.horizon - now()).to_std().unwrap_or_default();
        self.refill_at = Instant::now() + (covered / 2).max(SOON);
        for row in rows {
            let key = row.key.as_ref().and_then(|key| Key::parse(&key.namespace, &key.run_id).ok());
            if let (Some(key), Some(at)) = (key, time(row.wake_at.as_ref()))
                && !self.keys.contains_key(&key.run)
            {
                self.insert(key, at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use troupe_domain::Namespace;

    fn key() -> Key {
        Key { namespace: Namespace::parse("").unwrap(), run: RunId::generate() }
    }

    #[test]
    fn a_run_has_one_timer_and_far_ones_are_left_to_the_journal() {
        let mut timers = Timers::new(0);
        let start = now();
        timers.horizon = start + AHEAD;
        let (a, b) = (key(), key());
        timers.set(&a, Some(start + TimeDelta::seconds(5)));
        timers.set(&a, Some(start + TimeDelta::seconds(2)));
        timers.set(&b, Some(start + TimeDelta::hours(1)));
        assert_eq!(timers.due.len(), 1);
        assert!(timers.take_due(start + TimeDelta::seconds(1), 10).is_empty());
        assert_eq!(timers.take_due(start + TimeDelta::seconds(2), 10), std::slice::from_ref(&a));
        timers.set(&a, Some(start));
        timers.set(&a, None);
        assert!(timers.due.is_empty() && timers.keys.is_empty());
    }
}
