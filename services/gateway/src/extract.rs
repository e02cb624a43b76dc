//! How requests are read. Everything that a stranger can send has a limit and a clear error.

use crate::{app::App, failure::Failure, idempotency};
use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{HeaderMap, StatusCode, Uri, header, request::Parts},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, time::Duration};
use troupe_domain::{Code, Error, Fault, Json, Namespace, RunId, id::check_name};

/// The header that names the namespace.
pub const NAMESPACE: &str = "troupe-namespace";

/// The longest query string.
const MAX_QUERY: usize = 8 << 10;

/// How much of a body that is too large is read and thrown away: a client that still sends would otherwise see a reset instead of the answer.
const MAX_DRAINED: usize = 128 << 20;

/// How long that may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// The namespace of the request.
#[derive(Clone, Debug)]
pub struct Ns(pub Namespace);

impl FromRequestParts<App> for Ns {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let text = match parts.headers.get(NAMESPACE) {
            Some(value) => value.to_str().map_err(|_| Error::invalid_field("Troupe-Namespace", "is not printable ASCII"))?,
            None => &app.config.default_namespace,
        };
        Ok(Self(Namespace::parse(text)?))
    }
}

impl Ns {
    pub fn text(&self) -> String {
        self.0.to_string()
    }
}

/// The `Idempotency-Key` of the request, empty when there is none; for calls whose service makes it durable.
#[derive(Clone, Debug)]
pub struct Key(pub String);

impl FromRequestParts<App> for Key {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Failure> {
        Ok(Self(idempotency::key(&parts.headers)?))
    }
}

/// The query. A key that comes several times reaches its field as one text with a line for each; unknown keys are refused by the type.
#[derive(Clone, Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<App> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Failure> {
        Ok(Self(query(parts.uri.query().unwrap_or_default())?))
    }
}

fn query<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    if text.len() > MAX_QUERY {
        return Err(Error::invalid(format!("the query is longer than {MAX_QUERY} bytes")));
    }
    let mut merged = BTreeMap::<String, String>::new();
    for (key, value) in url::form_urlencoded::parse(text.as_bytes()) {
        let seen = merged.entry(key.into_owned());
        seen.and_modify(|lines| *lines = format!("{lines}\n{value}")).or_insert_with(|| value.into_owned());
    }
    let text = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&merged).finish();
    let uri = format!("/?{text}").parse::<Uri>().map_err(|_| Error::invalid("the query cannot be read"))?;
    let Query(value) = Query::try_from_uri(&uri).map_err(|e| {
        let message = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
        Error::invalid_field("query", message)
    })?;
    Ok(value)
}

/// A JSON body that must be there.
#[derive(Clone, Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        let body = json_bytes(request, app).await?;
        if body.is_empty() {
            return Err(Error::invalid("the body is empty; send a JSON object").into());
        }
        Ok(Self(parse(&body)?))
    }
}

/// A JSON body that may be left out.
#[derive(Clone, Debug)]
pub struct OptionalJson<T>(pub T);

impl<T: DeserializeOwned + Default> FromRequest<App> for OptionalJson<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        let body = json_bytes(request, app).await?;
        Ok(Self(if body.is_empty() { T::default() } else { parse(&body)? }))
    }
}

/// The text of a workflow or agent file, YAML or JSON.
#[derive(Clone, Debug)]
pub struct Source(pub String);

impl FromRequest<App> for Source {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        // The parser reads both YAML and JSON, and curl calls everything a form: only what is clearly something else is refused.
        let media = media_type(request.headers());
        if ["multipart/", "image/", "audio/", "video/"].iter().any(|kind| media.starts_with(kind)) {
            return Err(unsupported(&media, "application/yaml or application/json"));
        }
        let (parts, body) = request.into_parts();
        let bytes = read(&parts.headers, body, app.config.max_body).await?;
        let text = String::from_utf8(bytes.into()).map_err(|e| {
            let offset = e.utf8_error().valid_up_to();
            Error::invalid_field("body", format!("is not UTF-8: bad byte at offset {offset}"))
        })?;
        if text.trim().is_empty() {
            return Err(Error::invalid("the body is empty; send the file's text, YAML or JSON").into());
        }
        Ok(Self(text))
    }
}

async fn json_bytes(request: Request, app: &App) -> Result<Bytes, Failure> {
    let (parts, body) = request.into_parts();
    let media = media_type(&parts.headers);
    let is_json = media.is_empty() || media == "application/json" || media.ends_with("+json");
    let bytes = read(&parts.headers, body, app.config.max_body).await?;
    // A body that is not there has no type.
    if is_json || bytes.is_empty() { Ok(bytes) } else { Err(unsupported(&media, "application/json")) }
}

