//! `troupe agents`.

use crate::{
    cli::{Agents, Globals},
    output,
};
use serde_json::{Value, json};

const COLUMNS: [output::Column; 6] = [
    ("NAME", "/name"),
    ("KIND", "/kind"),
    ("VERSION", "/version"),
    ("STATE", "/state"),
    ("CAPABILITIES", "/capabilities"),
    ("WORKERS", "/workers"),
];
const FIELDS: [output::Column; 8] = [
    ("name", "/name"),
    ("kind", "/kind"),
    ("version", "/version"),
    ("state", "/state"),
    ("because", "/state_reason"),
    ("capabilities", "/capabilities"),
    ("hash", "/hash"),
    ("changed", "/updated_at"),
];

pub(crate) async fn execute(globals: &Globals, command: Agents) -> anyhow::Result<()> {
    let api = super::api(globals)?;
    let path = |name: &str, rest: &str| format!("/api/v1/agents/{}{rest}", super::segment(name));
    let agent = match command {
        Agents::List { capability } => {
            let query: Vec<_> = capability.into_iter().map(|c| ("capability", c)).collect();
            let mut page = api.get("/api/v1/agents", &query).await?;
            if globals.output == output::Format::Table {
                count_workers(&mut page);
            }
            return output::print(globals.output, &page, &COLUMNS);
        }
        Agents::Apply { files } => return super::apply::agents(globals, &files).await,
        Agents::Delete { name } => {
            api.delete(&path(&name, "")).await?;
            return output::say(globals.output, &format!("agent {name} is deleted"), &json!({ "deleted": name }));
        }
        Agents::Show { name } => api.get(&path(&name, ""), &[]).await?,
        Agents::Drain { name, reason } => api.post(&path(&name, "/drain"), &json!({ "reason": reason }), None).await?,
        Agents::Quarantine { name, reason } => api.post(&path(&name, "/quarantine"), &json!({ "reason": reason }), None).await?,
        Agents::Activate { name } => api.post(&path(&name, "/activate"), &json!({}), None).await?,
    };
    output::print(globals.output, &agent, &FIELDS)?;
    match agent.get("instances").filter(|i| globals.output == output::Format::Table && i.as_array().is_some_and(|i| !i.is_empty())) {
        Some(instances) => {
            output::line("")?;
            output::print(
                globals.output,
                instances,
                &[("WORKER", "/worker_id"), ("HEALTH", "/health"), ("ACTIVE", "/active"), ("SLOTS", "/slots"), ("CLIENT", "/client")],
            )
        }
        None => Ok(()),
    }
}

fn count_workers(page: &mut Value) {
    let Some(items) = page.get_mut("items").and_then(Value::as_array_mut) else { return };
    for item in items {
        item["workers"] = json!(item["instances"].as_array().map_or(0, Vec::len));
    }
}
