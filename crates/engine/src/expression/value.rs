//! Values as expressions see them: JSON, and times and durations.

use crate::Time;
use chrono::{SecondsFormat, TimeDelta};
use indexmap::IndexMap;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::{fmt, sync::Arc};

pub(super) type Fields = IndexMap<Arc<str>, Val>;

/// A value; cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Val {
    Null,
    Bool(bool),
    Int(i64),
    /// CEL's `1u`, and JSON integers that pass `i64`.
    UInt(u64),
    /// Always finite.
    Double(f64),
    Str(Arc<str>),
    List(Arc<Vec<Val>>),
    Map(Arc<Fields>),
    Time(Time),
    Span(TimeDelta),
}

impl Val {
    pub(super) fn text(text: &str) -> Self {
        Self::Str(text.into())
    }

    pub(super) fn list(items: Vec<Val>) -> Self {
        Self::List(Arc::new(items))
    }

    pub(super) fn size(n: usize) -> Self {
        Self::Int(i64::try_from(n).unwrap_or(i64::MAX))
    }

    /// The name of its type, as CEL's `type()` and error messages say it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::UInt(_) => "uint",
            Self::Double(_) => "double",
            Self::Str(_) => "string",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Time(_) => "timestamp",
            Self::Span(_) => "duration",
        }
    }

    /// Roughly the work of copying, comparing or printing it, in steps: one for each value, one for each 64 bytes of text. Stops
    /// counting past `limit`.
    pub(super) fn weight(&self, limit: u64) -> u64 {
        match self {
            Self::Str(text) => 1 + (text.len() / 64) as u64,
            Self::List(items) => weigh(items.iter(), limit),
            Self::Map(fields) => weigh(fields.values(), limit),
            _ => 1,
        }
    }

    /// As JSON: times as RFC 3339 text, durations as seconds ("30s", "1.5s"), all else as it is.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(b) => Value::Bool(*b),
            Self::Int(n) => Value::from(*n),
            Self::UInt(n) => Value::from(*n),
            Self::Double(n) => Value::from(*n),
            Self::Str(text) => Value::String(text.to_string()),
            Self::List(items) => Value::Array(items.iter().map(Val::to_json).collect()),
            Self::Map(fields) => Value::Object(fields.iter().map(|(key, value)| (key.to_string(), value.to_json())).collect()),
            Self::Time(time) => Value::String(format_time(time)),
            Self::Span(span) => Value::String(format_seconds(*span)),
        }
    }

    /// As it reads inside a text: strings as they are, everything else as JSON.
    pub(super) fn display(&self) -> String {
        match self {
            Self::Str(text) => text.to_string(),
            Self::Time(time) => format_time(time),
            Self::Span(span) => format_seconds(*span),
            other => other.to_json().to_string(),
        }
    }

    /// How deep lists and objects nest in it.
    pub(super) fn nesting(&self) -> usize {
        match self {
            Self::List(items) => 1 + items.iter().map(Val::nesting).max().unwrap_or(0),
            Self::Map(fields) => 1 + fields.values().map(Val::nesting).max().unwrap_or(0),
            _ => 0,
        }
    }
}

fn weigh<'v>(values: impl Iterator<Item = &'v Val>, limit: u64) -> u64 {
    let mut sum = 1_u64;
    for value in values {
        if sum > limit {
            break;
        }
        sum = sum.saturating_add(value.weight(limit - sum));
    }
    sum
}

pub(super) fn format_time(time: &Time) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Seconds with as many decimals as are needed: `30s`, `-1.5s`.
pub(super) fn format_seconds(span: TimeDelta) -> String {
    let sign = if span < TimeDelta::zero() { "-" } else { "" };
    let span = span.abs();
    let nanos = span.subsec_nanos();
    if nanos == 0 {
        return format!("{sign}{}s", span.num_seconds());
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{}.{}s", span.num_seconds(), fraction.trim_end_matches('0'))
}

impl From<&Value> for Val {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(*b),
            Value::Number(n) => {
                if let Some(n) = n.as_i64() {
                    Self::Int(n)
                } else if let Some(n) = n.as_u64() {
                    Self::UInt(n)
                } else {
                    Self::Double(n.as_f64().unwrap_or_default())
                }
            }
            Value::String(text) => Self::text(text),
            Value::Array(items) => Self::list(items.iter().map(Val::from).collect()),
            Value::Object(fields) => Self::Map(Arc::new(fields.iter().map(|(key, value)| (key.as_str().into(), value.into())).collect())),
        }
    }
}

impl<'de> Deserialize<'de> for Val {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValVisitor)
    }
}

struct ValVisitor;

impl<'de> Visitor<'de> for ValVisitor {
    type Value = Val;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Val, E> {
        Ok(Val::Null)
    }
    fn visit_bool<E>(self, b: bool) -> Result<Val, E> {
        Ok(Val::Bool(b))
    }
    fn visit_i64<E>(self, n: i64) -> Result<Val, E> {
        Ok(Val::Int(n))
    }
    fn visit_u64<E>(self, n: u64) -> Result<Val, E> {
        Ok(i64::try_from(n).map_or(Val::UInt(n), Val::Int))
    }
    fn visit_f64<E>(self, n: f64) -> Result<Val, E> {
        Ok(Val::Double(n))
    }
    fn visit_str<E>(self, text: &str) -> Result<Val, E> {
        Ok(Val::text(text))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Val, A::Error> {
        let mut items = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(1024));
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Val::list(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Val, A::Error> {
        let mut fields = Fields::new();
        while let Some((key, value)) = map.next_entry::<String, Val>()? {
            fields.insert(key.into(), value);
        }
        Ok(Val::Map(Arc::new(fields)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_comes_back_as_it_was() {
        let text = r#"{"b":[1,-1,1.0,2.5,18446744073709551615,1e300],"a":{"x":null,"y":true,"z":"ü\n"}}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        let val: Val = serde_json::from_str(text).unwrap();
        assert_eq!(val.to_json(), value);
        assert_eq!(Val::from(&value).to_json().to_string(), value.to_string());
    }

    #[test]
    fn durations_are_seconds() {
        assert_eq!(format_seconds(TimeDelta::milliseconds(1500)), "1.5s");
        assert_eq!(format_seconds(TimeDelta::minutes(-2)), "-120s");
    }

    #[test]
    fn weighing_stops_at_the_limit() {
        let row = Val::list(vec![Val::Null; 1000]);
        let table = Val::list(vec![row; 1000]);
        assert!(table.weight(5000) < 8000);
        assert_eq!(table.weight(u64::MAX), 1_001_001);
    }
}
