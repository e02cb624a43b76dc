//! Task queues, leases, worker streams and the event bus.
//!
//! Reading order: [`queue`] (what a queue promises; in memory), [`roster`] (workers, agents, who gets a task), [`core`] (the one task
//! that owns both and works through messages), [`report`] and [`registry`] (streams to the executor and the registry), [`bus`] and
//! [`chunks`] (events on their way to watchers), [`grpc`] (the servers), [`service`] (all of it started).

pub mod bus;
pub mod chunks;
pub mod clock;
pub mod config;
pub mod core;
pub mod grpc;
pub mod limit;
pub mod link;
pub mod metrics;
pub mod process;
pub mod queue;
pub mod registry;
pub mod report;
pub mod roster;
pub mod service;

pub use config::Config;
pub use service::{Dependencies, Service};
