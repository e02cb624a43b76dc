//! Functions of lists.

use super::{Function, function, list, texts, wrong};
use crate::expression::{
    evaluate::{Machine, Result, Stop, a, failed, whole},
    operators::compare,
    value::Val,
};
use std::{cmp::Ordering, collections::HashSet};

pub(super) const TABLE: &[Function] = &[
    function("size", 1, 1, size),
    function("chunk", 2, 2, chunk),
    function("range", 1, 2, range),
    function("flatten", 1, 1, flatten),
    function("unique", 1, 1, unique),
    function("sort", 1, 1, sort),
    function("reverse", 1, 1, reverse),
    function("first", 1, 1, |_, v| end_of("first", &v[0], <[Val]>::first)),
    function("last", 1, 1, |_, v| end_of("last", &v[0], <[Val]>::last)),
    function("slice", 2, 3, texts::slice),
];

fn size(m: &mut Machine<'_>, v: &[Val]) -> Result {
    match &v[0] {
        Val::Str(text) => {
            m.spend_for(text.len(), 64)?;
            Ok(Val::size(text.chars().count()))
        }
        Val::List(items) => Ok(Val::size(items.len())),
        Val::Map(fields) => Ok(Val::size(fields.len())),
        other => wrong("size", "a string, a list or a map", other),
    }
}

fn chunk(m: &mut Machine<'_>, v: &[Val]) -> Result {
    let items = list("chunk", &v[0])?;
    let Some(length) = usize::try_from(whole(&v[1])?).ok().filter(|n| *n > 0) else {
        return failed("chunk needs a length of at least 1");
    };
    m.spend(items.len() as u64)?;
    Ok(Val::list(items.chunks(length).map(|part| Val::list(part.to_vec())).collect()))
}

fn range(m: &mut Machine<'_>, v: &[Val]) -> Result {
    let (start, end) = if v.len() == 1 { (0, whole(&v[0])?) } else { (whole(&v[0])?, whole(&v[1])?) };
    m.spend(u64::try_from(i128::from(end) - i128::from(start)).unwrap_or(0))?;
    Ok(Val::list((start..end).map(Val::Int).collect()))
}

fn flatten(m: &mut Machine<'_>, v: &[Val]) -> Result {
    let mut out = Vec::new();
    for item in list("flatten", &v[0])? {
        match item {
            Val::List(inner) => {
                m.spend(1 + inner.len() as u64)?;
                out.extend(inner.iter().cloned());
            }
            other => {
                m.spend(1)?;
                out.push(other.clone());
            }
        }
    }
    Ok(Val::list(out))
}

/// A text that is equal for equal values: whole doubles print as integers, keys are sorted.
fn key_of(value: &Val) -> String {
    match value {
        Val::Double(_) => whole(value).map_or_else(|_| value.display(), |n| n.to_string()),
        Val::List(items) => format!("[{}]", items.iter().map(key_of).collect::<Vec<_>>().join(",")),
        Val::Map(fields) => {
            let mut parts: Vec<String> = fields.iter().map(|(key, value)| format!("{key:?}:{}", key_of(value))).collect();
            parts.sort_unstable();
            format!("{{{}}}", parts.join(","))
        }
        Val::Str(text) => format!("{text:?}"),
        other => other.display(),
    }
}

fn unique(m: &mut Machine<'_>, v: &[Val]) -> Result {
    let mut seen = HashSet::new();
    let mut out = Vec::new();
    for item in list("unique", &v[0])? {
        let weight = item.weight(m.left);
        m.spend(weight.saturating_mul(4))?;
        if seen.insert(key_of(item)) {
            out.push(item.clone());
        }
    }
    Ok(Val::list(out))
}

fn sort(m: &mut Machine<'_>, v: &[Val]) -> Result {
    let mut items = list("sort", &v[0])?.to_vec();
    let rounds = u64::from(items.len().max(2).ilog2()) + 1;
    m.spend((items.len() as u64).saturating_mul(rounds))?;
    if let Some(pair) = items.windows(2).find(|pair| compare(&pair[0], &pair[1]).is_none()) {
        return failed(format!("sort cannot compare {} with {}", a(&pair[0]), a(&pair[1])));
    }
    items.sort_by(|x, y| compare(x, y).unwrap_or(Ordering::Equal));
    Ok(Val::list(items))
}

fn reverse(m: &mut Machine<'_>, v: &[Val]) -> Result {
    let items = list("reverse", &v[0])?;
    m.spend(items.len() as u64)?;
    Ok(Val::list(items.iter().rev().cloned().collect()))
}

fn end_of(function: &str, value: &Val, pick: fn(&[Val]) -> Option<&Val>) -> Result {
    let items = list(function, value)?;
    pick(items).cloned().ok_or_else(|| Stop::Missing(format!("{function}: the list is empty")))
}
