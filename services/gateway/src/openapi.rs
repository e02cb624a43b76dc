//! The OpenAPI 3.1 document, made from the handlers.

use crate::routes;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Troupe",
        description = "Runs teams of AI agents as durable workflows. Errors are problem documents (RFC 9457) with a `code` of a closed list; lists are paged by \
                       `?limit=` and `?cursor=`; times are RFC 3339 in UTC, durations texts like `30s`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(troupe_api::Problem, troupe_api::ProblemFault, troupe_api::RunEvent)),
    tags(
        (name = "workflows", description = "Definitions: what can be run"),
        (name = "runs", description = "Executions of workflows"),
        (name = "history", description = "Checkpoints of a run"),
        (name = "tasks", description = "Single tasks for agents"),
        (name = "agents", description = "The catalogue of agents"),
        (name = "approvals", description = "Requests for a person's decision"),
        (name = "queues", description = "Waiting tasks and dead letters"),
        (name = "operation", description = "Health, metrics and this document"),
    )
)]
struct Contract;

/// The document without paths, for the router to fill.
pub fn base() -> utoipa::openapi::OpenApi {
    Contract::openapi()
}

/// Errors that any operation may answer, and when.
const ERRORS: [(&str, &str); 12] = [
    ("400", "INVALID_ARGUMENT: something in the request is wrong; `errors` has each mistake"),
    ("401", "UNAUTHENTICATED: not sent today, reserved for logins"),
    ("402", "BUDGET_EXCEEDED: not sent today, reserved for budgets"),
    ("403", "PERMISSION_DENIED: the Host or Origin is not allowed"),
    ("404", "NOT_FOUND: it does not exist in this namespace"),
    ("409", "CONFLICT: it contradicts what is there"),
    ("412", "FAILED_PRECONDITION: not in this state"),
    ("429", "RESOURCE_EXHAUSTED: too much at once; see Retry-After"),
    ("499", "CANCELLED: the work was called off"),
    ("500", "INTERNAL: the log has the cause under `instance`"),
    ("503", "UNAVAILABLE: a service is not there at the moment; see Retry-After"),
    ("504", "DEADLINE_EXCEEDED: no answer in time"),
];

/// Errors of operations with a body.
const BODY_ERRORS: [(&str, &str); 2] =
    [("413", "PAYLOAD_TOO_LARGE: the body passes its limit"), ("415", "INVALID_ARGUMENT: the body's content type is another one")];

/// The whole document.
pub fn document() -> Value {
    let api = routes::all().into_openapi();
    // The document is made of texts, numbers and maps with text keys: it can always be written as JSON.
    let mut document = serde_json::to_value(&api).unwrap_or_default();
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    for (path, item) in paths.into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            complete(path, method, operation);
        }
    }
    document
}

/// Adds what every operation has: the errors and the common headers.
fn complete(path: &str, method: &str, operation: &mut Value) {
    let has_body = operation.get("requestBody").is_some();
    let of_api = path.starts_with("/api/");
    let Some(operation) = operation.as_object_mut() else { return };
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    if let Some(responses) = responses.as_object_mut() {
        let body_errors = BODY_ERRORS.iter().filter(|_| has_body);
        for (status, when) in ERRORS.iter().filter(|_| of_api).chain(body_errors) {
            add_error(responses, status, when);
        }
        if !of_api {
            add_error(responses, "403", "PERMISSION_DENIED: the Host is not allowed");
            add_error(responses, "500", "INTERNAL: the log has the cause under `instance`");
            add_error(responses, "504", "DEADLINE_EXCEEDED: no answer in time");
        }
    }
    let mut headers = Vec::new();
    if of_api {
        headers.push(header("Troupe-Namespace", "The namespace; `default` where none is given", 63));
    }
    if method == "post" {
        headers.push(header("Idempotency-Key", "Repeating a request with the same key is safe: it gets the same answer", 255));
    }
    headers.push(header("x-request-id", "Kept and answered; made up where none is given", 128));
    if let Some(parameters) = operation.entry("parameters").or_insert_with(|| json!([])).as_array_mut() {
        parameters.extend(headers);
    }
}

fn add_error(responses: &mut Map<String, Value>, status: &str, when: &str) {
    let mut response = json!({
        "description": when,
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } }
    });
    if matches!(status, "429" | "503") {
        response["headers"] = json!({ "Retry-After": { "description": "Seconds", "schema": { "type": "integer" } } });
    }
    responses.entry(status).or_insert(response);
}

fn header(name: &str, description: &str, longest: u32) -> Value {
    json!({ "name": name, "in": "header", "required": false, "description": description, "schema": { "type": "string", "maxLength": longest } })
}
