//! Runs: start, look at, steer.

use super::page;
use crate::{
    app::App,
    backends::call,
    convert,
    extract::{JsonBody, Key, Ns, OptionalJson, Params, name, run_id, span},
    failure::Answer,
};
use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::DateTime;
use serde::Deserialize;
use std::{collections::HashMap, time::Duration};
use troupe_api::{Control, Controlled, Fork, Outcome, Page, Run, Signal, Signalled, StartRun};
use troupe_domain::Error;
use troupe_proto::executor::v1::{
    ControlAction, ControlOutcome, ControlRunRequest, ForkRunRequest, GetRunRequest, ListRunsRequest, SignalRunRequest, StartRunRequest,
    WaitRunRequest,
};
use utoipa::IntoParams;

/// The status of runs.
const STATUSES: [&str; 7] = ["queued", "running", "waiting", "paused", "succeeded", "failed", "cancelled"];

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitParams {
    /// Answers when the run has ended or this time is over, whichever is first: `30s`.
    pub wait: Option<String>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RunsParams {
    /// At most this many items, from 1 to 500; 50 where none is given.
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Runs of this workflow.
    pub workflow: Option<String>,
    /// Runs in this status; several may be given, repeated or with commas.
    pub status: Option<String>,
    /// Runs with this label, `KEY=VALUE`; several may be given, all must hold.
    pub label: Option<String>,
    /// Runs started at or after this time (RFC 3339).
    pub since: Option<String>,
    /// Child runs of this run.
    pub parent: Option<String>,
}

/// Starts a run.
///
/// With `?wait=30s` the answer comes when the run has ended (200) or the time is over (202).
#[utoipa::path(post, path = "/api/v1/workflows/{name}/runs", tag = "runs",
    params(("name" = String, Path, description = "The workflow's name"), WaitParams), request_body = StartRun,
    responses((status = 201, description = "Started", body = Run, headers(("Location" = String, description = "The run"))),
              (status = 200, description = "It has ended, or the Idempotency-Key had started it before", body = Run),
              (status = 202, description = "Started, and not ended when the wait was over", body = Run)))]
pub async fn start_run(
    State(app): State<App>,
    ns: Ns,
    Key(key): Key,
    Path(workflow): Path<String>,
    Params(params): Params<WaitParams>,
    OptionalJson(body): OptionalJson<StartRun>,
) -> Answer<Response> {
    let deadline = body.deadline.as_deref().map(|text| span(text, "deadline")).transpose()?;
    let wait = wait_time(&app, params.wait.as_deref())?;
    let request = StartRunRequest {
        namespace: ns.text(),
        workflow: name(&workflow, "name")?,
        version: body.version.unwrap_or_default(),
        input: convert::payload(body.input.as_ref()),
        priority: priority(body.priority)?,
        labels: body.labels.into_iter().collect(),
        deadline: deadline.map(troupe_wire::duration),
        idempotency_key: key,
        wait: wait.map(troupe_wire::duration),
    };
    let answer = call("executor", app.backends.runs().start_run(request)).await?;
    Ok(started(convert::run(convert::required(answer.run)?), answer.created, wait.is_some(), "runs"))
}

/// The answer to a start, after the wait if one was asked for.
pub fn started(run: Run, created: bool, waited: bool, collection: &str) -> Response {
    let location = format!("/api/v1/{collection}/{}", run.run_id);
    let status = match waited {
        true if run.ended_at.is_none() => StatusCode::ACCEPTED,
        false if created => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    (status, [(header::LOCATION, location)], Json(run)).into_response()
}

/// Lists runs, newest first.
#[utoipa::path(get, path = "/api/v1/runs", tag = "runs", params(RunsParams),
    responses((status = 200, description = "A page", body = Page<Run>)))]
pub async fn list_runs(State(app): State<App>, ns: Ns, Params(params): Params<RunsParams>) -> Answer<Json<Page<Run>>> {
    let since = params.since.as_deref().map(time).transpose()?;
    let request = ListRunsRequest {
        namespace: ns.text(),
        page: page(params.limit, params.cursor)?,
        workflow: params.workflow.map(|text| name(&text, "workflow")).transpose()?.unwrap_or_default(),
        statuses: statuses(params.status.as_deref().unwrap_or_default())?,
        labels: labels(params.label.as_deref().unwrap_or_default())?,
        since,
        parent_run_id: params.parent.map(|text| run_id(&text)).transpose()?.unwrap_or_default(),
        dead_queue: String::new(),
    };
    let answer = call("executor", app.backends.runs().list_runs(request)).await?;
    Ok(Json(Page::new(answer.runs.into_iter().map(convert::run).collect(), answer.next_cursor)))
}

