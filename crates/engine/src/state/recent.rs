//! Ids seen lately.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// How many are remembered.
pub(crate) const REMEMBERED: usize = 1_000;

/// A bounded memory of ids; the oldest is forgotten first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Recent(VecDeque<String>);

impl Recent {
    pub(crate) fn contains(&self, id: &str) -> bool {
        self.0.iter().any(|known| known == id)
    }

    pub(crate) fn add(&mut self, id: String) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(id);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
