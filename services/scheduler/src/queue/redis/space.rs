//! What a scheduler knows of one namespace in Redis.

use super::RedisQueue;
use crate::link::reply::{array, text};
use std::collections::HashSet;
use tokio::time::Instant;
use troupe_domain::Error;

#[derive(Debug, Default)]
pub(super) struct Space {
    /// Empty: nothing of the namespace has been seen in Redis yet.
    pub(super) generation: String,
    /// Scripts of this scheduler run in this generation, when last heard of.
    pub(super) ops: u64,
    pub(super) count: usize,
    pub(super) due: Option<u64>,
    /// It is among the names that schedulers look through.
    pub(super) listed: bool,
}

impl Space {
    /// Whether an answer shows that Redis has forgotten something: another generation, or no more of this scheduler's scripts run than had
    /// been when the question was sent (a copy from before has taken over). What others wrote is for them to miss. A question from before a loss that is known was counted in another generation.
    pub(super) fn is_lost(&self, generation: &str, ops: u64, ops_before: u64) -> bool {
        !self.generation.is_empty() && (self.generation != generation || (ops <= ops_before && ops_before <= self.ops))
    }
}

impl RedisQueue {
    fn names(&self) -> String {
        format!("{{{}}}:namespaces", self.prefix)
    }

    /// Other schedulers shall look through this namespace too.
    pub(super) async fn remember(&mut self, namespace: &str) -> Result<(), Error> {
        if self.spaces.get(namespace).is_none_or(|space| space.listed) {
            return Ok(());
        }
        self.link.run(redis::cmd("SADD").arg(self.names()).arg(namespace)).await?;
        if let Some(space) = self.spaces.get_mut(namespace) {
            space.listed = true;
        }
        Ok(())
    }

    /// Takes note of namespaces that others have begun.
    pub(super) async fn list_namespaces(&mut self) -> Result<(), Error> {
        if self.listed.is_some_and(|at| at.elapsed() < self.look / 2) {
            return Ok(());
        }
        let answer = self.link.run(redis::cmd("SMEMBERS").arg(self.names())).await?;
        let names = array(answer)?.into_iter().map(text).collect::<Result<HashSet<String>, Error>>()?;
        let missing: Vec<Box<str>> = self.spaces.keys().filter(|known| !names.contains(&***known)).cloned().collect();
        for name in missing {
            if let Some(space) = self.spaces.get_mut(&name) {
                space.listed = false;
            }
            self.remember(&name).await?;
        }
        for name in names {
            self.spaces.entry(name.into()).or_default().listed = true;
        }
        self.listed = Some(Instant::now());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_back_or_begins_anew_was_lost() {
        let space = Space { generation: "g".into(), ops: 7, ..Space::default() };
        assert!(!space.is_lost("g", 8, 7));
        assert!(space.is_lost("g", 7, 7) && space.is_lost("", 0, 7) && space.is_lost("h", 100, 7));
        assert!(!Space::default().is_lost("g", 1, 0));
        assert!(!space.is_lost("g", 8, 900), "sent before the loss, and answered after it: one loss is told once");
    }
}
