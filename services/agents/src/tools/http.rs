//! HTTP requests to where the settings allow.

use super::{
    Arguments, Caller, Tool,
    address::{Guard, Refused},
    failed,
};
use crate::config::{HttpConfig, span};
use async_trait::async_trait;
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER},
    redirect,
};
use serde_json::{Map, Value, json};
use std::{error::Error as _, sync::Arc, time::Duration};
use troupe_client::TaskError;
use url::Url;

const MAX_REDIRECTS: usize = 5;
/// Header fields that one request may set.
const MAX_HEADERS: usize = 50;
/// Set by the connection, never by a caller.
const RESERVED: [&str; 7] = ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"];

pub(super) fn tools(config: &HttpConfig) -> anyhow::Result<Vec<Box<dyn Tool>>> {
    let guard = Guard::new(config);
    let client = Client::builder()
        .user_agent(concat!("troupe/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        // A proxy would resolve names out of our sight.
        .no_proxy()
        .dns_resolver(Arc::new(guard.clone()))
        .connect_timeout(Duration::from_secs(10))
        .build()?;
    let http = Http { client, guard, timeout: span(&config.timeout), max_bytes: config.max_response_bytes };
    let tool = |name, description, method| Box::new(Request { http: http.clone(), name, description, method }) as Box<dyn Tool>;
    Ok(vec![
        tool(
            "http.get",
            "Fetches a URL with GET. Answers with status, headers and the body as text, or as JSON where it is JSON.",
            Method::GET,
        ),
        tool("http.post", "Sends a POST request with a JSON or text body.", Method::POST),
        tool("http.put", "Sends a PUT request with a JSON or text body.", Method::PUT),
        tool("http.delete", "Sends a DELETE request.", Method::DELETE),
    ])
}

#[derive(Clone)]
struct Http {
    client: Client,
    guard: Guard,
    timeout: Duration,
    max_bytes: usize,
}

struct Request {
    http: Http,
    name: &'static str,
    description: &'static str,
    method: Method,
}

/// One request on its way through redirects.
struct Sent {
    url: Url,
    method: Method,
    headers: HeaderMap,
    json: Option<Value>,
    body: Option<String>,
}

#[async_trait]
impl Tool for Request {
    fn name(&self) -> &'static str {
        self.name
    }

    fn description(&self) -> &'static str {
        self.description
    }

    fn schema(&self) -> Value {
        let mut properties = json!({
            "url": { "type": "string", "minLength": 1, "maxLength": 8000 },
            "headers": { "type": "object", "maxProperties": MAX_HEADERS, "additionalProperties": { "type": "string", "maxLength": 8000 } }
        });
        if self.method != Method::GET {
            properties["json"] = json!({ "description": "the body, as JSON" });
            properties["body"] = json!({ "type": "string", "description": "the body, as text" });
        }
        json!({ "type": "object", "required": ["url"], "additionalProperties": false, "properties": properties })
    }

    async fn call(&self, arguments: Arguments, caller: &Caller) -> Result<Value, TaskError> {
        let url = Url::parse(arguments.text("url")).map_err(|e| failed(format!("not a URL: {e}")))?;
        let mut headers = headers(arguments.value("headers"))?;
        if self.method != Method::GET
            && let Ok(key) = HeaderValue::from_str(&caller.idempotency_key)
        {
            headers.insert("idempotency-key", key);
        }
        let sent = Sent {
            url,
            method: self.method.clone(),
            headers,
            json: arguments.has("json").then(|| arguments.value("json").clone()),
            body: arguments.has("body").then(|| arguments.text("body").to_owned()),
        };
        let timeout = self.http.timeout;
        tokio::time::timeout(timeout, self.http.exchange(sent)).await.unwrap_or_else(|_| {
            Err(TaskError::retryable("TOOL_FAILED", format!("no answer within {}", troupe_domain::format_span(timeout))))
        })
    }
}

