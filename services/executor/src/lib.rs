//! The executor: it hosts runs, and moves them on.
//!
//! Reading order: `partition` (the one task that moves a share of the runs), `run` (a run in memory), `message` (what partitions are
//! told), `appender` (how entries become durable), `effects` (what follows from them), `recovery` (after a start or a loss), `leases`
//! (who owns which partition), `routing` and `peers` (how what is meant for a run gets to its owner), `grpc` (the services that others call).

mod appender;
mod backlog;
mod backoff;
pub mod config;
mod defaults;
mod definitions;
mod effects;
mod grpc;
mod leases;
mod message;
pub mod metrics;
mod partition;
mod peers;
pub mod process;
mod recovery;
mod routing;
mod run;
mod service;
mod shared;
mod store;
mod trace;
mod view;

pub use config::Config;
pub use service::{Dependencies, Service};
