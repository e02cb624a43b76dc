//! What a provider's failure means for the task.

use crate::schema::clip;
use genai::Error;
use reqwest::{StatusCode, header::HeaderMap};
use std::time::Duration;
use troupe_client::TaskError;

/// How much of a provider's own words is shown.
const SHOWN: usize = 500;

/// `key` says where the key comes from, for messages.
pub(super) fn classify(error: &Error, label: &str, key: &str) -> TaskError {
    if let Some(http) = response(error) {
        return of_response(&http, label, key);
    }
    match error {
        Error::ChatResponse { body, .. } => of_event(&body.to_string(), label),
        Error::RequiresApiKey { .. } | Error::NoAuthResolver { .. } | Error::NoAuthData { .. } | Error::Resolver { .. } => {
            TaskError::new("MODEL_NOT_CONFIGURED", format!("{label} has no key: set {key}"))
        }
        Error::MessageContentTypeNotSupported { .. } | Error::MessageRoleNotSupported { .. } | Error::AdapterNotSupported { .. } => {
            TaskError::new("INVALID_INPUT", format!("{label} cannot take this request: {}", clip(&error.to_string(), SHOWN)))
        }
        // A connection that failed, a stream that broke off or says what we do not understand.
        other => TaskError::retryable("MODEL_UNAVAILABLE", format!("{label} did not answer: {}", clip(&other.to_string(), SHOWN))),
    }
}

/// A failed HTTP response.
struct Response<'a> {
    status: StatusCode,
    headers: &'a HeaderMap,
    body: &'a str,
}

/// The response inside an error. A failed stream hides it in a boxed error.
fn response(error: &Error) -> Option<Response<'_>> {
    match error {
        Error::HttpError { status, headers, body, .. } => Some(Response { status: *status, headers, body }),
        Error::WebStream { error, .. } => response(error.downcast_ref::<Error>()?),
        Error::WebModelCall { webc_error, .. } | Error::WebAdapterCall { webc_error, .. } => match webc_error {
            genai::webc::Error::ResponseFailedStatus { status, body, headers } => Some(Response { status: *status, headers, body }),
            _ => None,
        },
        _ => None,
    }
}

fn of_response(response: &Response<'_>, label: &str, key: &str) -> TaskError {
    let Response { status, body, .. } = response;
    let said = clip(body, SHOWN);
    match status.as_u16() {
        429 => TaskError::retryable("RATE_LIMITED", format!("{label} limits its rate: {said}")).retry_after(retry_after(response.headers)),
        // The body may repeat parts of the key.
        401 | 403 => TaskError::new("MODEL_NOT_CONFIGURED", format!("{label} refused the key ({status}): check {key}")),
        402 => TaskError::new("MODEL_NOT_CONFIGURED", format!("{label} wants to be paid ({status}): {said}")),
        404 => {
            TaskError::new("MODEL_NOT_CONFIGURED", format!("{label} is not there ({status}): check the model's name and base_url. {said}"))
        }
        408 | 409 | 425 | 500.. => TaskError::retryable("MODEL_UNAVAILABLE", format!("{label} failed ({status}): {said}"))
            .retry_after(retry_after(response.headers)),
        _ => TaskError::new("INVALID_INPUT", format!("{label} refused the request ({status}): {said}")),
    }
}

/// A failure in the middle of a stream.
fn of_event(body: &str, label: &str) -> TaskError {
    let said = clip(body, SHOWN);
    if body.contains("rate_limit") {
        return TaskError::retryable("RATE_LIMITED", format!("{label} limits its rate: {said}"));
    }
    TaskError::retryable("MODEL_UNAVAILABLE", format!("{label} failed while it answered: {said}"))
}

/// Milliseconds or seconds; dates are not understood.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(ms) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(ms / 1000.0).ok();
    }
    Duration::try_from_secs_f64(text("retry-after")?.parse().ok()?).ok()
}
