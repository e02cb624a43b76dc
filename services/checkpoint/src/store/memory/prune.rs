//! Removing ended runs.

use super::{State, Stored};
use crate::model::{Pruned, Retention, RunKey};
use std::{cmp::Reverse, collections::HashMap};

impl State {
    pub(super) fn prune(&mut self, rules: Retention) -> Pruned {
        let mut pruned = Pruned::default();
        for key in self.prunable(rules) {
            let Some(stored) = self.runs.remove(&key) else { continue };
            self.leave_indexes(&stored);
            pruned.runs += 1;
            pruned.blobs += self.release_blobs(&stored);
        }
        pruned
    }

    fn prunable(&self, rules: Retention) -> Vec<RunKey> {
        let mut groups: HashMap<_, Vec<&Stored>> = HashMap::new();
        for stored in self.runs.values().filter(|stored| stored.row.ended_at.is_some()) {
            groups.entry((&stored.row.key.namespace, &stored.row.workflow)).or_default().push(stored);
        }
        let keep = rules.keep.map_or(usize::MAX, |keep| usize::try_from(keep).unwrap_or(usize::MAX));
        let mut gone = Vec::new();
        for mut runs in groups.into_values() {
            runs.sort_by_key(|stored| Reverse((stored.row.ended_at, stored.number)));
            let too_old = |stored: &Stored| stored.row.ended_at < rules.ended_before;
            gone.extend(
                runs.iter().enumerate().filter(|(i, stored)| *i >= keep || too_old(stored)).map(|(_, stored)| stored.row.key.clone()),
            );
        }
        gone
    }

    /// Answers how many payloads nobody uses any more.
    fn release_blobs(&mut self, stored: &Stored) -> u64 {
        let mut gone = 0;
        for digest in stored.entries.iter().filter_map(|(_, digest)| *digest) {
            let Some((_, uses)) = self.blobs.get_mut(&digest) else { continue };
            *uses -= 1;
            if *uses == 0 {
                self.blobs.remove(&digest);
                gone += 1;
            }
        }
        gone
    }
}
