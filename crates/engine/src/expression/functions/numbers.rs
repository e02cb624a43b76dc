//! Functions of numbers, and conversions to number and boolean.

use super::{Function, function, texts, wrong};
use crate::expression::{
    evaluate::{Machine, Result, Stop, a, failed, whole},
    node::Operator,
    operators::{self, compare, double, finite, whole_number},
    value::Val,
};
use std::cmp::Ordering;

pub(super) const TABLE: &[Function] = &[
    function("sum", 1, 1, sum),
    function("avg", 1, 1, avg),
    function("min", 1, super::MANY, |m, v| extreme(m, v, "min", Ordering::Less)),
    function("max", 1, super::MANY, |m, v| extreme(m, v, "max", Ordering::Greater)),
    function("abs", 1, 1, abs),
    function("floor", 1, 1, |_, v| rounded("floor", &v[0], f64::floor)),
    function("ceil", 1, 1, |_, v| rounded("ceil", &v[0], f64::ceil)),
    function("round", 1, 2, round),
    function("int", 1, 1, int),
    function("uint", 1, 1, uint),
    function("double", 1, 1, to_double),
    function("bool", 1, 1, to_bool),
    function("dyn", 1, 1, |_, v| Ok(v[0].clone())),
    function("type", 1, 1, |_, v| Ok(Val::text(v[0].type_name()))),
];

fn sum(m: &mut Machine<'_>, v: &[Val]) -> Result {
    let items = super::list("sum", &v[0])?;
    m.spend(items.len() as u64)?;
    let mut total = Val::Int(0);
    for item in items {
        if double(item).is_none() && !matches!(item, Val::Span(_)) {
            return wrong("sum", "a list of numbers", item);
        }
        // The neutral value takes the type of the first item.
        total = match (&total, item) {
            (Val::Int(0), Val::Span(_)) => item.clone(),
            _ => operators::binary(m, Operator::Add, total, item.clone())?,
        };
    }
    Ok(total)
}

fn avg(m: &mut Machine<'_>, v: &[Val]) -> Result {
    let items = super::list("avg", &v[0])?;
    if items.is_empty() {
        return Err(Stop::Missing("avg: the list is empty".to_owned()));
    }
    let total = sum(m, v)?;
    match double(&total) {
        Some(total) => finite(total / double(&Val::size(items.len())).unwrap_or(1.0)),
        None => wrong("avg", "a list of numbers", &items[0]),
    }
}

/// Of a list, or of the arguments.
fn extreme(m: &mut Machine<'_>, v: &[Val], name: &str, wanted: Ordering) -> Result {
    let items = match v {
        [Val::List(items)] => items.as_slice(),
        [single] if double(single).is_none() => return wrong(name, "a list", single),
        many => many,
    };
    m.spend(items.len() as u64)?;
    let mut best = items.first().ok_or_else(|| Stop::Missing(format!("{name}: the list is empty")))?;
    for item in &items[1..] {
        match compare(item, best) {
            Some(order) if order == wanted => best = item,
            Some(_) => {}
            None => return failed(format!("{name} cannot compare {} with {}", a(item), a(best))),
        }
    }
    Ok(best.clone())
}

fn abs(_: &mut Machine<'_>, v: &[Val]) -> Result {
    match &v[0] {
        Val::Int(n) => whole_number(Some(i128::from(*n).abs())),
        Val::UInt(_) => Ok(v[0].clone()),
        Val::Double(n) => Ok(Val::Double(n.abs())),
        Val::Span(d) => Ok(Val::Span(d.abs())),
        other => wrong("abs", "a number", other),
    }
}

/// A whole number where it fits, else the rounded double.
fn rounded(name: &str, value: &Val, f: fn(f64) -> f64) -> Result {
    match value {
        Val::Int(_) | Val::UInt(_) => Ok(value.clone()),
        Val::Double(n) => {
            let result = Val::Double(f(*n));
            Ok(whole(&result).map_or(result, Val::Int))
        }
        other => wrong(name, "a number", other),
    }
}

/// `round(x)` gives a whole number; `round(x, digits)` keeps so many decimals. Halves go away from zero.
fn round(_: &mut Machine<'_>, v: &[Val]) -> Result {
    let Some(digits) = v.get(1) else { return rounded("round", &v[0], f64::round) };
    let Some(digits) = i32::try_from(whole(digits)?).ok().filter(|n| (0..=15).contains(n)) else {
        return failed("round needs 0 to 15 digits");
    };
    match &v[0] {
        Val::Double(n) => {
            let factor = 10_f64.powi(digits);
            let scaled = n * factor;
            if scaled.is_finite() { finite(scaled.round() / factor) } else { Ok(v[0].clone()) }
        }
        Val::Int(_) | Val::UInt(_) => Ok(v[0].clone()),
        other => wrong("round", "a number", other),
    }
}

fn int(_: &mut Machine<'_>, v: &[Val]) -> Result {
    match &v[0] {
        Val::Int(_) => Ok(v[0].clone()),
        Val::UInt(n) => i64::try_from(*n).map(Val::Int).or_else(|_| failed(format!("{n} is too large for int"))),
        Val::Double(n) => whole(&Val::Double(n.trunc())).map(Val::Int),
        Val::Str(text) => texts::parse("int", text).map(Val::Int),
        Val::Bool(b) => Ok(Val::Int(i64::from(*b))),
        Val::Time(time) => Ok(Val::Int(time.timestamp())),
        Val::Span(d) => Ok(Val::Int(d.num_seconds())),
        other => wrong("int", "a number or a string", other),
    }
}

fn uint(_: &mut Machine<'_>, v: &[Val]) -> Result {
    let n = match &v[0] {
        Val::UInt(_) => return Ok(v[0].clone()),
        Val::Str(text) => return texts::parse("uint", text).map(Val::UInt),
        Val::Double(n) => whole(&Val::Double(n.trunc()))?,
        other => whole(other)?,
    };
    u64::try_from(n).map(Val::UInt).or_else(|_| failed(format!("{n} is negative, which uint cannot hold")))
}

fn to_double(_: &mut Machine<'_>, v: &[Val]) -> Result {
    match &v[0] {
        Val::Str(text) => finite(texts::parse("double", text)?),
        other => match double(other) {
            Some(n) => Ok(Val::Double(n)),
            None => wrong("double", "a number or a string", other),
        },
    }
}

fn to_bool(_: &mut Machine<'_>, v: &[Val]) -> Result {
    match &v[0] {
        Val::Bool(_) => Ok(v[0].clone()),
        Val::Str(text) => texts::parse("bool", text).map(Val::Bool),
        other => wrong("bool", "true, false or a string", other),
    }
}
