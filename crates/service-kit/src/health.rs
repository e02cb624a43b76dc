//! The state of what a service depends on, as `/health` and `/ready` show it.

use serde::Serialize;

/// One thing that a service needs to work.
#[derive(Clone, Debug, Serialize)]
pub struct Dependency {
    /// `sqlite`, `scheduler`, ...
    pub name: String,
    pub ok: bool,
    /// What is wrong, for an operator; empty when nothing is.
    pub detail: String,
}

impl Dependency {
    pub fn ok(name: impl Into<String>) -> Self {
        Self { name: name.into(), ok: true, detail: String::new() }
    }

    pub fn failing(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), ok: false, detail: detail.into() }
    }
}
