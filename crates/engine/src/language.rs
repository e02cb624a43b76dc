//! The workflow language: YAML or JSON to a [`Definition`], with the place of every mistake.

use crate::{Definition, Limits};
use troupe_domain::{Fault, Json};

/// Reads what a user wrote. All mistakes that can be seen together are reported together.
pub fn parse(source: &str, limits: &Limits) -> Result<Definition, Vec<Fault>> {
    let _ = (source, limits);
    Err(Vec::new())
}

/// Compiles the canonical JSON that [`Definition::canonical`] held. Only fails for text that [`parse`] never made.
pub fn compile(canonical: &Json, limits: &Limits) -> Result<Definition, Vec<Fault>> {
    let _ = (canonical, limits);
    Err(Vec::new())
}

/// The JSON Schema of workflow files.
pub fn workflow_schema() -> serde_json::Value {
    serde_json::Value::Null
}

/// The name nearest to a mistyped one, if one is near.
pub(crate) fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let lower = name.to_lowercase();
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}
