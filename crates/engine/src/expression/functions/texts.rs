//! Functions of texts, and conversions to and from text.

use super::{Function, function, list, text, wrong};
use crate::expression::{
    evaluate::{Machine, Result, failed, whole},
    value::Val,
};
use regex::RegexBuilder;

pub(super) const TABLE: &[Function] = &[
    function("contains", 2, 2, |m, v| two(m, v, "contains", |x, y| Val::Bool(x.contains(y)))),
    function("startsWith", 2, 2, |m, v| two(m, v, "startsWith", |x, y| Val::Bool(x.starts_with(y)))),
    function("endsWith", 2, 2, |m, v| two(m, v, "endsWith", |x, y| Val::Bool(x.ends_with(y)))),
    function("matches", 2, 2, matches),
    function("split", 2, 2, split),
    function("lines", 1, 1, lines),
    function("join", 1, 2, join),
    function("lower", 1, 1, |m, v| one(m, v, "lower", |x| x.to_lowercase())),
    function("upper", 1, 1, |m, v| one(m, v, "upper", |x| x.to_uppercase())),
    function("trim", 1, 1, |m, v| one(m, v, "trim", |x| x.trim().to_owned())),
    function("replace", 3, 3, replace),
    function("string", 1, 1, string),
    function("json", 1, 1, json),
    function("to_json", 1, 1, to_json),
];

fn two(m: &mut Machine<'_>, v: &[Val], name: &str, f: fn(&str, &str) -> Val) -> Result {
    let (x, y) = (text(name, &v[0])?, text(name, &v[1])?);
    m.spend_for(x.len(), 64)?;
    Ok(f(x, y))
}

fn one(m: &mut Machine<'_>, v: &[Val], name: &str, f: fn(&str) -> String) -> Result {
    let x = text(name, &v[0])?;
    m.spend_for(x.len(), 16)?;
    Ok(Val::Str(f(x).into()))
}

/// The largest compiled pattern, in bytes.
const PATTERN_SIZE: usize = 1 << 18;

/// Compiles a pattern of `matches`.
pub(in crate::expression) fn pattern(source: &str) -> std::result::Result<regex::Regex, String> {
    RegexBuilder::new(source)
        .size_limit(PATTERN_SIZE)
        .dfa_size_limit(PATTERN_SIZE)
        .nest_limit(50)
        .build()
        .map_err(|e| format!("'{source}' is not a regular expression: {e}"))
}

fn matches(m: &mut Machine<'_>, v: &[Val]) -> Result {
    let x = text("matches", &v[0])?;
    let Val::Str(source) = &v[1] else { return wrong("matches", "a pattern", &v[1]) };
    m.spend_for(x.len(), 16)?;
    Ok(Val::Bool(m.pattern(source)?.is_match(x)))
}

fn split(m: &mut Machine<'_>, v: &[Val]) -> Result {
    let (x, separator) = (text("split", &v[0])?, text("split", &v[1])?);
    if separator.is_empty() {
        return failed("split needs a separator that is not empty");
    }
    m.spend_for(x.len(), 16)?;
    let parts: Vec<&str> = x.split(separator).collect();
    m.spend(parts.len() as u64)?;
    Ok(Val::list(parts.into_iter().map(Val::text).collect()))
}

fn lines(m: &mut Machine<'_>, v: &[Val]) -> Result {
    let x = text("lines", &v[0])?;
    m.spend_for(x.len(), 16)?;
    let parts: Vec<&str> = x.lines().collect();
    m.spend(parts.len() as u64)?;
    Ok(Val::list(parts.into_iter().map(Val::text).collect()))
}

fn join(m: &mut Machine<'_>, v: &[Val]) -> Result {
    let items = list("join", &v[0])?;
    let separator = v.get(1).map_or(Ok(""), |s| text("join", s))?;
    let mut out = String::new();
    for (i, item) in items.iter().enumerate() {
        m.spend_weight(item)?;
        let before = out.len();
        if i > 0 {
            out.push_str(separator);
        }
        match item {
            Val::Str(text) => out.push_str(text),
            other => out.push_str(&other.display()),
        }
        m.spend_for(out.len() - before, 32)?;
    }
    Ok(Val::Str(out.into()))
}

fn replace(m: &mut Machine<'_>, v: &[Val]) -> Result {
    let (x, old, new) = (text("replace", &v[0])?, text("replace", &v[1])?, text("replace", &v[2])?);
    if old.is_empty() {
        return failed("replace needs a text to look for that is not empty");
    }
    m.spend_for(x.len(), 16)?;
    let hits = x.matches(old).count();
    m.spend_for(hits.saturating_mul(new.len()) + hits, 16)?;
    Ok(Val::Str(x.replace(old, new).into()))
}

fn string(m: &mut Machine<'_>, v: &[Val]) -> Result {
    m.spend_weight(&v[0])?;
    Ok(Val::Str(v[0].display().into()))
}

fn to_json(m: &mut Machine<'_>, v: &[Val]) -> Result {
    m.spend_weight(&v[0])?;
    m.spend_weight(&v[0])?;
    Ok(Val::Str(v[0].to_json().to_string().into()))
}

fn json(m: &mut Machine<'_>, v: &[Val]) -> Result {
    let x = text("json", &v[0])?;
    m.spend_for(x.len(), 4)?;
    match serde_json::from_str::<Val>(x) {
        Ok(value) if value.nesting() <= troupe_domain::json::MAX_NESTING => Ok(value),
        Ok(_) => failed(format!("json: the text nests deeper than {} levels", troupe_domain::json::MAX_NESTING)),
        Err(e) => failed(format!("json: the text is not JSON: {e}")),
    }
}

/// `int`, `double` and `bool` of a text.
pub(super) fn parse<T: std::str::FromStr>(function: &str, text: &str) -> Result<T> {
    let shown: String = text.chars().take(40).collect();
    text.trim().parse().or_else(|_| failed(format!("{function}: '{shown}' cannot be read as {function}")))
}

/// A part of a text or list: from `start` to before `end`, negative numbers counting from the end.
pub(super) fn slice(m: &mut Machine<'_>, v: &[Val]) -> Result {
    let bound = |value: Option<&Val>, length: usize, absent: usize| -> Result<usize> {
        let Some(value) = value else { return Ok(absent) };
        let n = whole(value)?;
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        let n = if n < 0 { n.saturating_add(length) } else { n };
        Ok(usize::try_from(n.clamp(0, length)).unwrap_or(0))
    };
    match &v[0] {
        Val::List(items) => {
            let (start, end) = (bound(v.get(1), items.len(), 0)?, bound(v.get(2), items.len(), items.len())?);
            m.spend_for(end.saturating_sub(start), 2)?;
            Ok(Val::list(items.get(start..end).unwrap_or_default().to_vec()))
        }
        Val::Str(text) => {
            m.spend_for(text.len(), 8)?;
            let length = text.chars().count();
            let (start, end) = (bound(v.get(1), length, 0)?, bound(v.get(2), length, length)?);
            Ok(Val::Str(text.chars().skip(start).take(end.saturating_sub(start)).collect::<String>().into()))
        }
        other => wrong("slice", "a list or a string", other),
    }
}
