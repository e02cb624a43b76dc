//! `troupe tasks`: a task outside any workflow is a run of one step.

use crate::{
    cli::{Globals, Tasks},
    sources,
};
use serde_json::json;

pub(crate) async fn execute(globals: &Globals, command: Tasks) -> anyhow::Result<()> {
    let api = super::api(globals)?;
    let run = match command {
        Tasks::Submit { agent, capability, input, key, wait } => {
            let mut body = json!({ "input": sources::json_argument(&input, "input")? });
            match (agent, capability) {
                (Some(agent), _) => body["agent"] = json!(agent),
                (None, capability) => body["capability"] = json!(capability),
            }
            let path = wait.map_or_else(|| "/api/v1/tasks".to_owned(), |time| format!("/api/v1/tasks?wait={time}"));
            api.post(&path, &body, key.as_deref()).await?
        }
        Tasks::Show { task } => api.get(&format!("/api/v1/tasks/{}", super::segment(&task)), &[]).await?,
    };
    super::print_run(globals.output, &run)
}