fn headers(given: &Value) -> Result<HeaderMap, TaskError> {
    let mut headers = HeaderMap::new();
    for (name, value) in given.as_object().into_iter().flatten() {
        let parsed: HeaderName = name.parse().map_err(|_| failed(format!("'{name}' is no header name")))?;
        if RESERVED.contains(&parsed.as_str()) {
            return Err(failed(format!("the header '{name}' cannot be set")));
        }
        let value = value.as_str().unwrap_or("").parse().map_err(|_| failed(format!("the value of the header '{name}' is not valid")))?;
        headers.insert(parsed, value);
    }
    Ok(headers)
}

impl Http {
    /// Sends, follows redirects (each one checked like the first), reads the answer.
    async fn exchange(&self, mut sent: Sent) -> Result<Value, TaskError> {
        for _ in 0..=MAX_REDIRECTS {
            self.guard.check(&sent.url)?;
            let response = self.request(&sent).send().await.map_err(connection)?;
            match target(&sent.url, &response)? {
                Some(next) => sent.redirect(next, response.status()),
                None => return self.answer(&sent.url, response).await,
            }
        }
        Err(failed(format!("more than {MAX_REDIRECTS} redirects")))
    }

    fn request(&self, sent: &Sent) -> RequestBuilder {
        let request = self.client.request(sent.method.clone(), sent.url.clone());
        let request = match (&sent.json, &sent.body) {
            (Some(json), _) => request.json(json),
            (None, Some(body)) => request.body(body.clone()),
            (None, None) => request,
        };
        request.headers(sent.headers.clone())
    }

    async fn answer(&self, url: &Url, mut response: Response) -> Result<Value, TaskError> {
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            let error = TaskError::retryable("TOOL_FAILED", format!("{} answered {status}", url.host_str().unwrap_or("the server")));
            return Err(error.retry_after(retry_after(response.headers())));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(connection)? {
            if body.len() + chunk.len() > self.max_bytes {
                return Err(failed(format!("the answer is larger than {} bytes (agents.http.max_response_bytes)", self.max_bytes)));
            }
            body.extend_from_slice(&chunk);
        }
        let mut shown = Map::new();
        for (name, value) in response.headers() {
            shown.insert(name.to_string(), json!(String::from_utf8_lossy(value.as_bytes())));
        }
        let is_json = shown.get("content-type").and_then(Value::as_str).is_some_and(|kind| kind.contains("json"));
        let mut answer = json!({ "status": status.as_u16(), "url": url.as_str(), "headers": shown });
        match troupe_domain::Json::parse(&body, "body") {
            Ok(json) if is_json => answer["json"] = json.to_value(),
            _ => answer["body"] = json!(String::from_utf8_lossy(&body)),
        }
        Ok(answer)
    }
}

impl Sent {
    fn redirect(&mut self, next: Url, status: StatusCode) {
        let elsewhere = next.origin() != self.url.origin();
        if elsewhere {
            // What was meant for one server is not for another.
            let key = self.headers.remove("idempotency-key");
            self.headers.clear();
            self.headers.extend(key.map(|key| (HeaderName::from_static("idempotency-key"), key)));
        }
        let keeps_body = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        if !keeps_body {
            self.method = Method::GET;
            (self.json, self.body) = (None, None);
        }
        self.url = next;
    }
}

fn target(url: &Url, response: &Response) -> Result<Option<Url>, TaskError> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = response.headers().get(LOCATION).filter(|_| is_redirect) else { return Ok(None) };
    let text = location.to_str().map_err(|_| failed("a redirect to what is no URL"))?;
    url.join(text).map(Some).map_err(|e| failed(format!("a redirect to what is no URL: {e}")))
}

/// Seconds, as servers mostly send it.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// A connection's failure: refused by our guard, or one that may be gone the next time.
fn connection(error: reqwest::Error) -> TaskError {
    let mut cause = error.source();
    let mut last = None;
    while let Some(inner) = cause {
        if let Some(refused) = inner.downcast_ref::<Refused>() {
            return TaskError::new("ADDRESS_REFUSED", refused.0.clone());
        }
        last = Some(inner);
        cause = inner.source();
    }
    let detail = last.map_or_else(|| "the connection failed".to_owned(), ToString::to_string);
    TaskError::retryable("TOOL_FAILED", format!("the request failed: {detail}"))
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
