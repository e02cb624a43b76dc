//! For tests only: real `troupe` processes that can be killed, and waiting for conditions instead of sleeping.

pub mod api;
pub mod cluster;
pub mod ports;
pub mod server;
pub mod until;

pub use api::Api;
pub use cluster::Cluster;
pub use server::DevServer;
pub use until::until;
