//! What every service's main needs: settings, telemetry, background tasks, health, serving and a designed shutdown.

pub mod config;
pub mod folder;
pub mod health;
pub mod main_loop;
pub mod ops;
pub mod process;
pub mod serve;
pub mod tasks;
pub mod telemetry;

pub use health::Dependency;
pub use ops::{Health, Ops};
pub use tasks::Tasks;
pub use telemetry::Telemetry;
