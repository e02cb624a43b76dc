//! `troupe apply`.

use crate::{
    cli::{Apply, Globals},
    http::Api,
    output,
    sources::{self, Kind, Source},
};
use serde_json::{Value, json};
use troupe_domain::Error;

pub(crate) async fn execute(globals: &Globals, args: &Apply) -> anyhow::Result<()> {
    let sources = sources::collect(&args.files)?;
    let api = super::api(globals)?;
    let applied = all(&api, &sources, args.dry_run).await?;
    output::print(
        globals.output,
        &json!({ "items": applied }),
        &[("KIND", "/kind"), ("NAME", "/name"), ("VERSION", "/version"), ("CREATED", "/created"), ("FILE", "/file")],
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
