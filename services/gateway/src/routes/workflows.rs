//! Definitions.

use super::{PageParams, page};
use crate::{
    app::App,
    backends::call,
    convert,
    extract::{Ns, Params, Source, name},
    failure::Answer,
    graph,
};
use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use troupe_api::{AppliedWorkflow, Graph, Page, Workflow};
use troupe_domain::Error;
use troupe_proto::executor::v1::{ApplyWorkflowRequest, GetWorkflowRequest, ListWorkflowsRequest};
use utoipa::IntoParams;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ApplyParams {
    /// Only checks it.
    pub dry_run: bool,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VersionParams {
    /// The newest where none is given.
    pub version: Option<String>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct GraphParams {
    /// The newest where none is given.
    pub version: Option<String>,
    /// `json` (default) or `mermaid`.
    pub format: Option<String>,
}

/// Applies a workflow.
///
/// The body is the file's text, YAML or JSON. Every mistake that can be seen is reported, with line and column.
#[utoipa::path(post, path = "/api/v1/workflows", tag = "workflows", params(ApplyParams),
    request_body(content((String = "application/yaml"), (serde_json::Value = "application/json"))),
    responses((status = 200, description = "It was there before, or was only checked", body = AppliedWorkflow),
              (status = 201, description = "Stored", body = AppliedWorkflow)))]
pub async fn apply_workflow(
    State(app): State<App>,
    ns: Ns,
    Params(params): Params<ApplyParams>,
    Source(source): Source,
) -> Answer<Response> {
    let request = ApplyWorkflowRequest { namespace: ns.text(), source, dry_run: params.dry_run };
    let answer = call("executor", app.backends.workflows().apply_workflow(request)).await?;
    let workflow = convert::required(answer.workflow)?;
    let created = answer.created && !params.dry_run;
    let applied = AppliedWorkflow {
        namespace: workflow.namespace,
        name: workflow.name,
        version: workflow.version,
        hash: workflow.hash,
        created,
        dry_run: params.dry_run,
    };
    Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, Json(applied)).into_response())
}

/// Lists workflows: the newest version of each.
#[utoipa::path(get, path = "/api/v1/workflows", tag = "workflows", params(PageParams),
    responses((status = 200, description = "A page", body = Page<Workflow>)))]
pub async fn list_workflows(State(app): State<App>, ns: Ns, Params(params): Params<PageParams>) -> Answer<Json<Page<Workflow>>> {
    list(&app, &ns, params, String::new()).await
}

/// Lists the versions of a workflow, newest first.
#[utoipa::path(get, path = "/api/v1/workflows/{name}/versions", tag = "workflows",
    params(("name" = String, Path, description = "The workflow's name"), PageParams),
    responses((status = 200, description = "A page", body = Page<Workflow>)))]
pub async fn list_workflow_versions(
    State(app): State<App>,
    ns: Ns,
    Path(workflow): Path<String>,
    Params(params): Params<PageParams>,
) -> Answer<Json<Page<Workflow>>> {
    let workflow = name(&workflow, "name")?;
    let answer = list(&app, &ns, params, workflow.clone()).await?;
    // A workflow without versions does not exist; the service answers an empty page.
    if answer.0.items.is_empty() && answer.0.next_cursor.is_none() {
        fetch(&app, &ns, workflow, None).await?;
    }
    Ok(answer)
}

/// Shows a workflow with its text and definition.
#[utoipa::path(get, path = "/api/v1/workflows/{name}", tag = "workflows",
    params(("name" = String, Path, description = "The workflow's name"), VersionParams),
    responses((status = 200, description = "The workflow", body = Workflow)))]
pub async fn get_workflow(
    State(app): State<App>,
    ns: Ns,
    Path(workflow): Path<String>,
    Params(params): Params<VersionParams>,
) -> Answer<Json<Workflow>> {
    Ok(Json(fetch(&app, &ns, workflow, params.version).await?))
}

/// Shows a workflow as nodes and edges.
///
/// Groups of steps are nodes that others name as their `parent`. `?format=mermaid` answers a Mermaid flowchart.
#[utoipa::path(get, path = "/api/v1/workflows/{name}/graph", tag = "workflows",
    params(("name" = String, Path, description = "The workflow's name"), GraphParams),
    responses((status = 200, description = "The graph", content((Graph = "application/json"), (String = "text/vnd.mermaid")))))]
pub async fn get_workflow_graph(
    State(app): State<App>,
    ns: Ns,
    Path(workflow): Path<String>,
    Params(params): Params<GraphParams>,
) -> Answer<Response> {
    let mermaid = match params.format.as_deref() {
        None | Some("json") => false,
        Some("mermaid") => true,
        Some(_) => return Err(Error::invalid_field("format", "is neither json nor mermaid").into()),
    };
    let stored = fetch(&app, &ns, workflow, params.version).await?;
    let graph = graph::of_stored(&convert::required(stored.definition)?)?;
    if mermaid {
        return Ok(([(header::CONTENT_TYPE, "text/vnd.mermaid; charset=utf-8")], graph.to_mermaid()).into_response());
    }
    Ok(Json(graph).into_response())
}

async fn list(app: &App, ns: &Ns, params: PageParams, name: String) -> Answer<Json<Page<Workflow>>> {
    let request = ListWorkflowsRequest { namespace: ns.text(), page: page(params.limit, params.cursor)?, name };
    let answer = call("executor", app.backends.workflows().list_workflows(request)).await?;
    Ok(Json(Page::new(answer.workflows.into_iter().map(convert::workflow).collect(), answer.next_cursor)))
}

async fn fetch(app: &App, ns: &Ns, workflow: String, version: Option<String>) -> Result<Workflow, Error> {
    let request = GetWorkflowRequest { namespace: ns.text(), name: name(&workflow, "name")?, version: version.unwrap_or_default() };
    let answer = call("executor", app.backends.workflows().get_workflow(request)).await?;
    convert::required(answer.workflow).map(convert::workflow)
}
