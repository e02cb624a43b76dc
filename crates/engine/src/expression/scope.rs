//! The variables that an expression sees. Text is parsed only when an expression needs it, and once.

use super::value::Val;
use crate::{Limits, Time};
use indexmap::IndexMap;
use serde_json::value::RawValue;
use std::{
    cell::{Cell, OnceCell},
    rc::Rc,
};
use troupe_domain::Json;

/// Copying and parsing so many bytes of text takes about as long as one step of evaluation.
const BYTES_PER_STEP: u64 = 16;

/// The variables that an expression sees. Values are parsed only when an expression names them, and then only the members
/// that it reads. All that is evaluated over one scope shares the budget `max_expression_cost`: use a new one for each value.
#[derive(Debug)]
pub struct Scope<'a> {
    pub(super) now: Time,
    pub(super) limits: &'a Limits,
    /// Steps left for all that is evaluated over this scope.
    pub(super) left: Cell<u64>,
    /// Bytes of text that were put into this scope alone.
    bytes: u64,
    variables: Vec<(String, Rc<Variable>)>,
}

/// A variable's value. Where many scopes see the same one, they share it, so that it is parsed once.
#[derive(Debug)]
pub(crate) struct Variable {
    source: Source,
    whole: OnceCell<Val>,
}

#[derive(Debug)]
enum Source {
    Text { text: Json, members: OnceCell<Option<IndexMap<String, Slot>>> },
    Object(IndexMap<String, Slot>),
}

/// A member that is parsed when it is first read.
#[derive(Debug)]
struct Slot {
    text: Json,
    value: OnceCell<Val>,
}

/// What a member of a variable is.
pub(super) enum Found<'s> {
    Value(&'s Val),
    /// The variable is an object without this field; these are there.
    NoField(Vec<&'s str>),
    /// The variable is no object.
    NotAnObject(&'s Val),
    NoVariable,
}

impl Slot {
    fn new(text: Json) -> Self {
        Self { text, value: OnceCell::new() }
    }

    fn value(&self) -> &Val {
        self.value.get_or_init(|| parse(&self.text))
    }
}

/// A payload was checked when it came in; text that nests deeper than a parser goes reads as null.
fn parse(text: &Json) -> Val {
    serde_json::from_str(text.as_str()).unwrap_or(Val::Null)
}

fn split(text: &Json) -> Option<IndexMap<String, Slot>> {
    let parts: IndexMap<String, Box<RawValue>> = serde_json::from_str(text.as_str()).ok()?;
    parts.into_iter().map(|(name, raw)| Some((name, Slot::new(serde_json::from_str(raw.get()).ok()?)))).collect()
}

impl<'a> Scope<'a> {
    /// `now` is the journalled time of the transition.
    pub fn new(now: Time, limits: &'a Limits) -> Self {
        Self { now, limits, left: Cell::new(limits.max_expression_cost), bytes: 0, variables: Vec::new() }
    }

    /// Steps that evaluating over this scope has taken so far, and what its own variables cost to copy and parse.
    pub(crate) fn spent(&self) -> u64 {
        self.limits.max_expression_cost.saturating_sub(self.left.get()) + self.bytes / BYTES_PER_STEP
    }

    /// Sets a variable; a later value hides an earlier one of the same name.
    pub fn set(&mut self, name: impl Into<String>, value: Json) {
        self.bytes += value.len() as u64;
        self.variables.push((name.into(), Rc::new(Variable::of(value))));
    }

    /// Sets a variable that other scopes see too. It costs this one nothing.
    pub(crate) fn share(&mut self, name: impl Into<String>, variable: Rc<Variable>) {
        self.variables.push((name.into(), variable));
    }

    /// Sets a variable to an object of these members, each of which is parsed only where an expression reads it. For `state`
    /// and `steps`, whose members are kept apart anyway.
    pub fn set_object(&mut self, name: impl Into<String>, members: impl IntoIterator<Item = (String, Json)>) {
        let members: IndexMap<String, Slot> = members.into_iter().map(|(name, text)| (name, Slot::new(text))).collect();
        self.bytes += members.values().map(|slot| slot.text.len() as u64).sum::<u64>();
        self.variables.push((name.into(), Rc::new(Variable { source: Source::Object(members), whole: OnceCell::new() })));
    }

    fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.iter().rev().find(|(n, _)| n == name).map(|(_, variable)| &**variable)
    }

    /// The names there are, for error messages.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.variables.iter().map(|(name, _)| name.as_str()).chain(["now"]).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    pub(super) fn root(&self, name: &str) -> Option<Val> {
        let Some(variable) = self.variable(name) else {
            return (name == "now").then_some(Val::Time(self.now));
        };
        Some(variable.whole().clone())
    }

    pub(super) fn member(&self, root: &str, field: &str) -> Found<'_> {
        let Some(variable) = self.variable(root) else { return Found::NoVariable };
        match variable.members() {
            None => Found::NotAnObject(variable.whole()),
            Some(members) => match members.get(field) {
                Some(slot) => Found::Value(slot.value()),
                None => Found::NoField(members.keys().map(String::as_str).collect()),
            },
        }
    }

    /// The text of a variable or of its member, without parsing it.
    pub(super) fn raw(&self, root: &str, field: Option<&str>) -> Option<Json> {
        let variable = self.variable(root)?;
        match (field, &variable.source) {
            (Some(field), _) => variable.members()?.get(field).map(|slot| slot.text.clone()),
            (None, Source::Text { text, .. }) => Some(text.clone()),
            (None, Source::Object(_)) => None,
        }
    }
}

impl Variable {
    pub(crate) fn of(text: Json) -> Self {
        Self { source: Source::Text { text, members: OnceCell::new() }, whole: OnceCell::new() }
    }

    fn members(&self) -> Option<&IndexMap<String, Slot>> {
        match &self.source {
            Source::Object(members) => Some(members),
            Source::Text { text, members } => members.get_or_init(|| split(text)).as_ref(),
        }
    }

    fn whole(&self) -> &Val {
        self.whole.get_or_init(|| match &self.source {
            Source::Text { text, .. } => parse(text),
            Source::Object(members) => {
                let fields = members.iter().map(|(name, slot)| (name.as_str().into(), slot.value().clone()));
                Val::Map(std::sync::Arc::new(fields.collect()))
            }
        })
    }
}
