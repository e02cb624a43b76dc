//! How a write combines with what a channel holds.

use crate::{definition::Merge, state::channel::Channel};
use serde_json::{Map, Number, Value};
use std::{cmp::Ordering, collections::BTreeSet};
use troupe_domain::{Json, canonical_json};

/// A write that fits, ready to be done.
#[derive(Debug)]
pub(crate) enum Update {
    Replace(Json),
    /// Adds at the end of the list.
    Extend(Vec<Json>),
}

/// What a channel holds before the first write where the definition gives no default.
pub(crate) fn neutral(merge: Merge) -> Option<Json> {
    match merge {
        Merge::Append | Merge::Union => Some(Json::from(Value::Array(Vec::new()))),
        Merge::Sum => Some(Json::from(Value::from(0))),
        Merge::Merge => Some(Json::object()),
        Merge::Replace | Merge::Concat | Merge::Min | Merge::Max => None,
    }
}

/// Checks a write. The message says what does not fit.
pub(crate) fn prepare(current: Option<&mut Channel>, merge: Merge, value: Json) -> Result<Update, String> {
    match (merge, current) {
        (Merge::Replace, _) => Ok(Update::Replace(value)),
        (Merge::Append, current) => append(current, value),
        (Merge::Concat, None) => concat_first(value),
        (Merge::Concat, Some(current)) => concat(current, &value),
        (_, current) => {
            let current = current.map(|channel| channel.to_json()).or_else(|| neutral(merge));
            let Some(current) = current else { return Ok(Update::Replace(value)) };
            combine(merge, current.to_value(), value.to_value()).map(|value| Update::Replace(Json::from(value)))
        }
    }
}

fn append(current: Option<&mut Channel>, value: Json) -> Result<Update, String> {
    if current.is_some_and(|channel| channel.as_list().is_none()) {
        return Err("'append' adds to a list, and the channel holds something else".into());
    }
    Ok(Update::Extend(list(&value).unwrap_or_else(|| vec![value])))
}

fn concat_first(value: Json) -> Result<Update, String> {
    if matches!(value.as_str().as_bytes().first(), Some(b'"' | b'[')) {
        return Ok(Update::Replace(value));
    }
    Err(format!("'concat' joins texts or lists, not {}", kind(&value.to_value())))
}

fn concat(current: &mut Channel, value: &Json) -> Result<Update, String> {
    if let Some(items) = list(value) {
        return match current.as_list() {
            Some(_) => Ok(Update::Extend(items)),
            None => Err("'concat' joins a list to a list, and the channel holds something else".into()),
        };
    }
    match (current.to_json().to_value(), value.to_value()) {
        (Value::String(a), Value::String(b)) => Ok(Update::Replace(Json::from(Value::String(a + &b)))),
        (a, b) => Err(format!("'concat' cannot join {} to {}", kind(&b), kind(&a))),
    }
}

/// The elements of a list, unparsed.
fn list(value: &Json) -> Option<Vec<Json>> {
    if !value.as_str().starts_with('[') {
        return None;
    }
    serde_json::from_str(value.as_str()).ok()
}

fn combine(merge: Merge, current: Value, value: Value) -> Result<Value, String> {
    match merge {
        Merge::Union => union(current, value),
        Merge::Sum => sum(&current, &value),
        Merge::Min => pick(current, value, Ordering::Less),
        Merge::Max => pick(current, value, Ordering::Greater),
        Merge::Merge => match (current, value) {
            (Value::Object(mut into), Value::Object(from)) => {
                merge_objects(&mut into, from);
                Ok(Value::Object(into))
            }
            (a, b) => Err(format!("'merge' joins objects, not {} and {}", kind(&a), kind(&b))),
        },
        Merge::Replace | Merge::Append | Merge::Concat => Ok(value),
    }
}

fn union(current: Value, value: Value) -> Result<Value, String> {
    let Value::Array(mut items) = current else {
        return Err(format!("'union' adds to a list, and the channel holds {}", kind(&current)));
    };
    let mut known: BTreeSet<String> = items.iter().map(canonical_json).collect();
    let new = if let Value::Array(new) = value { new } else { vec![value] };
    items.extend(new.into_iter().filter(|item| known.insert(canonical_json(item))));
    Ok(Value::Array(items))
}

