//! The built-in worker: LLM agents, code agents and tools, of all namespaces.
//!
//! Reading order: [`service`] connects the parts; `catalog` follows the registry; `execute` gives each task to what its agent is:
//! `llm` (a model with tools, over the trait in `model`), `sandbox` (JavaScript) or [`tools`].

mod catalog;
pub mod config;
mod execute;
mod llm;
pub mod metrics;
mod model;
pub mod process;
mod sandbox;
mod schema;
pub mod service;
mod template;
pub mod tools;

pub use config::Config;
pub use service::{Dependencies, Service};