/// Shows a run: its steps, input, output, state, and what it waits for.
#[utoipa::path(get, path = "/api/v1/runs/{id}", tag = "runs", params(("id" = String, Path, description = "The run's id"), WaitParams),
    responses((status = 200, description = "The run", body = Run)))]
pub async fn get_run(State(app): State<App>, ns: Ns, Path(id): Path<String>, Params(params): Params<WaitParams>) -> Answer<Json<Run>> {
    let id = run_id(&id)?;
    match wait_time(&app, params.wait.as_deref())? {
        Some(wait) => Ok(Json(wait_run(&app, &ns, id, wait).await?)),
        None => Ok(Json(fetch(&app, &ns, id).await?)),
    }
}

/// Cancels a run.
#[utoipa::path(post, path = "/api/v1/runs/{id}/cancel", tag = "runs", params(("id" = String, Path, description = "The run's id")),
    request_body = Control, responses((status = 200, description = "What it did", body = Controlled)))]
pub async fn cancel_run(State(app): State<App>, ns: Ns, Path(id): Path<String>, body: OptionalJson<Control>) -> Answer<Json<Controlled>> {
    control(&app, &ns, &id, ControlAction::Cancel, body.0.reason).await
}

/// Pauses a run: what runs goes on to its end, nothing new is started.
#[utoipa::path(post, path = "/api/v1/runs/{id}/pause", tag = "runs", params(("id" = String, Path, description = "The run's id")),
    request_body = Control, responses((status = 200, description = "What it did", body = Controlled)))]
pub async fn pause_run(State(app): State<App>, ns: Ns, Path(id): Path<String>, body: OptionalJson<Control>) -> Answer<Json<Controlled>> {
    control(&app, &ns, &id, ControlAction::Pause, body.0.reason).await
}

/// Resumes a paused run.
#[utoipa::path(post, path = "/api/v1/runs/{id}/resume", tag = "runs", params(("id" = String, Path, description = "The run's id")),
    request_body = Control, responses((status = 200, description = "What it did", body = Controlled)))]
pub async fn resume_run(State(app): State<App>, ns: Ns, Path(id): Path<String>, body: OptionalJson<Control>) -> Answer<Json<Controlled>> {
    control(&app, &ns, &id, ControlAction::Resume, body.0.reason).await
}

/// Retries a failed run: its failed steps start again, finished ones are kept.
#[utoipa::path(post, path = "/api/v1/runs/{id}/retry", tag = "runs", params(("id" = String, Path, description = "The run's id")),
    request_body = Control, responses((status = 200, description = "What it did", body = Controlled)))]
pub async fn retry_run(State(app): State<App>, ns: Ns, Path(id): Path<String>, body: OptionalJson<Control>) -> Answer<Json<Controlled>> {
    control(&app, &ns, &id, ControlAction::Retry, body.0.reason).await
}

/// Sends a named message into a run.
#[utoipa::path(post, path = "/api/v1/runs/{id}/signal", tag = "runs", params(("id" = String, Path, description = "The run's id")),
    request_body = Signal, responses((status = 200, description = "Whether it was applied", body = Signalled)))]
pub async fn signal_run(
    State(app): State<App>,
    ns: Ns,
    Key(key): Key,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<Signal>,
) -> Answer<Json<Signalled>> {
    let request = SignalRunRequest {
        namespace: ns.text(),
        run_id: run_id(&id)?,
        name: name(&body.name, "name")?,
        payload: convert::payload(body.payload.as_ref()),
        idempotency_key: key,
    };
    let answer = call("executor", app.backends.runs().signal_run(request)).await?;
    Ok(Json(Signalled { applied: answer.applied, run: convert::run(convert::required(answer.run)?) }))
}

/// Starts a new run from a checkpoint of another.
#[utoipa::path(post, path = "/api/v1/runs/{id}/fork", tag = "runs", params(("id" = String, Path, description = "The run's id")),
    request_body = Fork,
    responses((status = 201, description = "The new run", body = Run, headers(("Location" = String, description = "The new run")))))]
