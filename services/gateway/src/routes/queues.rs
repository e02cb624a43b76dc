//! Task queues and dead letters: runs that failed because a task of theirs did.

use super::{PageParams, page, runs::control};
use crate::{
    app::App,
    backends::call,
    convert,
    extract::{Ns, OptionalJson, Params, name, run_id},
    failure::Answer,
};
use axum::{
    Json,
    extract::{Path, State},
};
use futures::{StreamExt, stream};
use troupe_api::{Page, Queue, Redrive, RedriveFailure, Redriven, Run};
use troupe_domain::Error;
use troupe_proto::{
    executor::v1::{ControlAction, ListRunsRequest, ListRunsResponse},
    scheduler::v1::ListQueuesRequest,
};

/// The most dead letters of one redrive.
const MAX_REDRIVE: usize = 500;

/// Runs that are retried at once.
const CONCURRENCY: usize = 16;

/// Kinds of queues.
const KINDS: [&str; 3] = ["agent", "capability", "tool"];

/// Lists the queues that hold tasks or have workers.
#[utoipa::path(get, path = "/api/v1/queues", tag = "queues", responses((status = 200, description = "All of them", body = Page<Queue>)))]
pub async fn list_queues(State(app): State<App>, ns: Ns) -> Answer<Json<Page<Queue>>> {
    let answer = call("scheduler", app.backends.scheduler().list_queues(ListQueuesRequest { namespace: ns.text() })).await?;
    Ok(Json(Page::new(answer.queues.into_iter().map(convert::queue).collect(), String::new())))
}

/// Lists the dead letters of a queue, newest first.
#[utoipa::path(get, path = "/api/v1/queues/{kind}/{name}/dead", tag = "queues",
    params(("kind" = String, Path, description = "agent, capability or tool"), ("name" = String, Path, description = "Its name"), PageParams),
    responses((status = 200, description = "A page of the runs that failed", body = Page<Run>)))]
pub async fn list_dead_letters(
    State(app): State<App>,
    ns: Ns,
    Path((kind, target)): Path<(String, String)>,
    Params(params): Params<PageParams>,
) -> Answer<Json<Page<Run>>> {
    dead_page(&app, &ns, &format!("{kind}/{target}"), params).await
}

/// Lists the dead letters of a queue named as a whole: `agent%2FNAME`.
#[utoipa::path(get, path = "/api/v1/queues/{kind}/dead", tag = "queues",
    params(("kind" = String, Path, description = "The queue's name, with %2F for the slash"), PageParams),
    responses((status = 200, description = "A page of the runs that failed", body = Page<Run>)))]
pub async fn list_dead_letters_of(
    State(app): State<App>,
    ns: Ns,
    Path(queue): Path<String>,
    Params(params): Params<PageParams>,
) -> Answer<Json<Page<Run>>> {
    dead_page(&app, &ns, &queue, params).await
}

/// Retries dead letters of a queue.
#[utoipa::path(post, path = "/api/v1/queues/{kind}/{name}/redrive", tag = "queues",
    params(("kind" = String, Path, description = "agent, capability or tool"), ("name" = String, Path, description = "Its name")),
    request_body = Redrive, responses((status = 200, description = "What became of each", body = Redriven)))]
pub async fn redrive(
    State(app): State<App>,
    ns: Ns,
    Path((kind, target)): Path<(String, String)>,
    OptionalJson(body): OptionalJson<Redrive>,
) -> Answer<Json<Redriven>> {
    retry_all(&app, &ns, &format!("{kind}/{target}"), body).await
}

/// Retries dead letters of a queue named as a whole: `agent%2FNAME`.
#[utoipa::path(post, path = "/api/v1/queues/{kind}/redrive", tag = "queues",
    params(("kind" = String, Path, description = "The queue's name, with %2F for the slash")),
    request_body = Redrive, responses((status = 200, description = "What became of each", body = Redriven)))]
pub async fn redrive_of(
    State(app): State<App>,
    ns: Ns,
    Path(queue): Path<String>,
    OptionalJson(body): OptionalJson<Redrive>,
) -> Answer<Json<Redriven>> {
    retry_all(&app, &ns, &queue, body).await
}

async fn dead_page(app: &App, ns: &Ns, queue: &str, params: PageParams) -> Answer<Json<Page<Run>>> {
    let answer = dead(app, ns, queue, params).await?;
    Ok(Json(Page::new(answer.runs.into_iter().map(convert::run).collect(), answer.next_cursor)))
}

async fn dead(app: &App, ns: &Ns, queue: &str, params: PageParams) -> Result<ListRunsResponse, Error> {
    let request = ListRunsRequest {
        namespace: ns.text(),
        page: page(params.limit, params.cursor)?,
        statuses: vec!["failed".to_owned()],
        dead_queue: queue_name(queue)?,
        ..Default::default()
    };
    call("executor", app.backends.runs().list_runs(request)).await
}

async fn retry_all(app: &App, ns: &Ns, queue: &str, body: Redrive) -> Answer<Json<Redriven>> {
    if body.run_ids.len() > MAX_REDRIVE {
        return Err(Error::invalid_field("run_ids", format!("names more than {MAX_REDRIVE} runs")).into());
    }
    queue_name(queue)?;
    let (ids, more) = if body.run_ids.is_empty() {
        let params = PageParams { limit: Some(body.limit.unwrap_or(100)), cursor: None };
        let answer = dead(app, ns, queue, params).await?;
        (answer.runs.into_iter().map(|run| run.run_id).collect::<Vec<_>>(), !answer.next_cursor.is_empty())
    } else {
        (body.run_ids.iter().map(|id| run_id(id)).collect::<Result<_, _>>()?, false)
    };
    let retry = |id: String| async move {
        let outcome = control(app, ns, &id, ControlAction::Retry, "redrive".to_owned()).await;
        (id, outcome)
    };
    let mut outcomes = stream::iter(ids).map(retry).buffered(CONCURRENCY);
    let mut answer = Redriven { more, ..Redriven::default() };
    while let Some((run_id, outcome)) = outcomes.next().await {
        match outcome {
            Ok(_) => answer.redriven.push(run_id),
            Err(failure) => {
                let (code, message) = (failure.error.code.name().to_owned(), failure.error.message);
                answer.failed.push(RedriveFailure { run_id, code, message });
            }
        }
    }
    Ok(Json(answer))
}

fn queue_name(text: &str) -> Result<String, Error> {
    let bad = || Error::invalid_field("queue", "is not agent/NAME, capability/NAME or tool/NAME");
    let (kind, target) = text.split_once('/').ok_or_else(bad)?;
    if !KINDS.contains(&kind) {
        return Err(bad());
    }
    Ok(format!("{kind}/{}", name(target, "queue")?))
}
