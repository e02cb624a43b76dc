//! [`troupe_domain::Error`] to and from `tonic::Status`, with Google's rich error details.

use std::{error::Error as _, time::Duration};
use tonic::{Code as Grpc, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};
use troupe_domain::{Code, Error, Fault};

/// The domain of our `ErrorInfo` details.
const DOMAIN: &str = "troupe";

/// The status that carries the whole error: code name, reason and help in `ErrorInfo`, faults in `BadRequest`.
pub fn to_status(error: &Error) -> Status {
    let mut details = ErrorDetails::new();
    let metadata = [("code", error.code.name()), ("help", &error.help)];
    details.set_error_info(
        error.reason.clone(),
        DOMAIN,
        metadata
            .into_iter()
            .filter(|(_, v)| !v.is_empty())
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect::<std::collections::HashMap<_, _>>(),
    );
    if !error.faults.is_empty() {
        details.set_bad_request(error.faults.iter().map(violation).collect::<Vec<_>>());
    }
    if let Some(ms) = error.retry_after_ms {
        details.set_retry_info(Some(Duration::from_millis(ms)));
    }
    Status::with_error_details(Grpc::from(error.code.grpc()), error.message.clone(), details)
}

/// A fault as a field violation; help and place travel in the description's tail, one tab-separated field each.
fn violation(fault: &Fault) -> FieldViolation {
    let description = format!("{}\t{}\t{}\t{}", fault.message, fault.help, fault.line, fault.column);
    FieldViolation::new(fault.path.clone(), description)
}

fn fault(violation: FieldViolation) -> Fault {
    let mut parts = violation.description.split('\t');
    let mut text = || parts.next().unwrap_or_default().to_owned();
    let (message, help, line, column) = (text(), text(), text(), text());
    Fault { path: violation.field, message, help, line: line.parse().unwrap_or(0), column: column.parse().unwrap_or(0) }
}

/// The error that a status carries; statuses of others (transport, tonic itself) get the code that fits.
pub fn from_status(status: &Status) -> Error {
    let details = status.get_error_details();
    let info = details.error_info();
    let named = info.and_then(|info| info.metadata.get("code")).and_then(|name| Code::from_name(name));
    let mut error = Error::new(named.unwrap_or_else(|| code_of(status)), status.message());
    if let Some(info) = info {
        error.reason.clone_from(&info.reason);
        error.help = info.metadata.get("help").cloned().unwrap_or_default();
    }
    if let Some(bad) = details.bad_request() {
        error.faults = bad.field_violations.iter().cloned().map(fault).collect();
    }
    error.retry_after_ms = details.retry_info().and_then(|r| r.retry_delay).and_then(|d| u64::try_from(d.as_millis()).ok());
    error
}

fn code_of(status: &Status) -> Code {
    match status.code() {
        Grpc::OutOfRange if status.message().contains("message length too large") => Code::PayloadTooLarge,
        Grpc::Unimplemented => Code::NotFound,
        Grpc::AlreadyExists => Code::Conflict,
        Grpc::Unknown if status.message().contains("transport error") => Code::Unavailable,
        // Made on this side from what happened to the connection: the other process is gone, or its answer was cut off.
        Grpc::Unknown | Grpc::Internal | Grpc::Cancelled if std::error::Error::source(status).is_some() => Code::Unavailable,
        // It was made here, of a connection that broke: an answer that came over the wire has no source.
        Grpc::Internal | Grpc::Unknown | Grpc::Cancelled if status.source().is_some() => Code::Unavailable,
        code => Code::from_grpc(code as i32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_is_told_from_a_failure_of_the_server() {
        let lost = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe)));
        assert_eq!(from_status(&lost).code, Code::Unavailable);
        assert_eq!(from_status(&Status::unknown("a handler failed")).code, Code::from_grpc(Grpc::Unknown as i32));
        assert_eq!(from_status(&Status::internal("a handler failed")).code, Code::Internal);
    }

    #[test]
    fn an_error_survives_the_wire() {
        let fault = Fault { line: 3, column: 7, ..Fault::at("steps.a", "does not exist").help("write b") };
        let mut error = Error::invalid("two faults").with_faults(vec![fault]).with_reason("STALE_EPOCH").with_help("read the docs");
        error.retry_after_ms = Some(1500);
        let back = from_status(&to_status(&error));
        assert_eq!((back.code, &back.message, &back.reason, &back.help), (error.code, &error.message, &error.reason, &error.help));
        assert_eq!((back.faults, back.retry_after_ms), (error.faults, error.retry_after_ms));
    }

    #[test]
    fn a_connection_that_breaks_in_the_middle_is_worth_another_try() {
        let broken = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "error reading a body from connection");
        let mut status = Status::internal("h2 protocol error");
        status.set_source(std::sync::Arc::new(broken));
        assert_eq!(from_status(&status).code, Code::Unavailable);
        assert_eq!(from_status(&Status::internal("said by a server")).code, Code::Internal);
    }

    #[test]
    fn every_code_survives_the_wire() {
        for code in Code::all() {
            assert_eq!(from_status(&to_status(&Error::new(code, "x"))).code, code);
        }
    }
}
