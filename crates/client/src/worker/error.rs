//! Why a task failed, as its handler says it.

use std::time::Duration;
use troupe_domain::Json;
use troupe_proto::common::v1::Failure;

/// The longest code, in bytes.
const MAX_CODE: usize = 64;
/// The longest message, in bytes.
const MAX_MESSAGE: usize = 8 << 10;

pub(crate) type Outcome = Result<Json, TaskError>;

/// A failed task: a code in `SCREAMING_SNAKE_CASE`, a sentence for a person, and whether another attempt may help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct TaskError {
    pub code: String,
    pub message: String,
    /// The workflow's retry policy has the last word.
    pub retryable: bool,
    /// Do not try again before this has passed.
    pub retry_after: Option<Duration>,
}

impl TaskError {
    /// A failure that another attempt would not cure.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retryable: false, retry_after: None }
    }

    /// A failure that another attempt may cure.
    pub fn retryable(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { retryable: true, ..Self::new(code, message) }
    }

    /// The same failure with the wish not to be tried again before `wait` has passed.
    #[must_use]
    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    pub(crate) fn cancelled(reason: &str) -> Self {
        Self::new("CANCELLED", if reason.is_empty() { "the task was cancelled" } else { reason })
    }

    /// As it travels: code and message within their limits.
    pub(crate) fn to_failure(&self) -> Failure {
        let code: String = self.code.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(MAX_CODE).collect();
        Failure {
            code: if code.is_empty() { "FAILED".to_owned() } else { code },
            message: clip(&self.message, MAX_MESSAGE),
            retryable: self.retryable,
            retry_after_ms: self.retry_after.map_or(0, troupe_wire::millis),
        }
    }
}

/// The text itself, or its beginning with a mark that the rest was cut.
fn clip(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}... (cut)", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_travels_has_limits() {
        let failure =
            TaskError::retryable("bad code!", "ä".repeat(MAX_MESSAGE)).retry_after(Some(Duration::from_millis(1500))).to_failure();
        assert_eq!((failure.code.as_str(), failure.retry_after_ms, failure.retryable), ("badcode", 1500, true));
        assert!(failure.message.len() < MAX_MESSAGE + 20 && failure.message.ends_with("(cut)"));
        assert_eq!(TaskError::new("", "x").to_failure().code, "FAILED");
    }
}
