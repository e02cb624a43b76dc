//! What a step does.

use super::{
    approve,
    document::{Doc, Node},
    reader::{Map, Reader, cut},
};
use crate::{
    definition::{Action, AgentTarget, Choose},
    expression::Template,
};
use serde_json::Value;
use troupe_domain::{id::check_name, parse_span};

/// Reads the step's action, `steps` excepted. Nothing where there is none: that is reported elsewhere.
pub(super) fn read(reader: &mut Reader<'_>, map: &Map<'_>) -> Option<Action> {
    let get = |key: &str| map.get(key).map(|doc| (doc, map.path(key)));
    if let Some((doc, path)) = get("agent") {
        agent(reader, doc, &path)
    } else if let Some((doc, path)) = get("tool") {
        tool(reader, doc, &path)
    } else if let Some((doc, path)) = get("set") {
        Some(Action::Set(reader.writes(doc, &path)))
    } else if let Some((doc, path)) = get("approve") {
        approve::read(reader, doc, &path).map(|approve| Action::Approve(Box::new(approve)))
    } else if let Some((doc, path)) = get("workflow") {
        workflow(reader, doc, &path)
    } else if let Some((doc, path)) = get("sleep") {
        sleep(reader, doc, &path)
    } else if let Some((doc, path)) = get("until") {
        until(reader, doc, &path)
    } else if let Some((doc, path)) = get("signal") {
        signal(reader, doc, &path)
    } else if let Some((doc, path)) = get("fail") {
        fail(reader, doc, &path)
    } else {
        None
    }
}

