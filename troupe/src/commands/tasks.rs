//! `troupe tasks`: a task outside any workflow is a run of one step.

use crate::{
    cli::{Globals, Tasks},
    follow, output, sources,
};
use serde_json::{Value, json};
use std::process::ExitCode;
use troupe_domain::Code;

pub(crate) async fn execute(globals: &Globals, command: Tasks) -> anyhow::Result<ExitCode> {
    let api = super::api(globals)?;
    match command {
        Tasks::Submit { agent, capability, tool, input, key, wait } => {
            let mut body = json!({ "input": sources::json_argument(&input, "input")? });
            for (field, name) in [("agent", agent), ("capability", capability), ("tool", tool)] {
                if let Some(name) = name {
                    body[field] = json!(name);
                }
            }
            let path =
                wait.as_ref().map_or_else(|| "/api/v1/tasks".to_owned(), |time| format!("/api/v1/tasks?wait={}", super::segment(time)));
            let run = api.post(&path, &body, key.as_deref()).await?;
            super::show::run(globals.output, &run)?;
            Ok(wait.map_or(ExitCode::SUCCESS, |time| waited(&run, &time)))
        }
        Tasks::Show { task } => {
            super::show::run(globals.output, &api.get(&format!("/api/v1/tasks/{}", super::segment(&task)), &[]).await?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The exit code of a task that was waited for.
fn waited(run: &Value, time: &str) -> ExitCode {
    if run.get("ended_at").is_some_and(Value::is_string) {
        return follow::exit_code(run);
    }
    let id = run["run_id"].as_str().unwrap_or_default();
    output::tell(&format!("it has not ended after {time} and goes on: `troupe why {id}` says what it waits for"));
    ExitCode::from(Code::DeadlineExceeded.exit())
}
