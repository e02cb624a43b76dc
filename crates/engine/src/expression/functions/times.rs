//! Functions of times and durations.

use super::{Function, function, wrong};
use crate::{
    Time,
    expression::{
        evaluate::{Machine, Result, failed},
        value::Val,
    },
};
use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc};

pub(super) const TABLE: &[Function] = &[
    function("timestamp", 1, 1, timestamp),
    function("duration", 1, 1, duration),
    function("getFullYear", 1, 1, |_, v| of_time(v, "getFullYear", |t| i64::from(t.year()))),
    function("getMonth", 1, 1, |_, v| of_time(v, "getMonth", |t| i64::from(t.month0()))),
    function("getDate", 1, 1, |_, v| of_time(v, "getDate", |t| i64::from(t.day()))),
    function("getDayOfMonth", 1, 1, |_, v| of_time(v, "getDayOfMonth", |t| i64::from(t.day0()))),
    function("getDayOfWeek", 1, 1, |_, v| of_time(v, "getDayOfWeek", |t| i64::from(t.weekday().num_days_from_sunday()))),
    function("getDayOfYear", 1, 1, |_, v| of_time(v, "getDayOfYear", |t| i64::from(t.ordinal0()))),
    function("getHours", 1, 1, |_, v| of_either(v, "getHours", |t| i64::from(t.hour()), |d| d.num_hours())),
    function("getMinutes", 1, 1, |_, v| of_either(v, "getMinutes", |t| i64::from(t.minute()), |d| d.num_minutes())),
    function("getSeconds", 1, 1, |_, v| of_either(v, "getSeconds", |t| i64::from(t.second()), |d| d.num_seconds())),
    function("getMilliseconds", 1, 1, |_, v| {
        of_either(v, "getMilliseconds", |t| i64::from(t.nanosecond() / 1_000_000), |d| i64::from(d.subsec_millis()))
    }),
];

/// Of RFC 3339 text, or of Unix seconds.
fn timestamp(_: &mut Machine<'_>, v: &[Val]) -> Result {
    match &v[0] {
        Val::Time(_) => Ok(v[0].clone()),
        Val::Str(text) => match DateTime::parse_from_rfc3339(text.trim()) {
            Ok(time) => Ok(Val::Time(time.with_timezone(&Utc))),
            Err(_) => {
                let shown: String = text.chars().take(40).collect();
                failed(format!("timestamp: '{shown}' is not a time like 2026-01-31T12:00:00Z"))
            }
        },
        Val::Int(seconds) => match DateTime::from_timestamp(*seconds, 0) {
            Some(time) => Ok(Val::Time(time)),
            None => failed("timestamp: the time is out of range"),
        },
        other => wrong("timestamp", "a string", other),
    }
}

/// Of text like `90s`, `1h30m`, `-1.5s`, `7d`, or of seconds.
fn duration(_: &mut Machine<'_>, v: &[Val]) -> Result {
    let found = match &v[0] {
        Val::Span(_) => return Ok(v[0].clone()),
        Val::Str(text) => match parse_duration(text.trim()) {
            Some(span) => Some(span),
            None => {
                let shown: String = text.chars().take(40).collect();
                return failed(format!("duration: '{shown}' is not a duration like 250ms, 30s, 1h30m or 7d"));
            }
        },
        Val::Int(seconds) => TimeDelta::try_seconds(*seconds),
        other => return wrong("duration", "a string", other),
    };
    found.map_or_else(|| failed("duration: it is out of range"), |span| Ok(Val::Span(span)))
}

fn parse_duration(text: &str) -> Option<TimeDelta> {
    let (negative, mut rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let mut nanos = 0_i128;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number = &rest[..digits];
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit: i128 = match &rest[..unit_end] {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return None,
        };
        rest = &rest[unit_end..];
        nanos = nanos.checked_add(scaled(number, unit)?)?;
    }
    let nanos = if negative { -nanos } else { nanos };
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).ok()?;
    TimeDelta::new(seconds, u32::try_from(nanos.rem_euclid(1_000_000_000)).ok()?)
}

/// A decimal number of units, in nanoseconds.
fn scaled(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() > 15 || fraction.len() > 9 || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let places = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_mul(unit)?.checked_add(part * unit / places)
}

fn of_time(v: &[Val], name: &str, f: fn(&Time) -> i64) -> Result {
    match &v[0] {
        Val::Time(time) => Ok(Val::Int(f(time))),
        other => wrong(name, "a timestamp", other),
    }
}

fn of_either(v: &[Val], name: &str, time: fn(&Time) -> i64, span: fn(&TimeDelta) -> i64) -> Result {
    match &v[0] {
        Val::Span(d) => Ok(Val::Int(span(d))),
        _ => of_time(v, name, time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_fractions_and_signs() {
        assert_eq!(parse_duration("1h30m"), TimeDelta::try_minutes(90));
        assert_eq!(parse_duration("-1.5s"), Some(TimeDelta::milliseconds(-1500)));
        assert_eq!(parse_duration("7d"), TimeDelta::try_days(7));
        for bad in ["", "-", "5", "s", "1x", "1..5s", "99999999999999999999s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
