//! The paths of the HTTP API: one file for each resource.

pub mod agents;
pub mod approvals;
pub mod events;
pub mod history;
pub mod operation;
pub mod queues;
pub mod runs;
pub mod schemas;
pub mod tasks;
pub mod workflows;

use crate::{app::App, edge, idempotency, openapi};
use axum::{Router, middleware};
use serde::Deserialize;
use tower_http::catch_panic::CatchPanicLayer;
use troupe_domain::Error;
use troupe_proto::common::v1::Page;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

/// The most items of a page.
const MAX_PAGE: u32 = 500;

/// The longest cursor.
const MAX_CURSOR: usize = 1_024;

/// Which page of a list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// At most this many items, from 1 to 500; 50 where none is given.
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// The page as the services take it.
pub fn page(limit: Option<u32>, cursor: Option<String>) -> Result<Option<Page>, Error> {
    let limit = limit.unwrap_or(50);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Error::invalid_field("limit", format!("{limit} is not between 1 and {MAX_PAGE}")));
    }
    let cursor = cursor.unwrap_or_default();
    if cursor.len() > MAX_CURSOR {
        return Err(Error::invalid_field("cursor", format!("is longer than {MAX_CURSOR} bytes")));
    }
    Ok(Some(Page { limit, cursor }))
}

/// Every documented path, with its handler.
pub fn all() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::base()).merge(handing_keys_on()).merge(replaying())
}

/// Paths that only read, or whose services make `Idempotency-Key` durable.
fn handing_keys_on() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(workflows::list_workflows))
        .routes(routes!(workflows::get_workflow))
        .routes(routes!(workflows::list_workflow_versions))
        .routes(routes!(workflows::get_workflow_graph))
        .routes(routes!(runs::start_run))
        .routes(routes!(runs::list_runs))
        .routes(routes!(runs::get_run))
        .routes(routes!(runs::signal_run))
        .routes(routes!(runs::fork_run))
        .routes(routes!(events::watch_run))
        .routes(routes!(history::list_checkpoints))
        .routes(routes!(history::diff_checkpoints))
        .routes(routes!(history::get_checkpoint))
        .routes(routes!(history::explain_run))
        .routes(routes!(tasks::submit_task, tasks::list_tasks))
        .routes(routes!(tasks::get_task))
        .routes(routes!(agents::list_agents))
        .routes(routes!(agents::get_agent, agents::delete_agent))
        .routes(routes!(approvals::list_approvals))
        .routes(routes!(approvals::get_approval))
        .routes(routes!(queues::list_queues))
        .routes(routes!(queues::list_dead_letters))
        .routes(routes!(queues::list_dead_letters_of))
        .routes(routes!(schemas::get_schema))
        .routes(routes!(operation::health))
        .routes(routes!(operation::ready))
        .routes(routes!(operation::live))
        .routes(routes!(operation::metrics))
        .routes(routes!(operation::openapi_document))
        .routes(routes!(operation::error_page))
}

/// Paths that are idempotent by nature: the gateway repeats its answer to a repeated key.
fn replaying() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(workflows::apply_workflow))
        .routes(routes!(agents::apply_agent))
        .routes(routes!(runs::cancel_run))
        .routes(routes!(runs::pause_run))
        .routes(routes!(runs::resume_run))
        .routes(routes!(runs::retry_run))
        .routes(routes!(agents::drain_agent))
        .routes(routes!(agents::quarantine_agent))
        .routes(routes!(agents::activate_agent))
        .routes(routes!(approvals::decide_approval))
        .routes(routes!(queues::redrive))
        .routes(routes!(queues::redrive_of))
}

/// The whole HTTP API with its layers.
pub fn router(app: App) -> Router {
    let replay = middleware::from_fn_with_state(app.clone(), idempotency::replay);
    let (router, _) = handing_keys_on().merge(replaying().route_layer(replay)).split_for_parts();
    let docs = SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json"));
    router
        .merge(Router::from(docs))
        .layer(CatchPanicLayer::custom(edge::panicked))
        .layer(middleware::from_fn_with_state(app.clone(), edge::edge))
        .with_state(app)
}
