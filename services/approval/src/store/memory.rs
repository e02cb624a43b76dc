//! Approvals in memory, for trying things out and for tests: gone with the process.

use super::{Change, Delivery, Listed, Query, Store, Update, first_delivery};
use crate::approval::{Approval, Key, Status, Time};
use async_trait::async_trait;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};
use troupe_domain::Error;

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Rows>);

#[derive(Debug)]
struct Row {
    approval: Approval,
    deliver_at: Option<Time>,
    attempts: u32,
}

#[derive(Debug, Default)]
struct Rows {
    last: i64,
    rows: BTreeMap<i64, Row>,
    ids: HashMap<Key, i64>,
    expiring: BTreeSet<(Time, i64)>,
    outbox: BTreeSet<(Time, i64)>,
}

impl Rows {
    fn insert(&mut self, approval: Approval) -> bool {
        if self.ids.contains_key(&approval.key) {
            return false;
        }
        self.last += 1;
        self.ids.insert(approval.key.clone(), self.last);
        self.put(self.last, Row { approval, deliver_at: None, attempts: 0 });
        true
    }

    fn put(&mut self, seq: i64, row: Row) {
        if let Some(old) = self.rows.get(&seq) {
            if let Some(at) = old.approval.expires_at {
                self.expiring.remove(&(at, seq));
            }
            if let Some(at) = old.deliver_at {
                self.outbox.remove(&(at, seq));
            }
        }
        if let (Status::Pending, Some(at)) = (row.approval.status, row.approval.expires_at) {
            self.expiring.insert((at, seq));
        }
        if let Some(at) = row.deliver_at {
            self.outbox.insert((at, seq));
        }
        self.rows.insert(seq, row);
    }

    fn deliver_at(&mut self, seq: i64, at: Option<Time>, attempts: u32) {
        if let Some(row) = self.rows.get(&seq) {
            let row = Row { approval: row.approval.clone(), deliver_at: at, attempts };
            self.put(seq, row);
        }
    }
}

impl MemoryStore {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        // A panicking holder leaves the rows usable: every change below is made by infallible steps.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn insert(&self, approvals: Vec<Approval>) -> Result<usize, Error> {
        let mut rows = self.rows();
        Ok(approvals.into_iter().map(|approval| rows.insert(approval)).filter(|new| *new).count())
    }

    async fn get(&self, key: Key) -> Result<Option<Approval>, Error> {
        let rows = self.rows();
        Ok(rows.ids.get(&key).and_then(|seq| rows.rows.get(seq)).map(|row| row.approval.clone()))
    }

    async fn list(&self, query: Query) -> Result<Listed, Error> {
        let rows = self.rows();
        let before = query.before.unwrap_or(i64::MAX);
        let fits = |a: &Approval| {
            a.key.namespace == query.namespace && query.statuses.contains(&a.status) && query.run.is_none_or(|run| run == a.run)
        };
        let mut found = rows.rows.range(..before).rev().filter(|(_, row)| fits(&row.approval));
        let page: Vec<_> = found.by_ref().take(query.limit).collect();
        let next = page.last().map(|(seq, _)| **seq).filter(|_| found.next().is_some());
        Ok(Listed { approvals: page.into_iter().map(|(_, row)| row.approval.clone()).collect(), next })
    }

    async fn update(&self, key: Key, change: Change) -> Result<Update, Error> {
        let mut rows = self.rows();
        let Some((seq, row)) = rows.ids.get(&key).copied().and_then(|seq| Some((seq, rows.rows.get(&seq)?))) else {
            return Ok(Update::Missing);
        };
        let Some(after) = change(&row.approval)? else { return Ok(Update::Unchanged) };
        let deliver_at = first_delivery(&row.approval, &after).or(row.deliver_at);
        let attempts = row.attempts;
        rows.put(seq, Row { approval: after.clone(), deliver_at, attempts });
        Ok(Update::Changed(Box::new(after)))
    }

    async fn count_pending(&self) -> Result<u64, Error> {
        Ok(self.rows().rows.values().filter(|row| row.approval.status == Status::Pending).count() as u64)
    }

    async fn pending(&self, after: i64, limit: usize) -> Result<Vec<(i64, Approval)>, Error> {
        let rows = self.rows();
        let pending = rows.rows.range(after.saturating_add(1)..).filter(|(_, row)| row.approval.status == Status::Pending);
        Ok(pending.take(limit).map(|(seq, row)| (*seq, row.approval.clone())).collect())
    }

    async fn due(&self, now: Time, limit: usize) -> Result<Vec<Key>, Error> {
        let rows = self.rows();
        let due = rows.expiring.iter().take_while(|(at, _)| *at <= now).take(limit);
        Ok(due.filter_map(|(_, seq)| rows.rows.get(seq)).map(|row| row.approval.key.clone()).collect())
    }

    async fn next_expiry(&self) -> Result<Option<Time>, Error> {
        Ok(self.rows().expiring.first().map(|(at, _)| *at))
    }

    async fn claim_deliveries(&self, now: Time, until: Time, limit: usize) -> Result<Vec<Delivery>, Error> {
        let mut rows = self.rows();
        let due: Vec<i64> = rows.outbox.iter().take_while(|(at, _)| *at <= now).take(limit).map(|(_, seq)| *seq).collect();
        let mut claimed = Vec::with_capacity(due.len());
        for seq in due {
            let Some(row) = rows.rows.get(&seq) else { continue };
            let attempt = row.attempts + 1;
            claimed.push(Delivery { approval: row.approval.clone(), attempt });
            rows.deliver_at(seq, Some(until), attempt);
        }
        Ok(claimed)
    }

    async fn finish_delivery(&self, key: Key, retry_at: Option<Time>) -> Result<(), Error> {
        let mut rows = self.rows();
        if let Some(seq) = rows.ids.get(&key).copied()
            && let Some(attempts) = rows.rows.get(&seq).map(|row| row.attempts)
        {
            rows.deliver_at(seq, retry_at, attempts);
        }
        Ok(())
    }

    async fn next_delivery(&self) -> Result<Option<Time>, Error> {
        Ok(self.rows().outbox.first().map(|(at, _)| *at))
    }

    async fn release_deliveries(&self, now: Time) -> Result<(), Error> {
        let mut rows = self.rows();
        let all: Vec<i64> = rows.outbox.iter().map(|(_, seq)| *seq).collect();
        for seq in all {
            let attempts = rows.rows.get(&seq).map_or(0, |row| row.attempts);
            rows.deliver_at(seq, Some(now), attempts);
        }
        Ok(())
    }

    async fn check(&self) -> Result<(), Error> {
        Ok(())
    }
}
