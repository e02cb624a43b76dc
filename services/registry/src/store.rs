//! Where definitions and standings are kept. Every implementation passes `tests/store_contract.rs`.

pub mod memory;
pub mod postgres;
pub mod sqlite;

use crate::agent::{Active, Definition, Key, Standing, Time};
use async_trait::async_trait;
use troupe_domain::Error;

/// What became of a [`Store::put`].
#[derive(Clone, Debug, PartialEq)]
pub enum Put {
    /// It is the active one now. `created`: this version was not known before.
    Stored { created: bool, active: Box<Active> },
    /// The version exists with other content; nothing was changed.
    Conflict,
}

/// Every write is durable when it is answered, and whole or not there.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The active definitions of all agents, without their sources, and all standings.
    async fn load(&self) -> Result<(Vec<Active>, Vec<(Key, Standing)>), Error>;

    /// One version with its source.
    async fn version(&self, key: Key, version: String) -> Result<Option<Definition>, Error>;

    /// Keeps a version and makes it the active one. Of more than `keep` versions the oldest are dropped, never the active one.
    async fn put(&self, definition: Definition, now: Time, keep: usize) -> Result<Put, Error>;

    /// Drops all versions and the standing; answers whether there was anything.
    async fn delete(&self, key: Key) -> Result<bool, Error>;

    async fn set_standing(&self, key: Key, standing: Standing) -> Result<(), Error>;

    /// Whether the store works.
    async fn check(&self) -> Result<(), Error>;
}
