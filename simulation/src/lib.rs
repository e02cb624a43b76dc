//! Many simulated hours of Troupe's services, one seed at a time.
//!
//! A seed decides everything: what is run, who is lost when, how long every message takes. All services are the real ones; they share one
//! thread, a clock that jumps to the next timer, and a network that is part of the simulation. So a seed that fails can be run again,
//! and fails in the same way.
//!
//! Reading order: [`seed`] (one seed from its start to its verdict), `world` (the services), `net` (what is between them), `load` (what they
//! are asked to do), `faults` (what they have to live through), `appends` and `checks` (what must hold), `os` (clocks and randomness), [`range`] (many
//! seeds).
//!
//! On Linux only: elsewhere the system's clocks and randomness have other names.

#![cfg(target_os = "linux")]

mod appends;
mod checks;
mod faults;
mod load;
mod net;
mod os;
pub mod range;
pub mod seed;
mod trace;
mod work;
mod world;
