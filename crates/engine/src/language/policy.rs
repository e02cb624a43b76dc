//! How a step is joined, tried again and repeated.

use super::{
    document::{Doc, Node},
    reader::Reader,
};
use crate::definition::{Condition, Join, Repeat, RetryPolicy};

/// The largest number of attempts of one step.
const MAX_ATTEMPTS: u64 = 100;

/// `join`.
pub(super) fn join_of(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> Option<Join> {
    const HELP: &str = "write all, any, or how many of 'after' must have finished";
    match &doc.value {
        Node::Text(text) if text == "all" => Some(Join::All),
        Node::Text(text) if text == "any" => Some(Join::Any),
        Node::Number(n) => match n.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0) {
            Some(n) => Some(Join::AtLeast(n)),
            None => {
                reader.fault(doc.at, path, format!("join: {n} is out of range"), HELP);
                None
            }
        },
        _ => {
            reader.fault(doc.at, path, "join must be all, any or a number", HELP);
            None
        }
    }
}

/// `retry`.
pub(super) fn retry(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> RetryPolicy {
    let mut policy = RetryPolicy::default();
    let Some(map) = reader.map(doc, path, &["attempts", "backoff", "except"]) else { return policy };
    if let Some(n) = map.get("attempts").and_then(|doc| reader.whole(doc, &map.path("attempts"), 1, MAX_ATTEMPTS, "")) {
        policy.attempts = u32::try_from(n).unwrap_or(policy.attempts);
    }
    if let Some(backoff) = map.get("backoff").and_then(|doc| reader.map(doc, &map.path("backoff"), &["initial", "factor", "max", "jitter"]))
    {
        if let Some(span) = backoff.get("initial").and_then(|doc| reader.span(doc, &backoff.path("initial"))) {
            policy.initial = span;
            policy.max = policy.max.max(span);
        }
        if let Some(n) = backoff.get("factor").and_then(|doc| reader.real(doc, &backoff.path("factor"), 1.0, 100.0)) {
            policy.factor = n;
        }
        if let Some((doc, span)) = backoff.get("max").and_then(|doc| Some((doc, reader.span(doc, &backoff.path("max"))?))) {
            if span < policy.initial {
                reader.fault(
                    doc.at,
                    &backoff.path("max"),
                    "the longest delay is shorter than the first one",
                    "raise 'max' or lower 'initial'",
                );
            }
            policy.max = span;
        }
        if let Some(n) = backoff.get("jitter").and_then(|doc| reader.real(doc, &backoff.path("jitter"), 0.0, 1.0)) {
            policy.jitter = n;
        }
    }
    if let Some(doc) = map.get("except") {
        for (code, at, path) in reader.texts(doc, &map.path("except")) {
            if code.is_empty() || code.len() > 63 || !code.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '-') {
                reader.fault(at, &path, "is not an error code", "write codes like INVALID_INPUT");
            }
            policy.except.push(code.to_owned());
        }
    }
    policy
}

/// `loop`.
pub(super) fn repeat(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> Option<Repeat> {
    let map = reader.map(doc, path, &["while", "until", "max"])?;
    let max = match map.get("max") {
        Some(doc) => {
            let most = u64::from(reader.limits.max_loop_iterations);
            reader.whole(doc, &map.path("max"), 1, most, "max_loop_iterations")
        }
        None => {
            reader.fault(map.at, &map.path("max"), "the loop has no 'max'", "add 'max: N': how often it may go round at most");
            None
        }
    };
    let condition = match (map.get("while"), map.get("until")) {
        (Some(doc), None) => reader.expression(doc, &map.path("while")).map(Condition::While),
        (None, Some(doc)) => reader.expression(doc, &map.path("until")).map(Condition::Until),
        (Some(_), Some(doc)) => {
            reader.fault(doc.at, path, "the loop has both 'while' and 'until'", "keep one of them");
            None
        }
        (None, None) => {
            reader.fault(map.at, path, "the loop has no condition", "add 'while: \"${ ... }\"' or 'until: \"${ ... }\"'");
            None
        }
    };
    Some(Repeat { condition: condition?, max: u32::try_from(max?).ok()? })
}
