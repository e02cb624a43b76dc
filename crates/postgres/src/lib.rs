//! A PostgreSQL database that the replicas of a service share: connections, the schema's versions, and what failures mean.
//!
//! [`Config`] is the section `postgres` of a service's settings, [`link`] the way to the database, [`fault`] what PostgreSQL reports in the
//! words of a store, [`migrate`] the schema's versions. Each service keeps to a schema of its own.

mod config;
pub mod fault;
pub mod link;
pub mod migrate;

pub use config::Config;
pub use fault::{Abort, Attempt, Failure, Verdict, verdict};
pub use link::{Db, Link};
pub use migrate::Schema;
