//! Troupe's Rust SDK: write workers, start runs.
//!
//! - [`worker`]: a process that executes tasks, with durable steps.
//! - [`client`]: the public services, typed.

pub mod client;
mod spawn;
pub mod worker;

pub use client::Client;
pub use troupe_domain::{Error, Json};
pub use troupe_wire::Transport;
pub use worker::{Context, TaskError, Worker};

/// The largest message that this SDK sends and takes, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// The largest output and step result that a worker sends, in bytes. The server's own limit may be lower.
pub const MAX_PAYLOAD_BYTES: usize = 16 << 20;
