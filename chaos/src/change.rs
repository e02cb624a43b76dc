//! Changes of executors, after which partitions move.

use crate::clock::Micros;
use serde::Serialize;
use std::fmt;

/// How partitions come to change hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One more came.
    Added,
    /// One was told to go, and stayed away.
    Removed,
    /// One was told to go, and came back.
    Drained,
    /// One was killed, and came back.
    Killed,
    /// One was stopped for longer than its lease.
    Stopped,
}

impl Kind {
    /// Whether partitions are handed over. Else their leases have to end first.
    pub fn is_planned(self) -> bool {
        matches!(self, Self::Added | Self::Removed | Self::Drained)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "an executor was added",
            Self::Removed => "an executor was removed",
            Self::Drained => "an executor was restarted in order",
            Self::Killed => "an executor was killed",
            Self::Stopped => "an executor was stopped",
        })
    }
}

/// A change of executors.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    pub kind: Kind,
    pub from: Micros,
    pub to: Micros,
}
