//! The keys of a workflow file.

use super::{
    conflicts,
    document::{Doc, Node},
    reader::Reader,
    step::StepReader,
};
use crate::definition::{Channel, Definition, Merge};
use serde_json::Value;
use std::collections::BTreeMap;
use troupe_domain::{Fault, Json, canonical_json, id::check_name, sha256_hex};

const KEYS: [&str; 7] = ["workflow", "version", "description", "input", "state", "steps", "output"];

/// A document to a definition.
pub(super) fn read(doc: &Doc, limits: &crate::Limits) -> Result<Definition, Vec<Fault>> {
    let mut reader = Reader::new(limits);
    let Some(map) = reader.map(doc, "", &KEYS) else { return Err(reader.faults) };
    let name = match map.get("workflow") {
        Some(doc) => reader.name(doc, "workflow").map(str::to_owned),
        None => {
            reader.fault(map.at, "workflow", "the workflow has no name", "begin the file with 'workflow: NAME'");
            None
        }
    };
    let version = map.get("version").map(|doc| version(&mut reader, doc));
    if let Some(doc) = map.get("description") {
        reader.text(doc, "description");
    }
    let input = map.get("input").and_then(|doc| reader.schema(doc, "input"));
    let channels = map.get("state").map(|doc| channels(&mut reader, doc)).unwrap_or_default();
    let mut steps = StepReader { reader, count: 0 };
    let root = match map.get("steps") {
        Some(doc) => steps.group(doc, "steps", "", 1),
        None => {
            steps.reader.fault(map.at, "steps", "the workflow has no steps", "add 'steps:' with at least one step");
            None
        }
    };
    let mut reader = steps.reader;
    reader.groups = vec![root.iter().flat_map(|group| group.steps.iter().map(|step| step.name.clone())).collect()];
    let output = match (&root, map.get("output")) {
        // Without steps every `steps.NAME` would be a second fault.
        (Some(_), Some(doc)) => reader.template(doc, "output"),
        _ => None,
    };
    if let Some(root) = root.as_ref().filter(|_| reader.faults.is_empty()) {
        conflicts::check(&mut reader, doc, root, &channels);
    }
    let (Some(name), Some(root), true) = (name, root, reader.faults.is_empty()) else {
        reader.faults.sort_by_key(|fault| (fault.line, fault.column));
        return Err(reader.faults);
    };
    let text = canonical_json(&doc.to_json());
    let hash = sha256_hex(&text);
    let version = version.flatten().unwrap_or_else(|| format!("0.0.0-{}", &hash[..8]));
    let canonical = Json::parse(text.as_bytes(), "workflow").map_err(|error| vec![Fault::at("", error.message)])?;
    Ok(Definition { name, version, hash, canonical, input, channels, root, output })
}

/// A version is text, so that 1.10 stays 1.10.
pub(crate) fn version(reader: &mut Reader<'_>, doc: &Doc) -> Option<String> {
    let Node::Text(text) = &doc.value else {
        reader.wrong_type(doc, "version", "a text", "put the version in quotes: version: \"1.0\"");
        return None;
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '_');
    if text.is_empty() || text.len() > 63 || !text.chars().all(fits) {
        reader.fault(doc.at, "version", "is not a version: use 1 to 63 letters, digits, '.', '-', '+' or '_'", "write it like 1.0.0");
        return None;
    }
    Some(text.clone())
}

fn channels(reader: &mut Reader<'_>, doc: &Doc) -> BTreeMap<String, Channel> {
    const HELP: &str = "write it as channel: { merge: append, default: [] }";
    let mut found = BTreeMap::new();
    let Some(fields) = reader.fields(doc, "state", HELP) else { return found };
    for (key, value) in fields {
        let path = format!("state.{}", key.text);
        if let Err(message) = check_name(&key.text) {
            reader.fault(key.at, &path, message, "choose another channel name");
            continue;
        }
        if matches!(value.value, Node::Null) {
            found.insert(key.text.clone(), Channel { merge: Merge::Replace, default: None });
            continue;
        }
        let Some(map) = reader.map(value, &path, &["merge", "default"]) else { continue };
        let merge = map.get("merge").and_then(|doc| merge(reader, doc, &map.path("merge"))).unwrap_or_default();
        let default = map.get("default").map(Doc::to_json);
        if let (Some(default), Some(doc)) = (&default, map.get("default"))
            && let Some(needs) = misfit(merge, default)
        {
            reader.fault(
                doc.at,
                &map.path("default"),
                format!("this merge needs {needs} as default, not {}", doc.kind()),
                "change the default or the merge",
            );
        }
        found.insert(key.text.clone(), Channel { merge, default: default.map(Json::from) });
    }
    found
}

fn merge(reader: &mut Reader<'_>, doc: &Doc, path: &str) -> Option<Merge> {
    const WORDS: [&str; 8] = ["replace", "append", "concat", "union", "sum", "min", "max", "merge"];
    Some(match reader.word(doc, path, &WORDS)? {
        "append" => Merge::Append,
        "concat" => Merge::Concat,
        "union" => Merge::Union,
        "sum" => Merge::Sum,
        "min" => Merge::Min,
        "max" => Merge::Max,
        "merge" => Merge::Merge,
        _ => Merge::Replace,
    })
}

/// What a default must be instead.
fn misfit(merge: Merge, default: &Value) -> Option<&'static str> {
    let (fits, needs) = match merge {
        Merge::Replace => return None,
        Merge::Append | Merge::Union => (default.is_array(), "a list"),
        Merge::Concat => (default.is_array() || default.is_string(), "a text or a list"),
        Merge::Sum => (default.is_number(), "a number"),
        Merge::Min | Merge::Max => (default.is_number() || default.is_string(), "a number or a text"),
        Merge::Merge => (default.is_object(), "a mapping"),
    };
    (!fits && !default.is_null()).then_some(needs)
}
