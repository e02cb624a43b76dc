//! `approve`: a person's decision.

use super::{
    action::text_template,
    document::{Doc, Node},
    reader::Reader,
};
use crate::definition::{Approve, OnExpire, Question};
use troupe_domain::id::check_name;

const KEYS: [&str; 9] = ["title", "show", "approvers", "required", "edit", "expires", "on_expire", "escalate_to", "question"];
/// The largest quorum.
const MAX_REQUIRED: u64 = 100;

pub(super) fn read(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> Option<Approve> {
    let map = reader.map(doc, path, &KEYS)?;
    let title = match map.get("title") {
        Some(doc) => text_template(reader, doc, &map.path("title")),
        None => {
            reader.fault(map.at, &map.path("title"), "the approval has no title", "add 'title: \"what is asked\"'");
            None
        }
    };
    let show = map.get("show").and_then(|doc| reader.template(doc, &map.path("show")));
    let approvers = map.get("approvers").map(|doc| people(reader, doc, &map.path("approvers"))).unwrap_or_default();
    let required = map.get("required").and_then(|doc| reader.whole(doc, &map.path("required"), 1, MAX_REQUIRED, "")).unwrap_or(1);
    let named = approvers.iter().all(|who| who.starts_with("user:")) && !approvers.is_empty();
    if named
        && required > approvers.len() as u64
        && let Some(doc) = map.get("required")
    {
        let message = format!("{required} people must agree, but only {} may", approvers.len());
        reader.fault(doc.at, &map.path("required"), message, "name more approvers or require fewer");
    }
    let edit = map.get("edit").map(|doc| channels(reader, doc, &map.path("edit"))).unwrap_or_default();
    let expires = map.get("expires").and_then(|doc| reader.span(doc, &map.path("expires")));
    let escalate_to = map.get("escalate_to").map(|doc| people(reader, doc, &map.path("escalate_to"))).unwrap_or_default();
    let on_expire = map.get("on_expire").map(|doc| on_expire(reader, doc, &map.path("on_expire"))).unwrap_or_default();
    if let (Some((key, _)), None) = (map.entry("on_expire"), map.get("expires")) {
        reader.fault(
            key.at,
            &map.path("on_expire"),
            "'on_expire' has no meaning without 'expires'",
            "add 'expires: 24h', or remove 'on_expire'",
        );
    }
    match (map.entry("on_expire"), map.entry("escalate_to")) {
        (Some((key, _)), None) if on_expire == OnExpire::Escalate => {
            reader.fault(key.at, &map.path("on_expire"), "there is nobody to escalate to", "add 'escalate_to: [role:NAME]'");
        }
        (_, Some((key, _))) if on_expire != OnExpire::Escalate => {
            reader.fault(
                key.at,
                &map.path("escalate_to"),
                "'escalate_to' has no meaning without 'on_expire: escalate'",
                "add 'on_expire: escalate'",
            );
        }
        _ => {}
    }
    let question = map.get("question").and_then(|doc| question(reader, doc, &map.path("question")));
    Some(Approve {
        title: title?,
        show,
        approvers,
        required: u32::try_from(required).unwrap_or(1),
        edit,
        expires,
        on_expire,
        escalate_to,
        question,
    })
}

fn on_expire(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> OnExpire {
    match reader.word(doc, path, &["expire", "reject", "approve", "escalate"]) {
        Some("reject") => OnExpire::Reject,
        Some("approve") => OnExpire::Approve,
        Some("escalate") => OnExpire::Escalate,
        _ => OnExpire::Expire,
    }
}

/// `role:NAME` and `user:NAME`.
fn people(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> Vec<String> {
    let found = reader.texts(doc, path);
    for (who, at, path) in &found {
        let name = who.strip_prefix("role:").or_else(|| who.strip_prefix("user:"));
        // Users may be mail addresses.
        let fits =
            name.is_some_and(|name| !name.is_empty() && name.len() <= 254 && !name.chars().any(|c| c.is_whitespace() || c.is_control()));
        if !fits {
            reader.fault(*at, path, "is not a person or a role", "write role:NAME or user:NAME");
        }
    }
    found.into_iter().map(|(who, ..)| who.to_owned()).collect()
}

fn channels(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> Vec<String> {
    let found = reader.texts(doc, path);
    for (name, at, path) in &found {
        if let Err(message) = check_name(name) {
            reader.fault(*at, path, message, "name channels of the state");
        }
    }
    found.into_iter().map(|(name, ..)| name.to_owned()).collect()
}

/// `true`, or the JSON Schema of the answer. `false` is the same as none.
fn question(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> Option<Question> {
    match &doc.value {
        Node::Bool(false) => None,
        Node::Bool(true) => Some(Question { answer: None }),
        Node::Map(_) => Some(Question { answer: Some(reader.schema(doc, path)?) }),
        _ => {
            reader.wrong_type(doc, path, "true or the JSON Schema of the answer", "write question: true");
            None
        }
    }
}
