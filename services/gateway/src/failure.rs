//! How errors are answered: every one, whoever made it, leaves as a problem document.

use axum::{
    body::{Body, to_bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use std::time::Duration;
use troupe_api::{Problem, problem::PROBLEM_JSON};
use troupe_domain::{Code, Error};

/// How much of a foreign error's text is read.
const MAX_FOREIGN_TEXT: usize = 4 << 10;

/// An error on its way out. The edge renders it, because only the edge knows the request's id.
#[derive(Clone, Debug)]
pub struct Failure {
    pub error: Box<Error>,
    /// Where HTTP has a narrower status than the code's own (405, 415).
    pub status: Option<StatusCode>,
}

/// What handlers answer.
pub type Answer<T> = Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error: Box::new(error), status: None }
    }
}

impl Failure {
    pub fn with_status(error: Error, status: StatusCode) -> Self {
        Self { error: Box::new(error), status: Some(status) }
    }

    fn status(&self) -> StatusCode {
        self.status.or_else(|| StatusCode::from_u16(self.error.code.http()).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Turns an error answer into a problem document that names the request; other answers pass.
pub async fn render(response: Response, request_id: &str) -> Response {
    let status = response.status();
    if status.as_u16() < 400 || is_rendered(&response) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let failure = match parts.extensions.remove::<Failure>() {
        Some(failure) => failure,
        None => foreign(status, body).await,
    };
    if status.is_server_error() {
        tracing::warn!(request.id = request_id, code = %failure.error.code, message = failure.error.message, "request failed");
    }
    let retry_after = retry_after(&failure.error);
    let problem = Problem::new(*failure.error, status.as_u16(), request_id);
    // A problem has only texts and numbers, so it can always be written.
    let document = serde_json::to_vec(&problem).unwrap_or_default();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    parts.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = retry_after {
        parts.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    Response::from_parts(parts, Body::from(document))
}

fn is_rendered(response: &Response) -> bool {
    let plain = response.extensions().get::<Failure>().is_none();
    // `/health` and `/ready` answer 503 with the state of the dependencies, which is no problem document.
    plain && response.headers().get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/"))
}

/// Seconds, at least one, where the code says "come back later".
fn retry_after(error: &Error) -> Option<u64> {
    let later = matches!(error.code, Code::ResourceExhausted | Code::Unavailable);
    later.then(|| Duration::from_millis(error.retry_after_ms.unwrap_or(1_000) + 999).as_secs().max(1))
}

/// The failure behind an answer that a library made: an unknown path, a method that is not there, a parameter that cannot be read.
async fn foreign(status: StatusCode, body: Body) -> Failure {
    let text = match to_bytes(body, MAX_FOREIGN_TEXT).await {
        Ok(bytes) if status.is_client_error() => String::from_utf8_lossy(&bytes).into_owned(),
        _ => String::new(),
    };
    let or = |default: &str| if text.is_empty() { default.to_owned() } else { text.clone() };
    let error = match status {
        StatusCode::NOT_FOUND => Error::new(Code::NotFound, "there is nothing at this path")
            .with_help("GET /openapi.json lists every path; /docs shows them to people"),
        StatusCode::METHOD_NOT_ALLOWED => {
            Error::invalid("this path does not have that method").with_help("the Allow header lists the methods it has")
        }
        StatusCode::PAYLOAD_TOO_LARGE => Error::new(Code::PayloadTooLarge, or("the body is too large")),
        status if status.is_client_error() => Error::invalid(or("the request cannot be read")),
        _ => Error::internal(),
    };
    Failure::with_status(error, status)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn problem(response: Response) -> (StatusCode, Problem, Option<String>) {
        let response = render(response, "r-1").await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        let retry = response.headers().get(header::RETRY_AFTER).map(|v| v.to_str().unwrap().to_owned());
        let status = response.status();
        (status, serde_json::from_slice(&to_bytes(response.into_body(), 1 << 20).await.unwrap()).unwrap(), retry)
    }

    #[tokio::test]
    async fn errors_name_the_request() {
        let (status, problem, retry) = problem(Failure::from(Error::not_found("run x")).into_response()).await;
        assert_eq!((status.as_u16(), problem.status, problem.code.as_str(), problem.instance.as_str()), (404, 404, "NOT_FOUND", "r-1"));
        assert_eq!(retry, None);
    }

    #[tokio::test]
    async fn transient_errors_say_when_to_come_back() {
        let mut error = Error::unavailable("starting");
        error.retry_after_ms = Some(1_500);
        assert_eq!(problem(Failure::from(error).into_response()).await.2.as_deref(), Some("2"));
    }

    #[tokio::test]
    async fn foreign_server_errors_do_not_show_their_text() {
        let (status, problem, _) = problem((StatusCode::INTERNAL_SERVER_ERROR, "secret /etc/path").into_response()).await;
        assert_eq!((status.as_u16(), problem.code.as_str()), (500, "INTERNAL"));
        assert!(!problem.detail.contains("secret"));
    }

    #[tokio::test]
    async fn cancelled_has_its_own_status() {
        let (status, ..) = problem(Failure::from(Error::new(Code::Cancelled, "gone")).into_response()).await;
        assert_eq!(status.as_u16(), 499);
    }
}
