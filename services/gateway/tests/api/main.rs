//! The gateway in front of services made for these tests.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]

mod documents;
mod errors;
mod events;
mod fakes;
mod garbage;
mod grpc;
mod harness;
mod idempotency;
mod openapi;
mod resources;
mod runs;
mod sockets;
mod workflows;
