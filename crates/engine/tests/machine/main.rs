//! The state machine, driven by events as an executor would drive it.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod approvals;
mod children;
mod control;
mod driver;
mod graph;
mod properties;
mod repeats;
mod state;
mod tasks;
mod waits;
mod workflows;
