//! The functions that expressions may call. Each may be written `f(x, ...)` or `x.f(...)`.

mod lists;
mod numbers;
mod objects;
mod texts;
mod times;

use super::{
    evaluate::{Machine, Result, a, failed},
    value::Val,
};
use std::sync::LazyLock;

pub(super) use texts::pattern;

type Call = fn(&mut Machine<'_>, &[Val]) -> Result;

#[derive(Debug)]
pub(super) struct Function {
    pub name: &'static str,
    pub min: usize,
    pub max: usize,
    pub call: Call,
}

const fn function(name: &'static str, min: usize, max: usize, call: Call) -> Function {
    Function { name, min, max, call }
}

/// Any number of arguments.
const MANY: usize = usize::MAX;

static TABLES: [&[Function]; 5] = [texts::TABLE, lists::TABLE, numbers::TABLE, objects::TABLE, times::TABLE];

static BY_NAME: LazyLock<std::collections::HashMap<&'static str, &'static Function>> =
    LazyLock::new(|| TABLES.iter().flat_map(|table| table.iter()).map(|f| (f.name, f)).collect());

pub(super) fn find(name: &str) -> Option<&'static Function> {
    BY_NAME.get(name).copied()
}

/// All names, with those that the compiler treats by itself.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let own = ["has", "default", "map", "filter", "all", "exists", "exists_one"];
    BY_NAME.keys().copied().chain(own)
}

/// The wrong type, said with the function's name.
fn wrong<T>(function: &str, needs: &str, got: &Val) -> Result<T> {
    failed(format!("{function} needs {needs}, not {}", a(got)))
}

fn text<'v>(function: &str, value: &'v Val) -> Result<&'v str> {
    match value {
        Val::Str(text) => Ok(text),
        other => wrong(function, "a string", other),
    }
}

fn list<'v>(function: &str, value: &'v Val) -> Result<&'v [Val]> {
    match value {
        Val::List(items) => Ok(items),
        other => wrong(function, "a list", other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let all: usize = TABLES.iter().map(|table| table.len()).sum();
        assert_eq!(BY_NAME.len(), all);
    }
}
