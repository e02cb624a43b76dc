//! The gateway: Troupe's HTTP API and its one public gRPC port. It keeps nothing; it checks, translates and forwards.
//!
//! Reading order: [`config`], [`backends`] (the services behind), [`edge`] (what happens to every request), [`origin`] (who may call from a
//! browser), [`extract`] (how requests are read), [`failure`] (how errors are answered), [`idempotency`], [`routes`] (one file for each
//! resource), [`convert`] (protobuf to JSON types), [`graph`], [`openapi`], [`public`] (gRPC), `whole_end`
//! (how forwarded answers end), [`serve`].

pub mod app;
pub mod backends;
pub mod config;
pub mod convert;
pub mod edge;
pub mod extract;
pub mod failure;
pub mod graph;
pub mod idempotency;
pub mod metrics;
pub mod openapi;
pub mod origin;
pub mod process;
pub mod public;
pub mod routes;
pub mod serve;
mod whole_end;

pub use app::{Dependencies, Service};
pub use config::Config;
