//! For tests only: real `troupe` processes that can be killed, and waiting for conditions instead of sleeping.

pub mod server;
pub mod until;

pub use server::DevServer;
pub use until::until;
