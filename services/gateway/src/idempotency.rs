//! `Idempotency-Key`. Calls that start something hand the key on to the service that makes it durable. The others are idempotent by nature;
//! for them the gateway keeps the answer for a while, so that the same key gets the same answer.

use crate::{
    app::App,
    extract::{self, Ns},
    failure::{Answer, Failure},
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, request::Parts},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http_body_util::BodyExt;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use troupe_domain::{Error, sha256_hex};

/// The header.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The header of an answer that was given before.
pub const REPLAYED: &str = "idempotency-replayed";

/// The longest key.
const MAX_KEY: usize = 255;

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(600);

/// The largest answer that is kept, in bytes. A larger one is made anew, which is harmless: these calls are idempotent by nature.
const MAX_ANSWER: usize = 64 << 10;

/// The key of a request; empty when there is none.
pub fn key(headers: &HeaderMap) -> Result<String, Error> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(String::new()) };
    match value.to_str() {
        Ok(key) if !key.trim().is_empty() && key.len() <= MAX_KEY => Ok(key.trim().to_owned()),
        _ => Err(Error::invalid_field("Idempotency-Key", format!("is not 1 to {MAX_KEY} printable ASCII characters"))),
    }
}

/// Answers given lately.
#[derive(Debug)]
pub struct Replays {
    entries: usize,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    by_key: HashMap<String, Arc<Slot>>,
    by_age: VecDeque<(Instant, String)>,
}

/// One key's place. It is locked while the first request runs, so that a second one waits for its answer.
#[derive(Debug, Default)]
struct Slot(tokio::sync::Mutex<Option<Kept>>);

#[derive(Debug)]
struct Kept {
    digest: String,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Replays {
    pub fn new(entries: usize) -> Self {
        Self { entries, slots: Mutex::default() }
    }

    fn slot(&self, key: &str, now: Instant) -> Arc<Slot> {
        // A panic inside leaves at worst a slot too many.
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        while slots.by_age.front().is_some_and(|(since, _)| now.duration_since(*since) > KEPT || slots.by_age.len() > self.entries) {
            if let Some((_, old)) = slots.by_age.pop_front() {
                slots.by_key.remove(&old);
            }
        }
        if let Some(slot) = slots.by_key.get(key) {
            return Arc::clone(slot);
        }
        let slot = Arc::<Slot>::default();
        slots.by_key.insert(key.to_owned(), Arc::clone(&slot));
        slots.by_age.push_back((now, key.to_owned()));
        slot
    }
}

/// The layer of POST routes that are idempotent by nature.
pub async fn replay(State(app): State<App>, ns: Ns, request: Request, next: Next) -> Answer<Response> {
    let key = key(request.headers())?;
    if key.is_empty() {
        return Ok(next.run(request).await);
    }
    let (parts, body) = request.into_parts();
    let body = extract::read(&parts.headers, body, app.config.max_body).await?;
    let digest = sha256_hex(&body);
    let slot = app.replays.slot(&scope(&ns, &parts, &key), Instant::now());
    let mut kept = slot.0.lock().await;
    if let Some(kept) = &*kept {
        return kept.answer(&digest);
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    if !response.status().is_success() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|_| Error::internal())?.to_bytes();
    if body.len() <= MAX_ANSWER {
        *kept = Some(Kept { digest, status: parts.status, headers: parts.headers.clone(), body: body.clone() });
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn scope(ns: &Ns, parts: &Parts, key: &str) -> String {
    format!("{}\n{}\n{}\n{key}", ns.0, parts.method, parts.uri)
}

impl Kept {
    fn answer(&self, digest: &str) -> Answer<Response> {
        if self.digest != digest {
            let error = Error::conflict("this Idempotency-Key was used for a request with another body");
            return Err(Failure::from(error.with_help("use a new key for a new request")));
        }
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_bounded_and_age() {
        let replays = Replays::new(2);
        let start = Instant::now();
        let first = replays.slot("a", start);
        assert!(Arc::ptr_eq(&first, &replays.slot("a", start)));
        for key in ["b", "c", "d", "e"] {
            replays.slot(key, start);
        }
        assert!(replays.slots.lock().unwrap().by_key.len() <= 3);
        assert!(!Arc::ptr_eq(&first, &replays.slot("a", start)), "the oldest went first");
        let last = replays.slot("e", start);
        assert!(!Arc::ptr_eq(&last, &replays.slot("e", start + KEPT + Duration::from_secs(1))), "too old");
    }

    #[test]
    fn keys_are_checked() {
        let of = |value: &[u8]| key(&[(IDEMPOTENCY_KEY.parse().unwrap(), HeaderValue::from_bytes(value).unwrap())].into_iter().collect());
        assert_eq!(of(b" k-1 ").unwrap(), "k-1");
        assert_eq!(key(&HeaderMap::new()).unwrap(), "");
        for bad in [b"".as_slice(), b"  ", b"\xff", &[b'x'; 256]] {
            assert!(of(bad).is_err());
        }
    }
}
