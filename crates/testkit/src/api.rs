//! Calls of the HTTP API.

use serde_json::Value;

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Api {
    url: String,
    client: reqwest::Client,
}

impl Api {
    pub fn new(url: String) -> Self {
        Self { url, client: reqwest::Client::new() }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// GET; the status and the JSON answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<(u16, Value)> {
        answer(self.client.get(format!("{}{path}", self.url)).send().await?).await
    }

    /// POST of JSON; the status and the JSON answer.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        answer(self.client.post(format!("{}{path}", self.url)).json(body).send().await?).await
    }

    /// POST of text of a type.
    pub async fn post_text(&self, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> anyhow::Result<(u16, Value)> {
        answer(self.client.post(format!("{}{path}", self.url)).header("content-type", content_type).body(body).send().await?).await
    }
}

async fn answer(response: reqwest::Response) -> anyhow::Result<(u16, Value)> {
    let status = response.status().as_u16();
    let bytes = response.bytes().await?;
    Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
}
