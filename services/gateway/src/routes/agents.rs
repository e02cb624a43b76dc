//! The catalogue of agents.

use super::page;
use crate::{
    app::App,
    backends::call,
    convert,
    extract::{Ns, OptionalJson, Params, Source, name},
    failure::Answer,
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use troupe_api::{Agent, AppliedAgent, ChangeAgentState, Page};
use troupe_proto::registry::v1::{
    AgentState, ApplyAgentRequest, DeleteAgentRequest, GetAgentRequest, ListAgentsRequest, SetAgentStateRequest,
};
use utoipa::IntoParams;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AgentsParams {
    /// At most this many items, from 1 to 500; 50 where none is given.
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Agents with this capability.
    pub capability: Option<String>,
}

/// Applies an agent.
///
/// The body is the file's text, YAML or JSON. A new version becomes the active one.
#[utoipa::path(post, path = "/api/v1/agents", tag = "agents", params(super::workflows::ApplyParams),
    request_body(content((String = "application/yaml"), (serde_json::Value = "application/json"))),
    responses((status = 200, description = "It was there before, or was only checked", body = AppliedAgent),
              (status = 201, description = "Stored", body = AppliedAgent)))]
pub async fn apply_agent(
    State(app): State<App>,
    ns: Ns,
    Params(params): Params<super::workflows::ApplyParams>,
    Source(source): Source,
) -> Answer<Response> {
    let request = ApplyAgentRequest { namespace: ns.text(), source, dry_run: params.dry_run };
    let answer = call("registry", app.backends.agents().apply_agent(request)).await?;
    let created = answer.created && !params.dry_run;
    let applied = AppliedAgent { agent: convert::agent(convert::required(answer.agent)?), created, dry_run: params.dry_run };
    Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, Json(applied)).into_response())
}

/// Lists agents with their live workers.
#[utoipa::path(get, path = "/api/v1/agents", tag = "agents", params(AgentsParams),
    responses((status = 200, description = "A page", body = Page<Agent>)))]
pub async fn list_agents(State(app): State<App>, ns: Ns, Params(params): Params<AgentsParams>) -> Answer<Json<Page<Agent>>> {
    let capability = params.capability.map(|text| name(&text, "capability")).transpose()?.unwrap_or_default();
    let request = ListAgentsRequest { namespace: ns.text(), page: page(params.limit, params.cursor)?, capability };
    let answer = call("registry", app.backends.agents().list_agents(request)).await?;
    Ok(Json(Page::new(answer.agents.into_iter().map(convert::agent).collect(), answer.next_cursor)))
}

/// Shows an agent.
#[utoipa::path(get, path = "/api/v1/agents/{name}", tag = "agents",
    params(("name" = String, Path, description = "The agent's name"), super::workflows::VersionParams),
    responses((status = 200, description = "The agent", body = Agent)))]
pub async fn get_agent(
    State(app): State<App>,
    ns: Ns,
    Path(agent): Path<String>,
    Params(params): Params<super::workflows::VersionParams>,
) -> Answer<Json<Agent>> {
    let request = GetAgentRequest { namespace: ns.text(), name: name(&agent, "name")?, version: params.version.unwrap_or_default() };
    let answer = call("registry", app.backends.agents().get_agent(request)).await?;
    Ok(Json(convert::agent(convert::required(answer.agent)?)))
}

/// Deletes an agent with all its versions.
#[utoipa::path(delete, path = "/api/v1/agents/{name}", tag = "agents", params(("name" = String, Path, description = "The agent's name")),
    responses((status = 204, description = "Gone")))]
pub async fn delete_agent(State(app): State<App>, ns: Ns, Path(agent): Path<String>) -> Answer<StatusCode> {
    let request = DeleteAgentRequest { namespace: ns.text(), name: name(&agent, "name")? };
    call("registry", app.backends.agents().delete_agent(request)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Drains an agent: what runs is finished, nothing new is taken.
#[utoipa::path(post, path = "/api/v1/agents/{name}/drain", tag = "agents", params(("name" = String, Path, description = "The agent's name")),
    request_body = ChangeAgentState, responses((status = 200, description = "The agent", body = Agent)))]
pub async fn drain_agent(
    State(app): State<App>,
    ns: Ns,
    Path(agent): Path<String>,
    body: OptionalJson<ChangeAgentState>,
) -> Answer<Json<Agent>> {
    set_state(&app, &ns, &agent, AgentState::Draining, body.0.reason).await
}

/// Quarantines an agent: out of service until it is activated.
#[utoipa::path(post, path = "/api/v1/agents/{name}/quarantine", tag = "agents", params(("name" = String, Path, description = "The agent's name")),
    request_body = ChangeAgentState, responses((status = 200, description = "The agent", body = Agent)))]
pub async fn quarantine_agent(
    State(app): State<App>,
    ns: Ns,
    Path(agent): Path<String>,
    body: OptionalJson<ChangeAgentState>,
) -> Answer<Json<Agent>> {
    set_state(&app, &ns, &agent, AgentState::Quarantined, body.0.reason).await
}

/// Activates a drained or quarantined agent.
#[utoipa::path(post, path = "/api/v1/agents/{name}/activate", tag = "agents", params(("name" = String, Path, description = "The agent's name")),
    request_body = ChangeAgentState, responses((status = 200, description = "The agent", body = Agent)))]
pub async fn activate_agent(
    State(app): State<App>,
    ns: Ns,
    Path(agent): Path<String>,
    body: OptionalJson<ChangeAgentState>,
) -> Answer<Json<Agent>> {
    set_state(&app, &ns, &agent, AgentState::Active, body.0.reason).await
}

async fn set_state(app: &App, ns: &Ns, agent: &str, state: AgentState, reason: String) -> Answer<Json<Agent>> {
    let request = SetAgentStateRequest { namespace: ns.text(), name: name(agent, "name")?, state: state.into(), reason };
    let answer = call("registry", app.backends.agents().set_agent_state(request)).await?;
    Ok(Json(convert::agent(convert::required(answer.agent)?)))
}
