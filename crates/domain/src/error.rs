//! The error that crosses service borders: code, message, where, what to do.

use crate::Code;
use serde::{Deserialize, Serialize};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One mistake in something a user wrote or sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Path inside the document or request ("steps.analyse.after", "/input/log").
    pub path: String,
    pub message: String,
    /// What to do about it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
    /// From 1; 0 when the place in the text is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub line: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub column: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Fault {
    /// A fault at a path, without a place in a text.
    pub fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), help: String::new(), line: 0, column: 0 }
    }

    /// The same fault with what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }
}

/// An error as every face of Troupe shows it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Error {
    pub code: Code,
    /// One sentence for a person; never the text of an internal cause.
    pub message: String,
    /// What to do; may be empty.
    pub help: String,
    /// A machine-readable reason within the code ("STALE_EPOCH"); may be empty.
    pub reason: String,
    pub faults: Vec<Fault>,
    /// For RESOURCE_EXHAUSTED and UNAVAILABLE: when to come back.
    pub retry_after_ms: Option<u64>,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: String::new(), reason: String::new(), faults: Vec::new(), retry_after_ms: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// A bad field of a request.
    pub fn invalid_field(path: impl Into<String>, message: impl Into<String>) -> Self {
        let fault = Fault::at(path, message);
        Self::invalid(format!("{}: {}", fault.path, fault.message)).with_faults(vec![fault])
    }

    /// `what` names the thing and its id: `run 0190...`.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("{what} does not exist"))
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Code::Conflict, message)
    }

    pub fn precondition(message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// Something of ours failed. Log the cause where it is handled; the stranger gets this constant text.
    pub fn internal() -> Self {
        Self::new(Code::Internal, "something failed inside Troupe; the log has the cause under this request's id")
    }

    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    #[must_use]
    pub fn with_faults(mut self, faults: Vec<Fault>) -> Self {
        self.faults = faults;
        self
    }
}
