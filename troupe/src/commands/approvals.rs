//! `troupe approvals`.

use super::show::pretty;
use crate::{
    cli::{Answer, Approvals, Decide, Globals},
    http::Api,
    output, sources,
};
use serde_json::{Value, json};
use troupe_domain::Error;

const COLUMNS: [output::Column; 7] = [
    ("APPROVAL", "/approval_id"),
    ("STATUS", "/status"),
    ("TITLE", "/title"),
    ("WHO", "/who"),
    ("WORKFLOW", "/workflow"),
    ("RUN", "/run_id"),
    ("EXPIRES", "/expires_at"),
];
const FIELDS: [output::Column; 14] = [
    ("approval", "/approval_id"),
    ("status", "/status"),
    ("title", "/title"),
    ("workflow", "/workflow"),
    ("run", "/run_id"),
    ("step", "/step"),
    ("asked", "/requested_at"),
    ("expires", "/expires_at"),
    ("then", "/then"),
    ("who", "/who"),
    ("needed", "/required"),
    ("may edit", "/edit"),
    ("decided", "/decided_at"),
    ("digest", "/digest"),
];
const DECISIONS: [output::Column; 5] =
    [("BY", "/by"), ("DECISION", "/decision"), ("AT", "/at"), ("COMMENT", "/comment"), ("VALUE", "/payload")];

pub(crate) async fn execute(globals: &Globals, command: Approvals) -> anyhow::Result<()> {
    let api = super::api(globals)?;
    let approval = match command {
        Approvals::List { status, run } => {
            let mut query: Vec<_> = status.into_iter().map(|s| ("status", s)).collect();
            query.extend(run.map(|r| ("run", r)));
            let mut page = api.get("/api/v1/approvals", &query).await?;
            if globals.output == output::Format::Table {
                page["items"].as_array_mut().into_iter().flatten().for_each(explain);
            }
            return output::print(globals.output, &page, &COLUMNS);
        }
        Approvals::Show { approval } => {
            let approval = api.get(&path(&approval), &[]).await?;
            print(globals, &approval)?;
            let (shown, table) = (shown(&approval), globals.output == output::Format::Table);
            return if table && !shown.is_empty() { output::line(&format!("\n{shown}")) } else { Ok(()) };
        }
        Approvals::Approve(args) => decide(&api, "approve", &args).await?,
        Approvals::Reject(args) => decide(&api, "reject", &args).await?,
        Approvals::Answer(args) => answer(&api, &args).await?,
    };
    print(globals, &approval)
}

fn print(globals: &Globals, approval: &Value) -> anyhow::Result<()> {
    if globals.output != output::Format::Table {
        return output::print(globals.output, approval, &[]);
    }
    let mut approval = approval.clone();
    explain(&mut approval);
    output::print(globals.output, &approval, &FIELDS)?;
    if approval["decisions"].as_array().is_none_or(Vec::is_empty) {
        return Ok(());
    }
    output::line("")?;
    output::print(globals.output, &approval["decisions"], &DECISIONS)
}

/// Says in words who may decide, and what happens when nobody does.
fn explain(approval: &mut Value) {
    let who: Vec<&str> = approval["approvers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let who = if who.is_empty() { "anybody".to_owned() } else { who.join(", ") };
    let then = approval["expires_at"].is_string().then(|| approval["on_expire"].clone());
    approval["who"] = json!(who);
    approval["then"] = then.unwrap_or_default();
}

fn path(approval: &str) -> String {
    format!("/api/v1/approvals/{}", super::segment(approval))
}

/// One approval.
pub(crate) async fn get(api: &Api, approval: &str) -> anyhow::Result<Value> {
    api.get(&path(approval), &[]).await
}

/// What the person has to see; empty when the step shows nothing.
pub(crate) fn shown(approval: &Value) -> String {
    match &approval["show"] {
        Value::Null => String::new(),
        Value::Object(map) if map.is_empty() => String::new(),
        other => pretty(other),
    }
}

async fn decide(api: &Api, decision: &str, args: &Decide) -> anyhow::Result<Value> {
    let payload = args.edits.as_deref().map(|text| sources::json_argument(text, "edits")).transpose()?;
    send(api, &args.approval, decision, &args.by, &args.comment, payload, args.digest.as_deref()).await
}

async fn answer(api: &Api, args: &Answer) -> anyhow::Result<Value> {
    let approval = get(api, &args.approval).await?;
    if approval["mode"] != "question" {
        let help = format!("`troupe approvals approve {0}` or `troupe approvals reject {0}`", args.approval);
        return Err(Error::precondition("it asks for a yes or no, not for an answer").with_help(help).into());
    }
    let value = answer_value(&approval, &args.answer)?;
    send(api, &args.approval, "answer", &args.by, &args.comment, Some(value), approval["digest"].as_str()).await
}

/// Where any text will do, the text as it is; where a schema asks for something else, the JSON that it holds.
pub(crate) fn answer_value(approval: &Value, text: &str) -> anyhow::Result<Value> {
    let schema = approval.get("answer_schema").filter(|schema| !schema.is_null());
    let wants_text = schema.is_none_or(|schema| schema["type"] == "string");
    if wants_text && !text.starts_with('@') {
        return Ok(json!(text.trim_matches('"')));
    }
    sources::json_argument(text, "answer")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_text_unless_a_schema_wants_more() -> anyhow::Result<()> {
        assert_eq!(answer_value(&json!({}), "42")?, json!("42"));
        assert_eq!(answer_value(&json!({ "answer_schema": { "type": "string" } }), "\"the second\"")?, json!("the second"));
        assert_eq!(answer_value(&json!({ "answer_schema": { "type": "integer" } }), "42")?, json!(42));
        assert!(answer_value(&json!({ "answer_schema": { "type": "object" } }), "not json").is_err());
        Ok(())
    }
}
