//! Where approvals are kept. Every implementation passes `tests/store_contract.rs`.

mod body;
pub mod memory;
pub mod postgres;
pub mod sqlite;

use crate::approval::{Approval, Key, Status, Time};
use async_trait::async_trait;
use std::time::Duration;
use troupe_domain::{Error, Namespace, RunId};

/// What to make of an approval: `None` leaves it. It runs inside the write, so nothing comes between looking and writing; more than once
/// when the write has to be done again, and the last time counts.
pub type Change = Box<dyn Fn(&Approval) -> Result<Option<Approval>, Error> + Send + Sync>;

/// What became of a [`Store::update`].
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    Missing,
    Unchanged,
    Changed(Box<Approval>),
}

/// What to list: newest first.
#[derive(Clone, Debug)]
pub struct Query {
    pub namespace: Namespace,
    pub statuses: Vec<Status>,
    pub run: Option<RunId>,
    /// Only older than this position.
    pub before: Option<i64>,
    pub limit: usize,
}

/// A page, and the position to go on from when there is more.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub approvals: Vec<Approval>,
    pub next: Option<i64>,
}

/// An outcome that must be told to its run.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    pub approval: Approval,
    /// Which try this is, from 1.
    pub attempt: u32,
}

/// Every write is durable when it is answered. A settled approval (but for a withdrawn one) is in the outbox from the same write on.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Stores those whose id is new, all or none; answers how many were.
    async fn insert(&self, approvals: Vec<Approval>) -> Result<usize, Error>;

    async fn get(&self, key: Key) -> Result<Option<Approval>, Error>;

    async fn list(&self, query: Query) -> Result<Listed, Error>;

    async fn update(&self, key: Key, change: Change) -> Result<Update, Error>;

    async fn count_pending(&self) -> Result<u64, Error>;

    /// Pending ones of all namespaces, the oldest first, after this position; each with its own.
    async fn pending(&self, after: i64, limit: usize) -> Result<Vec<(i64, Approval)>, Error>;

    /// Pending ones whose time has come, the longest due first.
    async fn due(&self, now: Time, limit: usize) -> Result<Vec<Key>, Error>;

    /// When the next pending one expires.
    async fn next_expiry(&self) -> Result<Option<Time>, Error>;

    /// Takes outcomes that are due for delivery; nobody gets them again before `until`.
    async fn claim_deliveries(&self, now: Time, until: Time, limit: usize) -> Result<Vec<Delivery>, Error>;

    /// Ends a delivery for good, or puts it off.
    async fn finish_delivery(&self, key: Key, retry_at: Option<Time>) -> Result<(), Error>;

    /// When the next delivery is due.
    async fn next_delivery(&self) -> Result<Option<Time>, Error>;

    /// At the start of a process that has the store for itself: makes all deliveries due now, because claims are of a process that is gone.
    async fn release_deliveries(&self, now: Time) -> Result<(), Error>;

    /// How often to look for what other replicas wrote; none when nobody else writes.
    fn look_every(&self) -> Option<Duration> {
        None
    }

    /// Whether the store works.
    async fn check(&self) -> Result<(), Error>;
}

/// When the outcome of a changed approval is first delivered.
fn first_delivery(before: &Approval, after: &Approval) -> Option<Time> {
    let settled = before.status == Status::Pending && !matches!(after.status, Status::Pending | Status::Withdrawn);
    settled.then(|| after.decided_at.unwrap_or(after.requested_at))
}