/// The media type without parameters, in lower case; empty when there is none.
fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("unreadable"));
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn unsupported(media: &str, wanted: &str) -> Failure {
    let error = Error::invalid_field("Content-Type", format!("'{media}' is not what this path takes"));
    Failure::with_status(error.with_help(format!("send {wanted} and say so in Content-Type")), StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

/// Reads a body of at most `max` bytes.
pub async fn read(headers: &HeaderMap, mut body: Body, max: usize) -> Result<Bytes, Error> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    let mut read = BytesMut::new();
    let mut fits = announced.is_none_or(|length| length <= max as u64);
    while fits && let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Error::invalid("the body broke off"))?;
        if let Ok(data) = frame.into_data() {
            fits = read.len() + data.len() <= max;
            read.extend_from_slice(&data);
        }
    }
    if fits {
        return Ok(read.freeze());
    }
    drop(read);
    // Whatever comes of it, the answer is the same.
    let _ = tokio::time::timeout(DRAIN_LIMIT, drain(body)).await;
    Err(Error::new(Code::PayloadTooLarge, format!("the body is larger than {max} bytes")).with_help("send less, or raise gateway.max_body"))
}

async fn drain(mut body: Body) {
    let mut drained = 0;
    while drained <= MAX_DRAINED
        && let Some(Ok(frame)) = body.frame().await
    {
        drained += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// Reads JSON text. The error names the place in the text and the field.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let json = Json::parse(bytes, "body")?;
    let mut reader = serde_json::Deserializer::from_str(json.as_str());
    serde_path_to_error::deserialize(&mut reader).map_err(|e| {
        let path = e.path().to_string();
        let path = if path == "." { "body".to_owned() } else { path };
        let cause = e.into_inner();
        let place = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let text = cause.to_string();
        let message = text.split(" at line ").next().unwrap_or(&text).to_owned();
        let fault = Fault { line: place(cause.line()), column: place(cause.column()), ..Fault::at(path.clone(), message.clone()) };
        Error::invalid(format!("{path}: {message}")).with_faults(vec![fault])
    })
}

/// A name from a path.
pub fn name(text: &str, path: &str) -> Result<String, Error> {
    check_name(text).map_err(|message| Error::invalid_field(path, message))?;
    Ok(text.to_owned())
}

/// A run's id from a path, in its canonical form.
pub fn run_id(text: &str) -> Result<String, Error> {
    let shown: String = text.chars().take(80).collect();
    shown.parse::<RunId>().map(|id| id.to_string())
}

/// A duration from a field.
pub fn span(text: &str, path: &str) -> Result<Duration, Error> {
    let shown: String = text.chars().take(80).collect();
    troupe_domain::parse_span(&shown).map_err(|message| Error::invalid_field(path, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Filter {
        limit: Option<u32>,
        label: Option<String>,
    }

    #[test]
    fn repeated_keys_become_lines() {
        let filter = query::<Filter>("label=a%3D1&limit=3&label=b%3D2").unwrap();
        assert_eq!(filter, Filter { limit: Some(3), label: Some("a=1\nb=2".into()) });
        assert!(query::<Filter>("limt=3").unwrap_err().message.contains("limt"));
        assert!(query::<Filter>("limit=x").is_err());
        assert!(query::<Filter>(&"label=a&".repeat(2_000)).is_err());
    }

    #[test]
    fn bad_json_names_field_and_place() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Outer {
            #[expect(dead_code, reason = "only read by serde")]
            inner: Filter,
        }
        let error = parse::<Outer>(b"{\n \"inner\": { \"limit\": \"x\" } }").unwrap_err();
        assert_eq!((error.faults[0].path.as_str(), error.faults[0].line), ("inner.limit", 2));
        assert!(parse::<Outer>(b"{\"inner\": {}, \"oter\": 1}").unwrap_err().message.contains("oter"));
        assert!(parse::<Outer>("[".repeat(10_000).as_bytes()).unwrap_err().message.contains("deeper"));
        assert!(parse::<Outer>(b"\xff").unwrap_err().message.contains("UTF-8"));
    }

    #[tokio::test]
    async fn a_body_without_a_length_is_cut_off() {
        let endless = futures::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 100]))));
        let error = read(&HeaderMap::new(), Body::from_stream(endless), 1_000).await.unwrap_err();
        assert_eq!(error.code, Code::PayloadTooLarge);
    }
}