fn agent(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> Option<Action> {
    if matches!(doc.value, Node::Text(_)) {
        let name = reader.name(doc, path)?;
        return Some(Action::Agent { target: AgentTarget::Name(name.to_owned()), choose: Choose::default() });
    }
    if !matches!(doc.value, Node::Map(_)) {
        reader.wrong_type(doc, path, "an agent's name or { capability: NAME }", "write agent: NAME");
        return None;
    }
    let map = reader.map(doc, path, &["name", "capability", "choose"])?;
    let choose = map.get("choose").map(|doc| choose(reader, doc, &map.path("choose")));
    let target = match (map.get("name"), map.get("capability")) {
        (Some(doc), None) => reader.name(doc, &map.path("name")).map(|name| AgentTarget::Name(name.to_owned())),
        (None, Some(doc)) => reader.name(doc, &map.path("capability")).map(|name| AgentTarget::Capability(name.to_owned())),
        (Some(_), Some(doc)) => {
            reader.fault(doc.at, path, "both a name and a capability", "keep one of them");
            None
        }
        (None, None) => {
            reader.fault(map.at, path, "neither a name nor a capability", "write agent: NAME, or agent: { capability: NAME }");
            None
        }
    };
    if let (Some(AgentTarget::Name(_)), Some((key, _))) = (&target, map.entry("choose")) {
        reader.fault(key.at, &map.path("choose"), "'choose' has no meaning for a named agent", "remove it, or name a capability");
    }
    Some(Action::Agent { target: target?, choose: choose.unwrap_or_default() })
}

fn choose(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> Choose {
    if let Node::Text(text) = &doc.value
        && ["semantic", "llm", "performance"].contains(&text.as_str())
    {
        reader.fault(doc.at, path, format!("choose: {text} is not available in this version"), "use least_loaded or round_robin");
        return Choose::default();
    }
    match reader.word(doc, path, &["least_loaded", "round_robin"]) {
        Some("round_robin") => Choose::RoundRobin,
        _ => Choose::LeastLoaded,
    }
}

fn tool(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> Option<Action> {
    let text = reader.text(doc, path)?;
    check_tool(reader, doc, text, path).then(|| Action::Tool { name: text.to_owned() })
}

/// Whether a text is the name of a tool, like `http.post`.
pub(crate) fn check_tool(reader: &mut Reader<'_>, doc: &Doc, text: &str, path: &str) -> bool {
    if text.starts_with("mcp:") {
        let message = format!("'{}' is a tool of an MCP server, which is not available in this version", cut(text));
        reader.fault(doc.at, path, message, "use a built-in tool, or wrap it in an agent of 'kind: worker'");
        return false;
    }
    match check_name(text) {
        Ok(()) => true,
        Err(message) => {
            reader.fault(doc.at, path, message, "a tool's name is like http.post");
            false
        }
    }
}

fn workflow(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> Option<Action> {
    if matches!(doc.value, Node::Text(_)) {
        let name = reader.name(doc, path)?;
        return Some(Action::Workflow { name: name.to_owned(), version: None });
    }
    if !matches!(doc.value, Node::Map(_)) {
        reader.wrong_type(doc, path, "a workflow's name or { name, version }", "write workflow: NAME");
        return None;
    }
    let map = reader.map(doc, path, &["name", "version"])?;
    let version = map.get("version").map(|doc| super::workflow::version(reader, doc));
    let Some(doc) = map.get("name") else {
        reader.fault(map.at, path, "the workflow to run has no name", "write workflow: { name: NAME, version: \"1.0.0\" }");
        return None;
    };
    let name = reader.name(doc, &map.path("name"))?.to_owned();
    Some(Action::Workflow { name, version: version.flatten() })
}

/// The value where it holds no expression.
fn literal(template: &Template) -> Option<Value> {
    match template {
        Template::Literal(json) => Some(json.to_value()),
        _ => None,
    }
}

fn sleep(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> Option<Action> {
    const HELP: &str = "write a duration like 30s or 1h30m, a number of seconds, or an expression";
    let template = reader.template(doc, path)?;
    let wrong = match literal(&template) {
        Some(Value::String(text)) => parse_span(&text).err(),
        Some(Value::Number(n)) => {
            let fits = n.as_f64().is_some_and(|n| (0.0..=troupe_domain::span::MAX_SPAN.as_secs_f64()).contains(&n));
            (!fits).then(|| format!("{n} seconds is no time that can be waited"))
        }
        Some(_) => Some(format!("must be a duration, not {}", doc.kind())),
        None if matches!(doc.value, Node::Text(_)) => None,
        None => Some(format!("must be a duration, not {}", doc.kind())),
    };
    if let Some(message) = wrong {
        reader.fault(doc.at, path, message, HELP);
        return None;
    }
    Some(Action::Sleep(template))
}

fn until(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> Option<Action> {
    const HELP: &str = "write a time like \"2026-01-31T12:00:00Z\", or an expression like \"${ now + duration('2h') }\"";
    let text = reader.text(doc, path)?;
    let template = reader.template(doc, path)?;
    if literal(&template).is_some() && chrono::DateTime::parse_from_rfc3339(text).is_err() {
        reader.fault(doc.at, path, format!("'{}' is not a time", cut(text)), HELP);
        return None;
    }
    Some(Action::Until(template))
}

fn signal(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> Option<Action> {
    let (name, timeout, name_path) = match &doc.value {
        Node::Text(_) => (doc, None, path.to_owned()),
        Node::Map(_) => {
            let map = reader.map(doc, path, &["name", "timeout"])?;
            let timeout = map.get("timeout").and_then(|doc| reader.span(doc, &map.path("timeout")));
            let Some(name) = map.get("name") else {
                reader.fault(map.at, path, "the signal has no name", "write signal: NAME, or signal: { name: NAME, timeout: 1h }");
                return None;
            };
            (name, timeout, map.path("name"))
        }
        _ => {
            reader.wrong_type(doc, path, "a signal's name or { name, timeout }", "write signal: NAME");
            return None;
        }
    };
    let text = reader.text(name, &name_path)?;
    let template = reader.template(name, &name_path)?;
    if literal(&template).is_some()
        && let Err(message) = check_name(text)
    {
        reader.fault(name.at, &name_path, message, "choose another name for the signal");
        return None;
    }
    Some(Action::Signal { name: template, timeout })
}

fn fail(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> Option<Action> {
    match &doc.value {
        Node::Text(_) => reader.template(doc, path).map(|reason| Action::Fail { code: None, reason }),
        Node::Map(_) => {
            let map = reader.map(doc, path, &["code", "reason"])?;
            let code = map.get("code").map(|doc| text_template(reader, doc, &map.path("code")));
            let Some(reason) = map.get("reason") else {
                reader.fault(map.at, path, "there is no reason", "write fail: \"why\", or fail: { code: CODE, reason: \"why\" }");
                return None;
            };
            let reason = text_template(reader, reason, &map.path("reason"))?;
            Some(Action::Fail { code: code.flatten(), reason })
        }
        _ => {
            reader.wrong_type(doc, path, "a text or { code, reason }", "write fail: \"why\"");
            None
        }
    }
}

/// A text with expressions in it.
pub(super) fn text_template(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> Option<Template> {
    reader.text(doc, path)?;
    reader.template(doc, path)
}
