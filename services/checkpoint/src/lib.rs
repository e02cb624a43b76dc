//! The checkpoint service: the ordered, durable record of every run, and what belongs to it (snapshots, definitions, partition leases).
//!
//! Reading order: [`model`] says what is stored, [`store`] what every backend promises, [`store::sqlite`] how it is kept on a disk,
//! [`store::postgres`] how in a database, [`grpc`] how it is served, [`service`] how it all starts and ends.

pub mod clock;
pub mod config;
pub mod error;
pub mod grpc;
pub mod metrics;
pub mod model;
pub mod process;
mod retention;
pub mod service;
pub mod store;

pub use clock::Clock;
pub use config::{Config, PostgresConfig};
pub use error::StoreError;
pub use service::{Backend, Service};
pub use store::{Journal, memory::Memory, postgres::Postgres, sqlite::Sqlite};
