//! A run's history: checkpoints, what changed between two, and what it waits on now.

use super::{PageParams, page};
use crate::{
    app::App,
    backends::call,
    convert,
    extract::{Ns, Params, run_id},
    failure::Answer,
};
use axum::{
    Json,
    extract::{Path, State},
};
use serde::Deserialize;
use troupe_api::{Checkpoint, CheckpointDetail, Diff, Page, Why};
use troupe_proto::executor::v1::{DiffCheckpointsRequest, ExplainRunRequest, GetCheckpointRequest, ListCheckpointsRequest};
use utoipa::IntoParams;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DiffParams {
    /// The number of the first checkpoint.
    pub from: u64,
    /// The number of the second.
    pub to: u64,
}

/// Lists a run's checkpoints in order.
#[utoipa::path(get, path = "/api/v1/runs/{id}/checkpoints", tag = "history", params(("id" = String, Path, description = "The run's id"), PageParams),
    responses((status = 200, description = "A page", body = Page<Checkpoint>)))]
pub async fn list_checkpoints(
    State(app): State<App>,
    ns: Ns,
    Path(id): Path<String>,
    Params(params): Params<PageParams>,
) -> Answer<Json<Page<Checkpoint>>> {
    let request = ListCheckpointsRequest { namespace: ns.text(), run_id: run_id(&id)?, page: page(params.limit, params.cursor)? };
    let answer = call("executor", app.backends.runs().list_checkpoints(request)).await?;
    Ok(Json(Page::new(answer.checkpoints.into_iter().map(convert::checkpoint).collect(), answer.next_cursor)))
}

/// Shows the run as it was after a journal entry.
#[utoipa::path(get, path = "/api/v1/runs/{id}/checkpoints/{seq}", tag = "history",
    params(("id" = String, Path, description = "The run's id"), ("seq" = u64, Path, description = "The checkpoint's number, from 1")),
    responses((status = 200, description = "The checkpoint and the run as it was", body = CheckpointDetail)))]
pub async fn get_checkpoint(State(app): State<App>, ns: Ns, Path((id, seq)): Path<(String, u64)>) -> Answer<Json<CheckpointDetail>> {
    let request = GetCheckpointRequest { namespace: ns.text(), run_id: run_id(&id)?, seq };
    let answer = call("executor", app.backends.runs().get_checkpoint(request)).await?;
    let checkpoint = convert::checkpoint(convert::required(answer.checkpoint)?);
    Ok(Json(CheckpointDetail { checkpoint, run: convert::run(convert::required(answer.run)?) }))
}

/// Shows what changed between two checkpoints, as a JSON Patch.
#[utoipa::path(get, path = "/api/v1/runs/{id}/checkpoints/diff", tag = "history", params(("id" = String, Path, description = "The run's id"), DiffParams),
    responses((status = 200, description = "The difference", body = Diff)))]
pub async fn diff_checkpoints(
    State(app): State<App>,
    ns: Ns,
    Path(id): Path<String>,
    Params(params): Params<DiffParams>,
) -> Answer<Json<Diff>> {
    let DiffParams { from, to } = params;
    let request = DiffCheckpointsRequest { namespace: ns.text(), run_id: run_id(&id)?, from, to };
    let answer = call("executor", app.backends.runs().diff_checkpoints(request)).await?;
    Ok(Json(Diff { from, to, patch: convert::json(&answer.patch).unwrap_or_default() }))
}

/// Tells what each pending step waits on.
#[utoipa::path(get, path = "/api/v1/runs/{id}/why", tag = "history", params(("id" = String, Path, description = "The run's id")),
    responses((status = 200, description = "The waits", body = Why)))]
pub async fn explain_run(State(app): State<App>, ns: Ns, Path(id): Path<String>) -> Answer<Json<Why>> {
    let request = ExplainRunRequest { namespace: ns.text(), run_id: run_id(&id)? };
    let answer = call("executor", app.backends.runs().explain_run(request)).await?;
    Ok(Json(Why { status: answer.status, waits: answer.waits.into_iter().map(convert::wait).collect() }))
}
