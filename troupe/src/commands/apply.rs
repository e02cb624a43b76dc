//! `troupe apply`.

use crate::{
    cli::{Apply, Globals},
    http::Api,
    output,
    sources::{self, Kind, Source},
};
use serde_json::{Value, json};
use std::path::PathBuf;
use troupe_domain::Error;

pub(crate) async fn execute(globals: &Globals, args: &Apply) -> anyhow::Result<()> {
    apply(globals, &sources::collect(&args.files)?, args.dry_run).await
}

/// `troupe agents apply`: the same, for agents only.
pub(crate) async fn agents(globals: &Globals, files: &[PathBuf]) -> anyhow::Result<()> {
    let sources = sources::collect(files)?;
    if let Some(other) = sources.iter().find(|source| source.kind != Kind::Agent) {
        let message = format!("{} is a workflow, not an agent", other.path.display());
        return Err(Error::invalid(message).with_help("`troupe apply` takes both").into());
    }
    apply(globals, &sources, false).await
}

async fn apply(globals: &Globals, sources: &[Source], dry_run: bool) -> anyhow::Result<()> {
    let mut applied = all(&super::api(globals)?, sources, dry_run).await?;
    if globals.output == output::Format::Table {
        for item in &mut applied {
            let new = item["created"] == true;
            item["outcome"] = json!(match (new, dry_run) {
                (true, false) => "created",
                (true, true) => "would be created",
                (false, _) => "unchanged",
            });
        }
    }
    output::print(
        globals.output,
        &json!({ "items": applied }),
        &[("KIND", "/kind"), ("NAME", "/name"), ("VERSION", "/version"), ("OUTCOME", "/outcome"), ("FILE", "/file")],
    )
}

/// Applies all of them, agents first; stops at the first that is refused.
pub(crate) async fn all(api: &Api, sources: &[Source], dry_run: bool) -> anyhow::Result<Vec<Value>> {
    let mut applied = Vec::new();
    for source in sources {
        applied.push(one(api, source, dry_run).await?);
    }
    Ok(applied)
}

async fn one(api: &Api, source: &Source, dry_run: bool) -> anyhow::Result<Value> {
    let path = match source.kind {
        Kind::Agent => "/api/v1/agents",
        Kind::Workflow => "/api/v1/workflows",
    };
    let query = if dry_run { vec![("dry_run", "true".to_owned())] } else { Vec::new() };
    let answer = api.post_source(path, source.text.clone(), &query).await.map_err(|error| match error.downcast::<Error>() {
        Ok(error) => sources::name_file(error, &source.path).into(),
        Err(other) => other,
    })?;
    let subject = answer.get("agent").unwrap_or(&answer);
    let kind = if source.kind == Kind::Agent { "agent" } else { "workflow" };
    Ok(json!({ "kind": kind, "name": subject["name"], "version": subject["version"], "created": answer["created"], "file": source.path }))
}
