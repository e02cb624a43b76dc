//! `troupe checkpoints`.

use crate::{
    cli::{Checkpoints, Globals},
    output,
};
use serde_json::Value;

pub(crate) async fn execute(globals: &Globals, command: Checkpoints) -> anyhow::Result<()> {
    let api = super::api(globals)?;
    match command {
        Checkpoints::List { run, limit, cursor } => {
            let mut query = vec![("limit", limit.to_string())];
            query.extend(cursor.map(|c| ("cursor", c)));
            let mut page = api.get(&format!("/api/v1/runs/{}/checkpoints", super::segment(&run)), &query).await?;
            if globals.output == output::Format::Table {
                summarise(&mut page);
            }
            output::print(globals.output, &page, &[("SEQ", "/seq"), ("AT", "/at"), ("KIND", "/kind"), ("CHANGES", "/summary")])
        }
        Checkpoints::Show { run, seq } => {
            let detail = api.get(&format!("/api/v1/runs/{}/checkpoints/{seq}", super::segment(&run)), &[]).await?;
            match globals.output {
                output::Format::Table => {
                    super::show::run(globals.output, &detail["run"])?;
                    output::line(&format!("\nstate after checkpoint {seq}:\n{}", super::show::pretty(&detail["run"]["state"])))
                }
                other => output::print(other, &detail, &[]),
            }
        }
    }
}

/// One line for the changes of each checkpoint.
fn summarise(page: &mut Value) {
    let Some(items) = page.get_mut("items").and_then(Value::as_array_mut) else { return };
    for item in items {
        let text =
            |change: &Value| format!("{} {}", change["kind"].as_str().unwrap_or_default(), change["step"].as_str().unwrap_or_default());
        let changes = item["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut words: Vec<String> = changes.iter().take(4).map(|c| text(c).trim().to_owned()).collect();
        if changes.len() > 4 {
            words.push(format!("and {} more", changes.len() - 4));
        }
        item["summary"] = Value::String(words.join(", "));
    }
}