fn sum(current: &Value, value: &Value) -> Result<Value, String> {
    if let (Some(a), Some(b)) = (current.as_i64(), value.as_i64())
        && let Some(total) = a.checked_add(b)
    {
        return Ok(Value::from(total));
    }
    let (Some(a), Some(b)) = (current.as_f64(), value.as_f64()) else {
        return Err(format!("'sum' adds numbers, not {} and {}", kind(current), kind(value)));
    };
    Number::from_f64(a + b).map(Value::Number).ok_or_else(|| "the sum is too large for a number".into())
}

fn pick(current: Value, value: Value, wanted: Ordering) -> Result<Value, String> {
    let order = match (&value, &current) {
        (Value::String(new), Value::String(old)) => Some(new.cmp(old)),
        (Value::Number(new), Value::Number(old)) => compare(new, old),
        _ => None,
    };
    match order {
        Some(order) if order == wanted => Ok(value),
        Some(_) => Ok(current),
        None => Err(format!("'min' and 'max' compare two numbers or two texts, not {} and {}", kind(&current), kind(&value))),
    }
}

fn compare(a: &Number, b: &Number) -> Option<Ordering> {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

// Payloads nest at most `troupe_domain::json::MAX_NESTING` deep, so this recursion ends soon.
fn merge_objects(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(inner)), Value::Object(value)) => merge_objects(inner, value),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// What a value is, in words.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The channel after the writes.
    fn merged(merge: Merge, first: Option<Value>, writes: &[Value]) -> Result<Value, String> {
        let mut channel = first.map(|value| Channel::Text(Json::from(value)));
        for write in writes {
            match prepare(channel.as_mut(), merge, Json::from(write))? {
                Update::Replace(value) => channel = Some(Channel::Text(value)),
                Update::Extend(items) => match channel.as_mut().and_then(|channel| channel.as_list()) {
                    Some((list, _)) => list.extend(items),
                    None => channel = Some(Channel::list(items)),
                },
            }
        }
        Ok(channel.map_or(Value::Null, |channel| channel.to_json().to_value()))
    }

    #[test]
    fn each_merge_combines_its_own_way() {
        for (merge, first, writes, expected) in [
            (Merge::Replace, Some(json!(1)), vec![json!(2), json!("x")], json!("x")),
            (Merge::Append, None, vec![json!(1), json!([2, 3]), json!({"a": 1})], json!([1, 2, 3, {"a": 1}])),
            (Merge::Append, Some(json!([0])), vec![json!([[1]])], json!([0, [1]])),
            (Merge::Concat, None, vec![json!("a"), json!("b")], json!("ab")),
            (Merge::Concat, Some(json!([1])), vec![json!([2]), json!([])], json!([1, 2])),
            (
                Merge::Union,
                None,
                vec![json!(1), json!([1, 2]), json!([{"b": 1, "a": 2}, {"a": 2, "b": 1}])],
                json!([1, 2, {"b": 1, "a": 2}]),
            ),
            (Merge::Sum, None, vec![json!(1), json!(2)], json!(3)),
            (Merge::Sum, Some(json!(0.5)), vec![json!(1)], json!(1.5)),
            (Merge::Sum, Some(json!(i64::MAX)), vec![json!(1)], json!(9_223_372_036_854_775_808_f64)),
            (Merge::Min, None, vec![json!(3), json!(2.5), json!(9)], json!(2.5)),
            (Merge::Max, Some(json!(0)), vec![json!(3), json!(2)], json!(3)),
            (Merge::Max, None, vec![json!("a"), json!("b")], json!("b")),
            (Merge::Merge, None, vec![json!({"a": {"x": 1}}), json!({"a": {"y": 2}, "b": 3})], json!({"a": {"x": 1, "y": 2}, "b": 3})),
        ] {
            assert_eq!(merged(merge, first.clone(), &writes), Ok(expected), "{merge:?} {first:?} {writes:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (merge, first, write) in [
            (Merge::Append, Some(json!("a")), json!(1)),
            (Merge::Concat, None, json!(1)),
            (Merge::Concat, Some(json!("a")), json!([1])),
            (Merge::Concat, Some(json!([1])), json!("a")),
            (Merge::Union, Some(json!({})), json!(1)),
            (Merge::Sum, None, json!("1")),
            (Merge::Sum, Some(json!(f64::MAX)), json!(f64::MAX)),
            (Merge::Min, Some(json!(1)), json!("a")),
            (Merge::Merge, None, json!([1])),
        ] {
            assert!(merged(merge, first.clone(), std::slice::from_ref(&write)).is_err(), "{merge:?} {first:?} {write}");
        }
    }
}
