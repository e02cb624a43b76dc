//! `troupe approvals`.

use crate::{
    cli::{Approvals, Decide, Globals},
    http::Api,
    output, sources,
};
use serde_json::{Value, json};

const FIELDS: [output::Column; 9] = [
    ("approval", "/approval_id"),
    ("status", "/status"),
    ("title", "/title"),
    ("run", "/run_id"),
    ("step", "/step"),
    ("approvers", "/approvers"),
    ("digest", "/digest"),
    ("expires", "/expires_at"),
    ("decisions", "/decisions"),
];

pub(crate) async fn execute(globals: &Globals, command: Approvals) -> anyhow::Result<()> {
    let api = super::api(globals)?;
    let approval = match command {
        Approvals::List { status, run } => {
            let mut query: Vec<_> = status.into_iter().map(|s| ("status", s)).collect();
            query.extend(run.map(|r| ("run", r)));
            let page = api.get("/api/v1/approvals", &query).await?;
            let columns = [
                ("APPROVAL", "/approval_id"),
                ("STATUS", "/status"),
                ("TITLE", "/title"),
                ("APPROVERS", "/approvers"),
                ("RUN", "/run_id"),
                ("EXPIRES", "/expires_at"),
            ];
            return output::print(globals.output, &page, &columns);
        }
        Approvals::Show { approval } => {
            let approval = api.get(&path(&approval), &[]).await?;
            output::print(globals.output, &approval, &FIELDS)?;
            if globals.output == output::Format::Table {
                output::line(&format!("\n{}", shown(&approval)))?;
            }
            return Ok(());
        }
        Approvals::Approve(args) => decide(&api, "approve", &args).await?,
        Approvals::Reject(args) => decide(&api, "reject", &args).await?,
        Approvals::Answer(args) => decide(&api, "answer", &args).await?,
    };
    output::print(globals.output, &approval, &FIELDS)
}

fn path(approval: &str) -> String {
    format!("/api/v1/approvals/{}", super::segment(approval))
}

/// What the person has to see.
pub(crate) fn shown(approval: &Value) -> String {
    match &approval["show"] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

async fn decide(api: &Api, decision: &str, args: &Decide) -> anyhow::Result<Value> {
    let payload = args.edits.as_deref().map(|text| sources::json_argument(text, "edits")).transpose()?;
    send(api, &args.approval, decision, &args.by, &args.comment, payload, None).await
}

/// Sends one decision; `digest` binds it to what was shown.
pub(crate) async fn send(
    api: &Api,
    approval: &str,
    decision: &str,
    by: &str,
    comment: &str,
    payload: Option<Value>,
    digest: Option<&str>,
) -> anyhow::Result<Value> {
    let mut body = json!({ "decision": decision, "by": by, "comment": comment });
    if let Some(payload) = payload {
        body[if decision == "answer" { "answer" } else { "edits" }] = payload;
    }
    if let Some(digest) = digest {
        body["digest"] = json!(digest);
    }
    api.post(&format!("{}/decision", path(approval)), &body, None).await
}
