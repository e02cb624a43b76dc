//! The state of the program and what it depends on.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The state of the program and what it depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// ok or failing.
    #[schema(example = "ok")]
    pub status: String,
    pub version: String,
    #[serde(default)]
    pub dependencies: Vec<DependencyHealth>,
}

/// The state of one dependency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DependencyHealth {
    pub name: String,
    pub ok: bool,
    /// What is wrong; empty when nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}
