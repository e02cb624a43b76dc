//! The HTTP API as this program uses it.

use anyhow::Context;
use futures::StreamExt;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use std::time::Duration;
use troupe_domain::{Code, Error, Fault};

/// A gateway and a namespace.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    base: String,
    namespace: String,
    client: reqwest::Client,
}

/// One server-sent event.
#[derive(Clone, Debug, Default)]
pub(crate) struct SseEvent {
    pub id: String,
    pub event: String,
    pub data: String,
}

impl Api {
    pub(crate) fn new(base: &str, namespace: &str) -> anyhow::Result<Self> {
        if !reqwest::Url::parse(base).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            let help = "write scheme, host and port, like http://127.0.0.1:8080";
            return Err(Error::invalid_field("server", format!("'{base}' is not a URL")).with_help(help).into());
        }
        let client = reqwest::Client::builder().connect_timeout(Duration::from_secs(3)).build().context("cannot make an HTTP client")?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), namespace: namespace.to_owned(), client })
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Whether a gateway answers there.
    pub(crate) async fn is_up(&self) -> bool {
        let probe = self.client.get(format!("{}/live", self.base)).timeout(Duration::from_millis(700)).send().await;
        probe.is_ok_and(|answer| answer.status() == StatusCode::OK)
    }

    pub(crate) async fn get(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.send(self.request(Method::GET, path).query(query)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value, key: Option<&str>) -> anyhow::Result<Value> {
        let mut request = self.request(Method::POST, path).json(body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.send(request).await
    }

    /// Posts YAML or JSON as it was written.
    pub(crate) async fn post_source(&self, path: &str, source: String, query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.send(self.request(Method::POST, path).query(query).header("content-type", "application/yaml").body(source)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.send(self.request(Method::DELETE, path)).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).header("troupe-namespace", &self.namespace)
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let status = response.status();
        if !status.is_success() {
            return Err(problem(response).await.into());
        }
        if status == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        response.json().await.context("the server's answer is not JSON")
    }

    /// Events of a run after `cursor`. The stream ends when the connection does.
    pub(crate) async fn events(
        &self,
        run: &str,
        cursor: &str,
    ) -> anyhow::Result<impl futures::Stream<Item = anyhow::Result<SseEvent>> + use<>> {
        let mut request = self.request(Method::GET, &format!("/api/v1/runs/{run}/events"));
        if !cursor.is_empty() {
            request = request.header("last-event-id", cursor);
        }
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        if !response.status().is_success() {
            return Err(problem(response).await.into());
        }
        let mut parser = SseParser::default();
        let chunks = response.bytes_stream();
        Ok(chunks.flat_map(move |chunk| {
            let events = match chunk {
                Ok(bytes) => parser.feed(&bytes).into_iter().map(Ok).collect(),
                Err(e) => vec![Err(anyhow::Error::from(e))],
            };
            futures::stream::iter(events)
        }))
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let error = if error.is_timeout() { "it did not answer in time".to_owned() } else { innermost(error) };
        Error::unavailable(format!("no server at {}: {error}", self.base))
            .with_help("start one with `troupe dev`, or name another with --server")
            .into()
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

/// The error that a problem document describes.
async fn problem(response: Response) -> Error {
    let status = response.status();
    let body: Value = response.json().await.unwrap_or_default();
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let code = Code::from_name(&text("code")).or_else(|| Code::all().find(|c| c.http() == status.as_u16())).unwrap_or(Code::Internal);
    let detail = text("detail");
    let mut error = Error::new(code, if detail.is_empty() { format!("the server answered {status}") } else { detail });
    error.help = text("help");
    error.faults = body.get("errors").and_then(|e| serde_json::from_value::<Vec<Fault>>(e.clone()).ok()).unwrap_or_default();
    error
}

#[derive(Default)]
struct SseParser {
    buffer: Vec<u8>,
    event: SseEvent,
}

impl SseParser {
    fn feed(&mut self, bytes: &[u8]) -> Vec<SseEvent> {
        self.buffer.extend_from_slice(bytes);
        let mut out = Vec::new();
        while let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            self.line(line.trim_end_matches(['\r', '\n']), &mut out);
        }
        out
    }

    fn line(&mut self, line: &str, out: &mut Vec<SseEvent>) {
        if line.is_empty() {
            if !self.event.data.is_empty() || !self.event.event.is_empty() {
                out.push(std::mem::take(&mut self.event));
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.event.id = value.to_owned(),
            "event" => self.event.event = value.to_owned(),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_may_come_in_pieces() {
        let mut parser = SseParser::default();
        assert!(parser.feed(b"id: 1.0\nevent: step.st").is_empty());
        let events = parser.feed(b"arted\ndata: {\"a\":\ndata: 1}\n\n: keep-alive\n\n");
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].id.as_str(), events[0].event.as_str(), events[0].data.as_str()), ("1.0", "step.started", "{\"a\":\n1}"));
    }
}
