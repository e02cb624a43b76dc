//! Definitions in memory, for trying things out and for tests: gone with the process.

use super::{Put, Store};
use crate::agent::{Active, Definition, Key, Standing, Time};
use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use troupe_domain::Error;

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Rows>);

#[derive(Debug, Default)]
struct Rows {
    agents: BTreeMap<Key, Agent>,
    standings: BTreeMap<Key, Standing>,
}

#[derive(Debug)]
struct Agent {
    active: String,
    created_at: Time,
    updated_at: Time,
    /// In the order of their first application.
    versions: Vec<Definition>,
}

impl Agent {
    fn active(&self) -> Option<Active> {
        let definition = self.versions.iter().find(|d| d.version == self.active)?;
        let definition = Definition { source: String::new(), ..definition.clone() };
        Some(Active { definition, created_at: self.created_at, updated_at: self.updated_at })
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
    async fn load(&self) -> Result<(Vec<Active>, Vec<(Key, Standing)>), Error> {
        let rows = self.rows();
        let standings = rows.standings.iter().map(|(key, standing)| (key.clone(), standing.clone())).collect();
        Ok((rows.agents.values().filter_map(Agent::active).collect(), standings))
    }

    async fn version(&self, key: Key, version: String) -> Result<Option<Definition>, Error> {
        Ok(self.rows().agents.get(&key).and_then(|agent| agent.versions.iter().find(|d| d.version == version).cloned()))
    }

    async fn put(&self, definition: Definition, now: Time, keep: usize) -> Result<Put, Error> {
        let mut rows = self.rows();
        let new = || Agent { active: String::new(), created_at: now, updated_at: now, versions: Vec::new() };
        let agent = rows.agents.entry(definition.key.clone()).or_insert_with(new);
        let known = agent.versions.iter().find(|d| d.version == definition.version);
        if known.is_some_and(|known| known.hash != definition.hash) {
            return Ok(Put::Conflict);
        }
        let created = known.is_none();
        if agent.active != definition.version {
            agent.active.clone_from(&definition.version);
            agent.updated_at = now;
        }
        let active = Box::new(Active {
            definition: Definition { source: String::new(), ..definition.clone() },
            created_at: agent.created_at,
            updated_at: agent.updated_at,
        });
        if created {
            agent.versions.push(definition);
        }
        let surplus = agent.versions.len().saturating_sub(keep);
        let mut dropped = 0;
        agent.versions.retain(|d| {
            let drop = dropped < surplus && d.version != agent.active;
            dropped += usize::from(drop);
            !drop
        });
        Ok(Put::Stored { created, active })
    }

    async fn delete(&self, key: Key) -> Result<bool, Error> {
        let mut rows = self.rows();
        let agent = rows.agents.remove(&key).is_some();
        Ok(rows.standings.remove(&key).is_some() || agent)
    }

    async fn set_standing(&self, key: Key, standing: Standing) -> Result<(), Error> {
        self.rows().standings.insert(key, standing);
        Ok(())
    }

    async fn check(&self) -> Result<(), Error> {
        Ok(())
    }
}
