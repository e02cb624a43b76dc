//! The services that others call: decode, call, encode.

mod checkpoints;
mod control;
mod effects;
mod fork;
mod peer;
mod query;
mod report;
mod runs;
mod start;
mod watch;
mod workflows;

use crate::{run::Key, shared::Shared, store::Store};
use bytes::Bytes;
use std::sync::Arc;
use tonic::{Request, Response, Status};
use troupe_domain::{Code, Error, Json, Result};
use troupe_wire::to_status;

/// All its services over one executor.
#[derive(Clone)]
pub(crate) struct Api {
    shared: Arc<Shared>,
}

impl Api {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn store(&self) -> &Store {
        &self.shared.store
    }

    /// A payload that a stranger sent.
    fn payload(&self, bytes: &Bytes, path: &str) -> Result<Json> {
        let limit = self.shared.config.limits.max_payload_bytes;
        if bytes.len() > limit {
            let message = format!("{path} has {} bytes; executor.limits.max_payload_bytes allows {limit}", bytes.len());
            return Err(Error::new(Code::PayloadTooLarge, message).with_help("pass a reference to large data instead of the data"));
        }
        Json::parse(bytes, path)
    }
}

/// The longest idempotency key, reason, signal name or comment.
const MAX_TEXT: usize = 4 << 10;

/// Refuses texts that nobody writes by hand.
fn short(text: &str, path: &str, limit: usize) -> Result<()> {
    if text.len() > limit {
        return Err(Error::invalid_field(path, format!("has {} bytes; at most {limit} are taken", text.len())));
    }
    Ok(())
}

fn answer<T>(result: Result<T>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| to_status(&error))
}

/// The trace context that is journaled with what a request does: that of the call's span here, else what the caller sent.
fn traceparent<T>(request: &Request<T>) -> String {
    let current = troupe_wire::trace::current_traceparent();
    if !current.is_empty() {
        return current;
    }
    let given = request.metadata().get("traceparent").and_then(|value| value.to_str().ok());
    given.filter(|text| troupe_wire::trace::is_traceparent(text)).map(str::to_owned).unwrap_or_default()
}

/// Whether a peer has passed the call on.
fn is_forwarded<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(crate::peers::FORWARDED)
}

fn key(namespace: &str, run_id: &str) -> Result<Key> {
    Key::parse(namespace, run_id)
}
