//! Troupe's Rust SDK: write workers, start runs.
//!
//! - [`worker`]: a process that executes tasks, with durable steps.
//! - [`client`]: the public services, typed.

pub mod client;
mod spawn;
pub mod worker;

pub use client::Client;
pub use troupe_domain::{Error, Json};
pub use troupe_wire::{MAX_MESSAGE as MAX_MESSAGE_BYTES, Transport};
pub use worker::{Context, TaskError, Worker};

/// The largest output and step result that a worker sends, in bytes. The server's own limit may be lower.
pub const MAX_PAYLOAD_BYTES: usize = 16 << 20;
