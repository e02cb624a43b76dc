//! Single tasks. A task is a run of one step, so there is one kind of durability and one history.

use super::{MAX_PAGE, page, runs};
use crate::{
    app::App,
    backends::call,
    convert,
    extract::{JsonBody, Key, Ns, Params, name, run_id, span},
    failure::Answer,
};
use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use serde::Deserialize;
use troupe_api::{Page, Run, SubmitTask};
use troupe_domain::Error;
use troupe_proto::{
    common::v1::{Target, target::Kind},
    executor::v1::{ListRunsRequest, SubmitTaskRequest},
};
use utoipa::IntoParams;

/// How the executor names the workflows that it makes for tasks: `task.agent.NAME`.
const PREFIX: &str = "task.";

/// Pages of runs that are searched for tasks in one request.
const MAX_SEARCHED: usize = 4;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TasksParams {
    /// At most this many items, from 1 to 500; 50 where none is given. A page may be shorter although there are more.
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// Submits one task for an agent, a capability or a tool.
///
/// With `?wait=30s` the answer comes when the task has ended (200) or the time is over (202).
#[utoipa::path(post, path = "/api/v1/tasks", tag = "tasks", params(runs::WaitParams), request_body = SubmitTask,
    responses((status = 201, description = "Submitted", body = Run, headers(("Location" = String, description = "The task"))),
              (status = 200, description = "It has ended, or the Idempotency-Key had submitted it before", body = Run),
              (status = 202, description = "Submitted, and not ended when the wait was over", body = Run)))]
pub async fn submit_task(
    State(app): State<App>,
    ns: Ns,
    Key(key): Key,
    Params(params): Params<runs::WaitParams>,
    JsonBody(body): JsonBody<SubmitTask>,
) -> Answer<Response> {
    let wait = runs::wait_time(&app, params.wait.as_deref())?;
    let timeout = body.timeout.as_deref().map(|text| span(text, "timeout")).transpose()?;
    if body.attempts == Some(0) {
        return Err(Error::invalid_field("attempts", "is 0: the first attempt counts too").into());
    }
    let request = SubmitTaskRequest {
        namespace: ns.text(),
        target: Some(target(&body)?),
        input: convert::payload(body.input.as_ref()),
        priority: runs::priority(body.priority)?,
        labels: body.labels.into_iter().collect(),
        timeout: timeout.map(troupe_wire::duration),
        attempts: body.attempts.unwrap_or(0),
        idempotency_key: key,
        wait: wait.map(troupe_wire::duration),
    };
    let answer = call("executor", app.backends.runs().submit_task(request)).await?;
    Ok(runs::started(convert::run(convert::required(answer.run)?), answer.created, wait.is_some(), "tasks"))
}

fn target(body: &SubmitTask) -> Result<Target, Error> {
    let kind = match (&body.agent, &body.capability, &body.tool) {
        (Some(agent), None, None) => Kind::Agent(name(agent, "agent")?),
        (None, Some(capability), None) => Kind::Capability(name(capability, "capability")?),
        (None, None, Some(tool)) => Kind::Tool(name(tool, "tool")?),
        _ => return Err(Error::invalid("give exactly one of agent, capability and tool")),
    };
    Ok(Target { kind: Some(kind) })
}

/// Lists tasks, newest first.
#[utoipa::path(get, path = "/api/v1/tasks", tag = "tasks", params(TasksParams),
    responses((status = 200, description = "A page", body = Page<Run>)))]
pub async fn list_tasks(State(app): State<App>, ns: Ns, Params(params): Params<TasksParams>) -> Answer<Json<Page<Run>>> {
    let wanted = params.limit.unwrap_or(50);
    let mut next = page(params.limit, params.cursor)?;
    let (mut tasks, mut cursor) = (Vec::new(), String::new());
    for _ in 0..MAX_SEARCHED {
        let request = ListRunsRequest { namespace: ns.text(), page: next, ..Default::default() };
        let answer = call("executor", app.backends.runs().list_runs(request)).await?;
        tasks.extend(answer.runs.into_iter().filter(|run| run.workflow.starts_with(PREFIX)).map(convert::run));
        cursor = answer.next_cursor;
        if cursor.is_empty() || !tasks.is_empty() {
            break;
        }
        // Nothing so far: look further, in pages no smaller than the one asked for.
        next = page(Some(wanted.max(MAX_PAGE / 5)), Some(cursor.clone()))?;
    }
    Ok(Json(Page::new(tasks, cursor)))
}

/// Shows a task.
#[utoipa::path(get, path = "/api/v1/tasks/{id}", tag = "tasks", params(("id" = String, Path, description = "The task's run id"), runs::WaitParams),
    responses((status = 200, description = "The task", body = Run)))]
pub async fn get_task(
    State(app): State<App>,
    ns: Ns,
    Path(id): Path<String>,
    Params(params): Params<runs::WaitParams>,
) -> Answer<Json<Run>> {
    let id = run_id(&id)?;
    let run = match runs::wait_time(&app, params.wait.as_deref())? {
        Some(wait) => runs::wait_run(&app, &ns, id, wait).await?,
        None => runs::fetch(&app, &ns, id).await?,
    };
    if !run.workflow.starts_with(PREFIX) {
        let missing = Error::not_found(format!("task {}", run.run_id));
        return Err(missing.with_help("it is a run of a workflow: GET /api/v1/runs/{id}").into());
    }
    Ok(Json(run))
}
