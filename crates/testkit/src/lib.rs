//! For tests only: real `troupe` processes that can be killed, databases of one's own, links that can be cut, and waiting for conditions
//! instead of sleeping.

pub mod api;
pub mod cluster;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod server;
pub mod servers;
pub mod system;
pub mod until;

pub use api::Api;
pub use cluster::{Cluster, Plan};
pub use process::{Launch, Process};
pub use proxy::Proxy;
pub use server::DevServer;
pub use servers::{Postgres, Redis};
pub use system::System;
pub use until::until;
