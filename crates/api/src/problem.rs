//! Errors as HTTP shows them: problem documents (RFC 9457).

use serde::{Deserialize, Serialize};
use troupe_domain::{Code, Error, Fault};
use utoipa::ToSchema;

/// The media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What went wrong, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Where the code is explained, relative to the server: `/docs/errors/NOT_FOUND`.
    #[schema(example = "/docs/errors/NOT_FOUND")]
    pub r#type: String,
    /// The code in words.
    #[schema(example = "not found")]
    pub title: String,
    /// The HTTP status of the answer.
    #[schema(example = 404)]
    pub status: u16,
    /// One of the closed list of codes; programs decide by this field.
    #[schema(example = "NOT_FOUND")]
    pub code: String,
    /// One sentence for a person.
    pub detail: String,
    /// The request's id, as in the `x-request-id` header and the log.
    pub instance: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
    /// A machine-readable reason within the code.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When to come back, in milliseconds; the `Retry-After` header has it in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// One item for each mistake in what was sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ProblemFault>,
}

/// One mistake in what was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemFault {
    /// Path inside the document or request.
    #[schema(example = "steps.analyse.after")]
    pub path: String,
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
    /// From 1; absent when the place in the text is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

impl From<Fault> for ProblemFault {
    fn from(fault: Fault) -> Self {
        let placed = fault.line > 0;
        Self {
            path: fault.path,
            message: fault.message,
            help: fault.help,
            line: placed.then_some(fault.line),
            column: placed.then_some(fault.column),
        }
    }
}

impl From<ProblemFault> for Fault {
    fn from(fault: ProblemFault) -> Self {
        Self {
            path: fault.path,
            message: fault.message,
            help: fault.help,
            line: fault.line.unwrap_or(0),
            column: fault.column.unwrap_or(0),
        }
    }
}

impl Problem {
    /// The document of an error. `status` is `error.code.http()`, or a narrower one of HTTP itself (405, 415).
    pub fn new(error: Error, status: u16, instance: impl Into<String>) -> Self {
        let code = error.code.name();
        Self {
            r#type: format!("/docs/errors/{code}"),
            title: code.to_lowercase().replace('_', " "),
            status,
            code: code.to_owned(),
            detail: error.message,
            instance: instance.into(),
            help: error.help,
            reason: error.reason,
            retry_after_ms: error.retry_after_ms,
            errors: error.faults.into_iter().map(Into::into).collect(),
        }
    }

    /// The error again, for clients. A code that this version does not know reads as `INTERNAL`.
    pub fn into_error(self) -> Error {
        let code = Code::from_name(&self.code).unwrap_or(Code::Internal);
        let mut error = Error::new(code, self.detail).with_help(self.help).with_reason(self.reason);
        error.retry_after_ms = self.retry_after_ms;
        error.faults = self.errors.into_iter().map(Into::into).collect();
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_http() {
        let fault = Fault { line: 3, column: 7, ..Fault::at("steps.a", "does not exist").help("write b") };
        let mut error = Error::invalid("two faults").with_faults(vec![fault, Fault::at("x", "y")]).with_reason("WHY").with_help("read");
        error.retry_after_ms = Some(1500);
        let problem = Problem::new(error.clone(), error.code.http(), "r-1");
        let text = serde_json::to_string(&problem).unwrap();
        let back = serde_json::from_str::<Problem>(&text).unwrap();
        assert_eq!((back.status, back.instance.as_str(), back.title.as_str()), (400, "r-1", "invalid argument"));
        let back = back.into_error();
        assert_eq!((back.code, &back.message, &back.reason, &back.help), (error.code, &error.message, &error.reason, &error.help));
        assert_eq!((back.faults, back.retry_after_ms), (error.faults, error.retry_after_ms));
    }

    #[test]
    fn an_unknown_code_is_internal() {
        let problem = Problem { code: "TOMORROW".into(), ..Problem::new(Error::not_found("x"), 404, "r") };
        assert_eq!(problem.into_error().code, Code::Internal);
    }
}