pub async fn fork_run(
    State(app): State<App>,
    ns: Ns,
    Key(key): Key,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<Fork>,
) -> Answer<Response> {
    if body.state.as_ref().is_some_and(|state| !state.as_str().starts_with('{')) {
        return Err(Error::invalid_field("state", "is not an object").into());
    }
    let request = ForkRunRequest {
        namespace: ns.text(),
        run_id: run_id(&id)?,
        checkpoint: body.checkpoint,
        state: convert::payload(body.state.as_ref()),
        idempotency_key: key,
    };
    let answer = call("executor", app.backends.runs().fork_run(request)).await?;
    let run = convert::run(convert::required(answer.run)?);
    Ok(started(run, true, false, "runs"))
}

/// Tells a run what to do.
pub async fn control(app: &App, ns: &Ns, id: &str, action: ControlAction, reason: String) -> Answer<Json<Controlled>> {
    let request = ControlRunRequest { namespace: ns.text(), run_id: run_id(id)?, action: action.into(), reason };
    let answer = call("executor", app.backends.runs().control_run(request)).await?;
    let outcome = match answer.outcome() {
        ControlOutcome::Already => Outcome::Already,
        ControlOutcome::Done | ControlOutcome::Unspecified => Outcome::Done,
    };
    Ok(Json(Controlled { outcome, run: convert::run(convert::required(answer.run)?) }))
}

/// The run as it is now.
pub async fn fetch(app: &App, ns: &Ns, run_id: String) -> Result<Run, Error> {
    let answer = call("executor", app.backends.runs().get_run(GetRunRequest { namespace: ns.text(), run_id })).await?;
    convert::required(answer.run).map(convert::run)
}

/// The run when it has ended, or after the wait.
pub async fn wait_run(app: &App, ns: &Ns, run_id: String, wait: Duration) -> Result<Run, Error> {
    let request = WaitRunRequest { namespace: ns.text(), run_id, timeout: Some(troupe_wire::duration(wait)) };
    let answer = call("executor", app.backends.runs().wait_run(request)).await?;
    Ok(convert::run(convert::required(answer.run)?))
}

/// The wait that was asked for, at most the setting.
pub fn wait_time(app: &App, text: Option<&str>) -> Result<Option<Duration>, Error> {
    let wait = text.map(|text| span(text, "wait")).transpose()?;
    Ok(wait.map(|wait| wait.min(app.config.max_wait())))
}

/// 0 to 9.
pub fn priority(value: Option<u32>) -> Result<Option<u32>, Error> {
    match value {
        Some(value @ 10..) => Err(Error::invalid_field("priority", format!("{value} is not between 0 (first) and 9"))),
        value => Ok(value),
    }
}

fn time(text: &str) -> Result<prost_types::Timestamp, Error> {
    let time = DateTime::parse_from_rfc3339(text)
        .map_err(|_| Error::invalid_field("since", "is not a time (RFC 3339, like 2026-01-31T12:00:00Z; write + as %2B)"))?;
    Ok(troupe_wire::timestamp(time.to_utc()))
}

fn statuses(text: &str) -> Result<Vec<String>, Error> {
    let parts = text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| match STATUSES.contains(&part) {
            true => Ok(part.to_owned()),
            false => Err(Error::invalid_field("status", format!("'{part}' is none of {}", STATUSES.join(", ")))),
        })
        .collect()
}

fn labels(lines: &str) -> Result<HashMap<String, String>, Error> {
    let pair = |line: &str| match line.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Error::invalid_field("label", format!("'{line}' is not KEY=VALUE"))),
    };
    lines.lines().filter(|line| !line.is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        assert_eq!(statuses("failed,running\ncancelled").unwrap(), ["failed", "running", "cancelled"]);
        assert!(statuses("failed,odd").unwrap_err().message.contains("odd"));
        assert_eq!(labels("a=1\nb=x=y").unwrap(), HashMap::from([("a".into(), "1".into()), ("b".into(), "x=y".into())]));
        assert!(labels("a").is_err() && labels("=1").is_err());
        assert!(time("2026-01-31T12:00:00+02:00").is_ok() && time("yesterday").is_err());
        assert!(priority(Some(9)).is_ok() && priority(Some(10)).is_err());
    }
}
