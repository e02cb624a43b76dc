//! The workflow language: YAML or JSON to a [`Definition`], with the place of every mistake.
//!
//! Reading order: `document` (YAML with places), `reader` (typed values and faults), `workflow` (the file), `step` and `action`
//! (its steps), `policy` (retries, loops, joins), `graph` (who waits for whom), `conflicts` (who writes over whom).

pub(crate) mod action;
mod approve;
mod conflicts;
pub(crate) mod document;
mod graph;
mod policy;
pub(crate) mod reader;
mod step;
pub(crate) mod workflow;

use crate::{Definition, Limits};
use document::Doc;
use troupe_domain::{Fault, Json};

/// Reads what a user wrote. All mistakes that can be seen together are reported together, in the order of the file.
pub fn parse(source: &str, limits: &Limits) -> Result<Definition, Vec<Fault>> {
    let mut doc = Doc::read(source, limits).map_err(|fault| vec![fault])?;
    doc.sort();
    workflow::read(&doc, limits)
}

/// Compiles the canonical JSON that [`Definition::canonical`] held. Only fails for text that [`parse`] never made.
pub fn compile(canonical: &Json, limits: &Limits) -> Result<Definition, Vec<Fault>> {
    let mut doc = Doc::from_json(&canonical.to_value());
    doc.sort();
    workflow::read(&doc, limits)
}

/// The JSON Schema of workflow files.
pub fn workflow_schema() -> serde_json::Value {
    // The file is part of the program; a test parses it.
    serde_json::from_str(include_str!("language/workflow.schema.json")).unwrap_or_default()
}

/// The name nearest to a mistyped one, if one is near.
pub(crate) fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    if name.len() > troupe_domain::id::MAX_NAME {
        return None;
    }
    let lower = name.to_lowercase();
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}
