//! An executor among real and pretended neighbours.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod api;
mod cluster;
mod family;
mod faults;
mod history;
mod recovery;
mod secluded;
mod world;
