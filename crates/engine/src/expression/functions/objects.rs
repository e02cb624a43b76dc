//! Functions of objects.

use super::{Function, function, wrong};
use crate::expression::{
    evaluate::{Machine, Result},
    value::{Fields, Val},
};
use std::sync::Arc;

pub(super) const TABLE: &[Function] =
    &[function("keys", 1, 1, keys), function("values", 1, 1, values), function("merge", 1, super::MANY, merge)];

fn fields<'v>(function: &str, value: &'v Val) -> Result<&'v Fields> {
    match value {
        Val::Map(fields) => Ok(fields),
        other => wrong(function, "a map", other),
    }
}

fn keys(m: &mut Machine<'_>, v: &[Val]) -> Result {
    let fields = fields("keys", &v[0])?;
    m.spend(fields.len() as u64)?;
    Ok(Val::list(fields.keys().map(|key| Val::Str(key.clone())).collect()))
}

fn values(m: &mut Machine<'_>, v: &[Val]) -> Result {
    let fields = fields("values", &v[0])?;
    m.spend(fields.len() as u64)?;
    Ok(Val::list(fields.values().cloned().collect()))
}

/// One level deep: a later object's fields replace those of the earlier ones.
fn merge(m: &mut Machine<'_>, v: &[Val]) -> Result {
    let mut out = Fields::new();
    for object in v {
        let fields = fields("merge", object)?;
        m.spend(fields.len() as u64)?;
        out.extend(fields.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    Ok(Val::Map(Arc::new(out)))
}
