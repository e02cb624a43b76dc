//! Task queues and dead letters.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The tasks for one agent, capability or tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Queue {
    /// `agent/NAME`, `capability/NAME` or `tool/NAME`.
    #[schema(example = "agent/log-analyst")]
    pub name: String,
    /// Tasks that wait for a worker.
    pub ready: u64,
    /// Tasks that wait for a time.
    pub delayed: u64,
    /// Tasks that a worker has.
    pub active: u64,
    /// When the oldest task came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<DateTime<Utc>>,
    /// Live workers that serve it.
    pub workers: u32,
}

/// Retries dead letters of a queue. The body may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Redrive {
    /// Only these runs, at most 500; the newest dead letters where none are given.
    #[serde(deserialize_with = "crate::nullable::nullable", skip_serializing_if = "Vec::is_empty")]
    pub run_ids: Vec<String>,
    /// At most this many, from 1 to 500; 100 where none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
}

/// What a redrive did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Redriven {
    /// Ids of the runs that go on.
    pub redriven: Vec<String>,
    pub failed: Vec<RedriveFailure>,
    /// Whether there are more dead letters in the queue.
    pub more: bool,
}

/// A run that could not be retried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RedriveFailure {
    pub run_id: String,
    pub code: String,
    pub message: String,
}
