//! `troupe runs` and `troupe why`.

use crate::{
    cli::{Globals, Runs},
    follow::{self, Person},
    output, sources,
};
use serde_json::{Value, json};
use std::process::ExitCode;

pub(crate) async fn execute(globals: &Globals, command: Runs) -> anyhow::Result<ExitCode> {
    let api = super::api(globals)?;
    let path = |run: &str, rest: &str| format!("/api/v1/runs/{}{rest}", super::segment(run));
    let answer = match command {
        Runs::List { workflow, status, labels, limit, cursor } => {
            let mut query = vec![("limit", limit.to_string())];
            query.extend(workflow.map(|w| ("workflow", w)));
            query.extend(status.into_iter().map(|s| ("status", s)));
            query.extend(labels.into_iter().map(|(k, v)| ("label", format!("{k}={v}"))));
            query.extend(cursor.map(|c| ("cursor", c)));
            output::print(globals.output, &api.get("/api/v1/runs", &query).await?, &super::show::RUN_COLUMNS)?;
            return Ok(ExitCode::SUCCESS);
        }
        Runs::Watch { run, approve } => {
            // A server that is not there from the beginning is not waited for.
            api.get(&path(&run, ""), &[]).await?;
            let person = if approve { Person::Terminal } else { Person::Nobody };
            let Some(ended) = follow::until_end(&api, &run, &person, globals.output).await? else { return Ok(follow::stopped(&run)) };
            super::show::run(globals.output, &ended)?;
            return Ok(follow::exit_code(&ended));
        }
        Runs::Diff { run, from, to } => {
            let query = [("from", from.to_string()), ("to", to.to_string())];
            let diff = api.get(&path(&run, "/checkpoints/diff"), &query).await?;
            print_diff(globals, &diff)?;
            return Ok(ExitCode::SUCCESS);
        }
        Runs::Show { run } => {
            let mut shown = api.get(&path(&run, ""), &[]).await?;
            // Where each task is, only the scheduler knows; without it the run alone is shown.
            if globals.output == output::Format::Table
                && shown["ended_at"].is_null()
                && let Ok(why) = api.get(&path(&run, "/why"), &[]).await
            {
                shown["waiting_for"] = why["waits"].clone();
            }
            super::show::run(globals.output, &shown)?;
            return Ok(ExitCode::SUCCESS);
        }
        Runs::Cancel { run, reason } => api.post(&path(&run, "/cancel"), &json!({ "reason": reason }), None).await?,
        Runs::Pause { run, reason } => api.post(&path(&run, "/pause"), &json!({ "reason": reason }), None).await?,
        Runs::Resume { run } => api.post(&path(&run, "/resume"), &json!({}), None).await?,
        Runs::Retry { run } => api.post(&path(&run, "/retry"), &json!({}), None).await?,
        Runs::Signal { run, name, payload, key } => {
            let payload = sources::json_argument(&payload, "payload")?;
            api.post(&path(&run, "/signal"), &json!({ "name": name, "payload": payload }), key.as_deref()).await?
        }
        Runs::Fork { run, checkpoint, state } => {
            let mut body = json!({ "checkpoint": checkpoint });
            if let Some(state) = state {
                body["state"] = sources::json_argument(&state, "state")?;
            }
            api.post(&path(&run, "/fork"), &body, None).await?
        }
    };
    print_controlled(globals, &answer)?;
    Ok(ExitCode::SUCCESS)
}

/// Control calls answer with what happened and the run.
fn print_controlled(globals: &Globals, answer: &Value) -> anyhow::Result<()> {
    const COLUMNS: [output::Column; 7] = [
        ("outcome", "/outcome"),
        ("applied", "/applied"),
        ("run", "/run/run_id"),
        ("status", "/run/status"),
        ("run", "/run_id"),
        ("workflow", "/workflow"),
        ("status", "/status"),
    ];
    output::print(globals.output, answer, &COLUMNS)
}

fn print_diff(globals: &Globals, diff: &Value) -> anyhow::Result<()> {
    match globals.output {
        output::Format::Table => {
            output::print(globals.output, &diff["patch"], &[("CHANGE", "/op"), ("PATH", "/path"), ("VALUE", "/value")])
        }
        other => output::print(other, diff, &[]),
    }
}

pub(crate) async fn why(globals: &Globals, run: &str) -> anyhow::Result<()> {
    let answer = super::api(globals)?.get(&format!("/api/v1/runs/{}/why", super::segment(run)), &[]).await?;
    if globals.output != output::Format::Table {
        return output::print(globals.output, &answer, &[]);
    }
    let status = answer["status"].as_str().unwrap_or("unknown");
    if answer["waits"].as_array().is_none_or(Vec::is_empty) {
        return output::line(&format!("the run is {status} and waits for nothing"));
    }
    output::line(&format!("the run is {status}"))?;
    output::print(globals.output, &answer["waits"], &super::show::WAIT_COLUMNS)
}
