//! What a run is: everything needed to go on from here, and to show it.

pub(crate) mod cell;
pub(crate) mod channel;
pub(crate) mod recent;
pub(crate) mod tree;

use crate::{
    Time,
    event::{Failure, Started},
};
use cell::{Frame, Pause, Place, Signal, Timer, Work};
use channel::Channel;
use recent::Recent;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use troupe_domain::Json;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Started, nothing has happened yet.
    #[default]
    Queued,
    /// Some task is with the scheduler, or a child runs.
    Running,
    /// Only people, signals or time can move it on.
    Waiting,
    Paused,
    Succeeded,
    Failed,
    Cancelled,
}

impl RunStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn is_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    #[default]
    Pending,
    Running,
    Waiting,
    Retrying,
    Succeeded,
    Failed,
    Skipped,
    Cancelled,
}

impl StepStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Retrying => "retrying",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn is_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Skipped | Self::Cancelled)
    }
}

/// A run's state. Serialises to JSON (with `serde_json` only, see [`troupe_domain::Json`]); that JSON is what snapshots hold.
///
/// Beside the tree of step instances it keeps small indexes (timers, approvals, waiting signals, counters), so that applying an event
/// costs what it touches and not what the run has grown to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunState {
    pub status: RunStatus,
    /// What the run was told at its start; `None` before that.
    pub(crate) identity: Option<Box<Started>>,
    /// 0 for a root run.
    pub(crate) depth: u32,
    pub(crate) created_at: Option<Time>,
    pub(crate) updated_at: Option<Time>,
    pub(crate) input: Json,
    pub(crate) channels: BTreeMap<String, Channel>,
    pub(crate) root: Frame,
    /// Everything that time will do.
    pub(crate) timers: BTreeSet<Timer>,
    /// Where each open approval belongs.
    pub(crate) approvals: BTreeMap<String, Place>,
    /// Ids of approvals that were decided.
    pub(crate) decided: Recent,
    /// Signals that came before their step, oldest first.
    pub(crate) signals: BTreeMap<String, VecDeque<Signal>>,
    /// Bytes of their payloads.
    pub(crate) signal_bytes: usize,
    /// Steps that wait for a signal, first come first served.
    pub(crate) listeners: BTreeMap<String, VecDeque<Place>>,
    /// Ids of signals that were applied.
    pub(crate) seen: Recent,
    /// Tasks with the scheduler.
    pub(crate) tasks: u32,
    /// Children that run.
    pub(crate) children: u32,
    /// How often the ended run was started again.
    pub(crate) retries: u32,
    pub(crate) pause: Option<Pause>,
    /// What a paused run will do when it is resumed, in this order.
    pub(crate) held: Vec<Work>,
    pub(crate) failure: Option<Failure>,
    pub(crate) dead_queue: Option<String>,
    /// `None` stands for `null` too; the status says whether there is one.
    pub(crate) output: Option<Json>,
    /// Made by `fork` and not begun yet.
    pub(crate) forked: bool,
}
