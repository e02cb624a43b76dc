//! A run's events as server-sent events.

use super::runs;
use crate::{
    app::App,
    backends::{call, error_of},
    convert,
    extract::{Ns, Params, run_id},
    failure::Answer,
    metrics,
};
use axum::{
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{StreamExt, stream};
use serde::Deserialize;
use std::{convert::Infallible, time::Duration};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Streaming;
use troupe_api::{Problem, Run, RunEvent, event};
use troupe_domain::{Code, Error, Json};
use troupe_proto::executor::v1::{WatchRunRequest, WatchRunResponse};
use troupe_wire::Backoff;
use utoipa::IntoParams;

/// The longest cursor.
const MAX_CURSOR: usize = 256;

/// Times in a row that a broken watch is taken up again before the client is told.
const MAX_RESUMES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// Asks proxies not to collect events.
const NO_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WatchParams {
    /// Only what came after this event; the `Last-Event-ID` header goes first.
    pub cursor: Option<String>,
    /// `false` leaves chunks (streamed text, logs) out.
    pub chunks: Option<bool>,
}

/// Streams a run's events.
///
/// Server-sent events: `id` is the cursor, `event` the kind, `data` a RunEvent. Lifecycle events come in the order of the journal, each once; chunks as
/// they come. `Last-Event-ID` resumes. The stream ends with an event `end` after the run's last one; an event `error` carries a problem document.
#[utoipa::path(get, path = "/api/v1/runs/{id}/events", tag = "runs",
    params(("id" = String, Path, description = "The run's id"), WatchParams,
           ("Last-Event-ID" = Option<String>, Header, description = "Only what came after this event")),
    responses((status = 200, description = "The events", content_type = "text/event-stream", body = String)))]
pub async fn watch_run(
    State(app): State<App>,
    ns: Ns,
    Path(id): Path<String>,
    Params(params): Params<WatchParams>,
    headers: HeaderMap,
) -> Answer<Response> {
    let permit = app.streams.clone().try_acquire_owned().map_err(|_| too_many(&app))?;
    let request = WatchRunRequest {
        namespace: ns.text(),
        run_id: run_id(&id)?,
        cursor: cursor(&headers, params.cursor)?,
        lifecycle_only: params.chunks == Some(false),
    };
    let upstream = call("executor", app.backends.runs().watch_run(request.clone())).await?;
    let keep_alive = KeepAlive::new().interval(Duration::from_millis(app.config.keep_alive_ms)).text("keep-alive");
    let watch = Watch {
        app,
        ns,
        request,
        upstream: Some(upstream),
        backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
        over: false,
        _open: Open::new(permit),
    };
    let hello = Event::default().comment("connected").retry(Duration::from_secs(1));
    let events = stream::once(async { hello }).chain(stream::unfold(watch, Watch::next)).map(Ok::<_, Infallible>);
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    response.headers_mut().insert(NO_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

fn cursor(headers: &HeaderMap, query: Option<String>) -> Result<String, Error> {
    let bad = || Error::invalid_field("Last-Event-ID", "is not a cursor of this stream");
    let text = match headers.get("last-event-id") {
        Some(value) => value.to_str().map_err(|_| bad())?.to_owned(),
        None => query.unwrap_or_default(),
    };
    if text.len() > MAX_CURSOR || text.chars().any(char::is_control) {
        return Err(bad());
    }
    Ok(text)
}

fn too_many(app: &App) -> Error {
    let mut error = Error::new(Code::ResourceExhausted, format!("{} event streams are open already", app.config.max_streams));
    error.retry_after_ms = Some(5_000);
    error.with_help("come back later, or raise gateway.max_streams")
}

/// Counts an open stream for as long as it lives.
struct Open(#[expect(dead_code, reason = "held until the stream is dropped")] OwnedSemaphorePermit);

impl Open {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        ::metrics::gauge!(metrics::STREAMS).increment(1);
        Self(permit)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        ::metrics::gauge!(metrics::STREAMS).decrement(1);
    }
}

/// A client's view of a run. A watch that breaks behind the gateway is taken up again where it was.
struct Watch {
    app: App,
    ns: Ns,
    /// Its cursor is that of the last event sent.
    request: WatchRunRequest,
    upstream: Option<Streaming<WatchRunResponse>>,
    backoff: Backoff,
    over: bool,
    _open: Open,
}

/// What comes out of the watch behind.
enum Next {
    Event(WatchRunResponse),
    Ended,
    Broken(Error),
    Stopping,
}

impl Watch {
    async fn next(mut self) -> Option<(Event, Self)> {
        while !self.over {
            match self.poll().await {
                Next::Event(message) => {
                    self.backoff.reset();
                    self.request.cursor.clone_from(&message.cursor);
                    return Some((sse(convert::event(message)), self));
                }
                Next::Ended => {
                    self.upstream = None;
                    if let Some(event) = self.after_the_last().await {
                        return Some((event, self));
                    }
                }
                Next::Broken(error) if error.code.is_transient() && self.backoff.failures() < MAX_RESUMES => self.upstream = None,
                Next::Broken(error) => {
                    self.over = true;
                    return Some((broken(error), self));
                }
                // The client resumes elsewhere.
                Next::Stopping => return None,
            }
        }
        None
    }

    async fn poll(&mut self) -> Next {
        let stopping = self.app.stopping.clone();
        tokio::select! {
            () = stopping.cancelled() => Next::Stopping,
            next = self.read() => next,
        }
    }

    async fn read(&mut self) -> Next {
        if self.upstream.is_none() {
            self.backoff.wait().await;
        }
        let upstream = match &mut self.upstream {
            Some(upstream) => upstream,
            none => match call("executor", self.app.backends.runs().watch_run(self.request.clone())).await {
                Ok(upstream) => none.insert(upstream),
                Err(error) => return Next::Broken(error),
            },
        };
        match upstream.message().await {
            Ok(Some(message)) => Next::Event(message),
            Ok(None) => Next::Ended,
            Err(status) => Next::Broken(error_of("executor", &status)),
        }
    }

    /// The watch ended: because the run has, or because the executor goes away.
    async fn after_the_last(&mut self) -> Option<Event> {
        match runs::fetch(&self.app, &self.ns, self.request.run_id.clone()).await {
            Ok(run) if run.has_ended() => {
                self.over = true;
                Some(sse(end(run, self.request.cursor.clone())))
            }
            Err(error) if !error.code.is_transient() || self.backoff.failures() >= MAX_RESUMES => {
                self.over = true;
                Some(broken(error))
            }
            Ok(_) | Err(_) => None,
        }
    }
}

fn end(run: Run, cursor: String) -> RunEvent {
    let data = serde_json::json!({ "status": run.status, "error": run.error });
    RunEvent { cursor, kind: event::END.to_owned(), at: run.ended_at, step: String::new(), data: Json::from(&data) }
}

fn sse(mut event: RunEvent) -> Event {
    // Fields of an event stream are lines: a control character would break out of its own.
    let line = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    if event.data.as_str().contains(['\n', '\r']) {
        // JSON may have line breaks between its tokens; data of several lines is legal, but simple clients read only the first.
        event.data = Json::from(event.data.to_value());
    }
    let data = serde_json::to_string(&event).unwrap_or_default();
    let out = Event::default().event(line(&event.kind)).data(data);
    if event.cursor.is_empty() { out } else { out.id(line(&event.cursor)) }
}

fn broken(error: Error) -> Event {
    let status = error.code.http();
    let problem = Problem::new(error, status, "");
    Event::default().event(event::ERROR).data(serde_json::to_string(&problem).unwrap_or_default())
}
