//! Arithmetic, comparison and `in`. Numbers mix: an int meets a double as a double, comparisons are exact.

use super::{
    evaluate::{Machine, Result, Stop, a, failed},
    node::Operator,
    value::Val,
};
use chrono::TimeDelta;
use std::{cmp::Ordering, sync::Arc};

pub(super) fn binary(machine: &mut Machine<'_>, operator: Operator, left: Val, right: Val) -> Result {
    match operator {
        Operator::Equal | Operator::NotEqual => {
            machine.spend_weight(&left)?;
            Ok(Val::Bool(equal(&left, &right) == (operator == Operator::Equal)))
        }
        Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
            let Some(order) = compare(&left, &right) else {
                return failed(format!("{} cannot be compared with {} by {}", a(&left), a(&right), operator.symbol()));
            };
            Ok(Val::Bool(match operator {
                Operator::Less => order.is_lt(),
                Operator::LessOrEqual => order.is_le(),
                Operator::Greater => order.is_gt(),
                _ => order.is_ge(),
            }))
        }
        Operator::In => contains(machine, &left, &right).map(Val::Bool),
        _ => arithmetic(machine, operator, left, right),
    }
}

fn contains(machine: &mut Machine<'_>, item: &Val, holder: &Val) -> Result<bool> {
    match holder {
        Val::List(items) => {
            for candidate in items.iter() {
                machine.spend_weight(candidate)?;
                if equal(item, candidate) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Val::Map(fields) => Ok(matches!(item, Val::Str(key) if fields.contains_key(&**key))),
        other => failed(format!("'in' needs a list or a map on its right, not {}", a(other))),
    }
}

/// Equal values, whatever the type of their numbers; values of different types are different.
pub(super) fn equal(left: &Val, right: &Val) -> bool {
    match (left, right) {
        (Val::Null, Val::Null) => true,
        (Val::Bool(x), Val::Bool(y)) => x == y,
        (Val::Str(x), Val::Str(y)) => x == y,
        (Val::List(x), Val::List(y)) => Arc::ptr_eq(x, y) || (x.len() == y.len() && x.iter().zip(y.iter()).all(|(x, y)| equal(x, y))),
        (Val::Map(x), Val::Map(y)) => {
            Arc::ptr_eq(x, y) || (x.len() == y.len() && x.iter().all(|(key, x)| y.get(key).is_some_and(|y| equal(x, y))))
        }
        (Val::List(_) | Val::Map(_), _) => false,
        _ => compare(left, right) == Some(Ordering::Equal),
    }
}

/// The order of two numbers, texts, times, durations or booleans; `None` for anything else.
pub(super) fn compare(left: &Val, right: &Val) -> Option<Ordering> {
    match (left, right) {
        (Val::Bool(x), Val::Bool(y)) => Some(x.cmp(y)),
        (Val::Str(x), Val::Str(y)) => Some(x.cmp(y)),
        (Val::Time(x), Val::Time(y)) => Some(x.cmp(y)),
        (Val::Span(x), Val::Span(y)) => Some(x.cmp(y)),
        (Val::Double(x), Val::Double(y)) => x.partial_cmp(y),
        (Val::Double(x), _) => compare_whole(integer(right)?, *x).map(Ordering::reverse),
        (_, Val::Double(y)) => compare_whole(integer(left)?, *y),
        _ => Some(integer(left)?.cmp(&integer(right)?)),
    }
}

fn integer(value: &Val) -> Option<i128> {
    match value {
        Val::Int(n) => Some(i128::from(*n)),
        Val::UInt(n) => Some(i128::from(*n)),
        _ => None,
    }
}

/// Exact, also where a double cannot hold the integer.
#[expect(clippy::cast_possible_truncation, reason = "an integer passes i64 and u64 long before it passes i128; the cast saturates")]
fn compare_whole(n: i128, x: f64) -> Option<Ordering> {
    if x.is_nan() {
        return None;
    }
    let floor = x.floor();
    Some(n.cmp(&(floor as i128)).then(if x > floor { Ordering::Less } else { Ordering::Equal }))
}

#[expect(clippy::cast_precision_loss, reason = "mixed arithmetic is done in doubles")]
pub(super) fn double(value: &Val) -> Option<f64> {
    match value {
        Val::Int(n) => Some(*n as f64),
        Val::UInt(n) => Some(*n as f64),
        Val::Double(n) => Some(*n),
        _ => None,
    }
}

/// A double that JSON can hold.
pub(super) fn finite(n: f64) -> Result {
    if n.is_finite() { Ok(Val::Double(n)) } else { failed("the result is no finite number") }
}

/// An integer in the smallest type that holds it.
pub(super) fn whole_number(n: Option<i128>) -> Result {
    let found = n.and_then(|n| i64::try_from(n).map(Val::Int).or_else(|_| u64::try_from(n).map(Val::UInt)).ok());
    found.ok_or_else(|| Stop::Failed("the result is too large for a whole number (64 bits)".to_owned()))
}

fn arithmetic(machine: &mut Machine<'_>, operator: Operator, left: Val, right: Val) -> Result {
    if let (Some(x), Some(y)) = (integer(&left), integer(&right)) {
        return integers(operator, x, y);
    }
    if let (Some(x), Some(y)) = (double(&left), double(&right)) {
        return doubles(operator, x, y);
    }
    match (operator, left, right) {
        (Operator::Add, Val::Str(x), Val::Str(y)) => {
            machine.spend_for(x.len() + y.len(), 16)?;
            Ok(Val::Str(format!("{x}{y}").into()))
        }
        (Operator::Add, Val::List(x), Val::List(y)) => {
            machine.spend_for(x.len() + y.len(), 2)?;
            Ok(Val::list(x.iter().chain(y.iter()).cloned().collect()))
        }
        (Operator::Add, Val::Time(t), Val::Span(d)) | (Operator::Add, Val::Span(d), Val::Time(t)) => moment(t.checked_add_signed(d)),
        (Operator::Subtract, Val::Time(t), Val::Span(d)) => moment(t.checked_sub_signed(d)),
        (Operator::Subtract, Val::Time(x), Val::Time(y)) => Ok(Val::Span(x - y)),
        (Operator::Add, Val::Span(x), Val::Span(y)) => span(x.checked_add(&y)),
        (Operator::Subtract, Val::Span(x), Val::Span(y)) => span(x.checked_sub(&y)),
        (_, left, right) => failed(no_such_operation(operator, &left, &right)),
    }
}

fn no_such_operation(operator: Operator, left: &Val, right: &Val) -> String {
    let symbol = operator.symbol();
    let hint = match (operator, left, right) {
        (Operator::Add, Val::Str(_), _) | (Operator::Add, _, Val::Str(_)) => ": use string(...) to make a text of the other",
        _ => "",
    };
    format!("{symbol} cannot be applied to {} and {}{hint}", a(left), a(right))
}

fn moment(time: Option<crate::Time>) -> Result {
    time.map_or_else(|| failed("the time is out of range"), |time| Ok(Val::Time(time)))
}

fn span(span: Option<TimeDelta>) -> Result {
    span.map_or_else(|| failed("the duration is out of range"), |span| Ok(Val::Span(span)))
}

fn integers(operator: Operator, x: i128, y: i128) -> Result {
    match operator {
        Operator::Add => whole_number(x.checked_add(y)),
        Operator::Subtract => whole_number(x.checked_sub(y)),
        Operator::Multiply => whole_number(x.checked_mul(y)),
        Operator::Divide | Operator::Modulo if y == 0 => failed("division by zero"),
        Operator::Divide => whole_number(x.checked_div(y)),
        Operator::Modulo => whole_number(x.checked_rem(y)),
        _ => failed("this is no arithmetic operator"),
    }
}

fn doubles(operator: Operator, x: f64, y: f64) -> Result {
    match operator {
        Operator::Add => finite(x + y),
        Operator::Subtract => finite(x - y),
        Operator::Multiply => finite(x * y),
        Operator::Divide | Operator::Modulo if y == 0.0 => failed("division by zero"),
        Operator::Divide => finite(x / y),
        Operator::Modulo => finite(x % y),
        _ => failed("this is no arithmetic operator"),
    }
}

pub(super) fn negate(value: &Val) -> Result {
    match value {
        Val::Double(n) => Ok(Val::Double(-n)),
        Val::Span(d) => Ok(Val::Span(-*d)),
        other => match integer(other) {
            Some(n) => whole_number(n.checked_neg()),
            None => failed(format!("- needs a number, not {}", a(other))),
        },
    }
}
