//! The evaluator: walks a compiled expression and counts every step, so that nothing runs longer than its budget.

use super::{
    node::{Loop, LoopKind, Node},
    operators,
    scope::{Found, Scope},
    value::{Fields, Val},
};
use regex::Regex;
use std::sync::Arc;

/// Why an evaluation stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// Something that was asked for is not there; `has` and `default` catch it.
    Missing(String),
    Failed(String),
    /// The budget is used up: nothing catches it.
    Cost,
}

pub(super) type Result<T = Val> = std::result::Result<T, Stop>;

pub(super) fn failed<T>(message: impl Into<String>) -> Result<T> {
    Err(Stop::Failed(message.into()))
}

pub(super) struct Machine<'s> {
    scope: &'s Scope<'s>,
    /// The variables of the comprehensions around, outermost first.
    locals: Vec<Val>,
    /// Steps left.
    pub(super) left: u64,
    /// Patterns of `matches` that were computed, compiled.
    patterns: Vec<(Arc<str>, Regex)>,
}

impl<'s> Machine<'s> {
    pub(super) fn new(scope: &'s Scope<'s>) -> Self {
        Self { scope, locals: Vec::new(), left: scope.left.get(), patterns: Vec::new() }
    }

    /// A compiled pattern that was not known in advance. Compiling is dear, so the last few are kept.
    pub(super) fn pattern(&mut self, source: &Arc<str>) -> Result<Regex> {
        const KEPT: usize = 8;
        const COMPILING: u64 = 5_000;
        if let Some((_, regex)) = self.patterns.iter().find(|(known, _)| known == source) {
            return Ok(regex.clone());
        }
        self.spend(COMPILING)?;
        self.spend_for(source.len(), 1)?;
        let regex = super::functions::pattern(source).map_err(Stop::Failed)?;
        if self.patterns.len() == KEPT {
            self.patterns.remove(0);
        }
        self.patterns.push((source.clone(), regex.clone()));
        Ok(regex)
    }

    /// Pays for work before it is done.
    pub(super) fn spend(&mut self, steps: u64) -> Result<()> {
        self.left = self.left.checked_sub(steps).ok_or(Stop::Cost)?;
        Ok(())
    }

    /// Pays for handling `n` items or bytes at once.
    pub(super) fn spend_for(&mut self, n: usize, per_step: usize) -> Result<()> {
        self.spend((n / per_step.max(1)) as u64)
    }

    /// Pays for copying, comparing or printing a whole value.
    pub(super) fn spend_weight(&mut self, value: &Val) -> Result<()> {
        self.spend(value.weight(self.left))
    }

    pub(super) fn eval(&mut self, node: &Node) -> Result {
        self.spend(1)?;
        match node {
            Node::Const(value) => Ok(value.clone()),
            Node::Root(name) => self.scope.root(name).ok_or_else(|| self.unknown_variable(name)),
            Node::Member(root, field) => self.member(root, field),
            Node::Local(slot, name) => {
                self.locals.get(*slot).cloned().ok_or_else(|| Stop::Failed(format!("variable '{name}' has no value here")))
            }
            Node::Select(operand, field) => {
                let value = self.eval(operand)?;
                select(&value, field, || operand.describe())
            }
            Node::Has(operand) => match self.eval(operand) {
                Ok(_) => Ok(Val::Bool(true)),
                Err(Stop::Missing(_)) => Ok(Val::Bool(false)),
                Err(other) => Err(other),
            },
            Node::Index(operand, index) => {
                let value = self.eval(operand)?;
                let index = self.eval(index)?;
                index_into(&value, &index, || operand.describe())
            }
            Node::Not(operand) => {
                let value = self.eval(operand)?;
                truth(&value, "!").map(|b| Val::Bool(!b))
            }
            Node::Negate(operand) => operators::negate(&self.eval(operand)?),
            Node::And(a, b) => self.logic(a, b, false),
            Node::Or(a, b) => self.logic(a, b, true),
            Node::If(condition, yes, no) => {
                let value = self.eval(condition)?;
                let branch = if truth(&value, "? :")? { yes } else { no };
                self.eval(branch)
            }
            Node::Binary(operator, a, b) => {
                let (left, right) = (self.eval(a)?, self.eval(b)?);
                operators::binary(self, *operator, left, right)
            }
            Node::List(items) => items.iter().map(|item| self.eval(item)).collect::<Result<Vec<_>>>().map(Val::list),
            Node::Map(entries) => self.object(entries),
            Node::Call(function, args) => {
                let args = args.iter().map(|arg| self.eval(arg)).collect::<Result<Vec<_>>>()?;
                (function.call)(self, &args)
            }
            Node::Default(value, fallback) => match self.eval(value) {
                Ok(Val::Null) | Err(Stop::Missing(_)) => self.eval(fallback),
                other => other,
            },
            Node::Matches(operand, regex) => match self.eval(operand)? {
                Val::Str(text) => {
                    self.spend_for(text.len(), 16)?;
                    Ok(Val::Bool(regex.is_match(&text)))
                }
                other => failed(format!("matches needs a string, not {}", other.type_name())),
            },
            Node::Loop(l) => self.comprehension(l),
        }
    }

    fn unknown_variable(&self, name: &str) -> Stop {
        Stop::Missing(format!("there is no variable '{name}' here; there are {}", listed(self.scope.names())))
    }

    fn member(&mut self, root: &str, field: &str) -> Result {
        match self.scope.member(root, field) {
            Found::Value(value) => Ok(value.clone()),
            Found::NoField(fields) => Err(no_field(root, field, fields)),
            Found::NotAnObject(value) => select(value, field, || root.to_owned()),
            // `now` is the one variable that is not set.
            Found::NoVariable => match self.scope.root(root) {
                Some(value) => select(&value, field, || root.to_owned()),
                None => Err(self.unknown_variable(root)),
            },
        }
    }

    fn object(&mut self, entries: &[(Node, Node)]) -> Result {
        let mut fields = Fields::with_capacity(entries.len());
        for (key, value) in entries {
            let key = match self.eval(key)? {
                Val::Str(text) => text,
                key @ (Val::Int(_) | Val::UInt(_) | Val::Bool(_)) => key.display().into(),
                other => return failed(format!("a key must be a string, not {}", other.type_name())),
            };
            let value = self.eval(value)?;
            if let Some(_earlier) = fields.insert(key.clone(), value) {
                return failed(format!("the key '{key}' is there twice"));
            }
        }
        Ok(Val::Map(Arc::new(fields)))
    }

    /// As CEL: the side that decides wins, even when the other one fails.
    fn logic(&mut self, a: &Node, b: &Node, decides: bool) -> Result {
        let symbol = if decides { "||" } else { "&&" };
        let first = match self.eval(a) {
            Err(Stop::Cost) => return Err(Stop::Cost),
            other => other.and_then(|value| truth(&value, symbol)),
        };
        if matches!(first, Ok(b) if b == decides) {
            return Ok(Val::Bool(decides));
        }
        let value = self.eval(b)?;
        let second = truth(&value, symbol)?;
        if second == decides {
            return Ok(Val::Bool(decides));
        }
        first.map(|_| Val::Bool(!decides))
    }

    fn comprehension(&mut self, l: &Loop) -> Result {
        let range = self.eval(&l.range)?;
        let items = match range {
            Val::List(items) => items,
            Val::Map(fields) => {
                self.spend(fields.len() as u64)?;
                Arc::new(fields.keys().map(|key| Val::Str(key.clone())).collect())
            }
            other => return failed(format!("{} is {}, which has no items: a list or a map is needed", l.range.describe(), a(&other))),
        };
        let mut kept = Vec::new();
        let mut holding = 0_usize;
        let mut failure = None;
        for item in items.iter() {
            self.locals.push(item.clone());
            let outcome = self.one(l);
            self.locals.pop();
            match (l.kind, outcome) {
                (_, Err(Stop::Cost)) => return Err(Stop::Cost),
                (LoopKind::All | LoopKind::Exists, Err(stop)) => failure = Some(stop),
                (_, Err(stop)) => return Err(stop),
                (LoopKind::All, Ok(Some(Val::Bool(false)))) => return Ok(Val::Bool(false)),
                (LoopKind::Exists, Ok(Some(Val::Bool(true)))) => return Ok(Val::Bool(true)),
                (LoopKind::Map, Ok(Some(value))) => kept.push(value),
                (LoopKind::Filter, Ok(Some(Val::Bool(true)))) => kept.push(item.clone()),
                (LoopKind::ExistsOne, Ok(Some(Val::Bool(true)))) => holding += 1,
                (_, Ok(_)) => {}
            }
        }
        if let Some(stop) = failure {
            return Err(stop);
        }
        Ok(match l.kind {
            LoopKind::Map | LoopKind::Filter => Val::list(kept),
            LoopKind::All => Val::Bool(true),
            LoopKind::Exists => Val::Bool(false),
            LoopKind::ExistsOne => Val::Bool(holding == 1),
        })
    }

    /// One round of a comprehension: its value, or nothing where the filter leaves the item out.
    fn one(&mut self, l: &Loop) -> Result<Option<Val>> {
        if let Some(filter) = &l.filter {
            let value = self.eval(filter)?;
            if !truth(&value, "map")? {
                return Ok(None);
            }
        }
        let value = self.eval(&l.body)?;
        if l.kind != LoopKind::Map {
            truth(&value, "the condition of a comprehension")?;
        }
        Ok(Some(value))
    }
}

pub(super) fn truth(value: &Val, of: &str) -> Result<bool> {
    match value {
        Val::Bool(b) => Ok(*b),
        other => failed(format!("{of} needs true or false, not {}", a(other))),
    }
}

/// The type with its article.
pub(super) fn a(value: &Val) -> String {
    let name = value.type_name();
    match value {
        Val::Null => name.to_owned(),
        Val::Int(_) => format!("an {name}"),
        _ => format!("a {name}"),
    }
}

fn select(value: &Val, field: &str, describe: impl Fn() -> String) -> Result {
    match value {
        Val::Map(fields) => match fields.get(field) {
            Some(value) => Ok(value.clone()),
            None => Err(no_field(&describe(), field, fields.keys().map(|key| &**key).collect())),
        },
        Val::Null => Err(Stop::Missing(format!("{} is null, so it has no field '{field}'", describe()))),
        other => failed(format!("{} is {}, which has no field '{field}'", describe(), a(other))),
    }
}

fn index_into(value: &Val, index: &Val, describe: impl Fn() -> String) -> Result {
    match (value, index) {
        (Val::Map(_) | Val::Null, Val::Str(key)) => select(value, key, describe),
        (Val::List(items), Val::Int(_) | Val::UInt(_) | Val::Double(_)) => {
            let position = whole(index)?;
            let found = usize::try_from(position).ok().and_then(|i| items.get(i));
            found.cloned().ok_or_else(|| {
                let there = if items.is_empty() { "it is empty".to_owned() } else { format!("it has 0 to {}", items.len() - 1) };
                Stop::Missing(format!("{} has no item {position}; {there}", describe()))
            })
        }
        (Val::List(_), other) => failed(format!("a list is indexed by an int, not by {}", a(other))),
        (Val::Map(_), other) => failed(format!("a map is indexed by a string, not by {}", a(other))),
        (other, _) => failed(format!("{} is {}, which cannot be indexed", describe(), a(other))),
    }
}

/// A whole number from any number.
pub(super) fn whole(value: &Val) -> Result<i64> {
    match value {
        Val::Int(n) => Ok(*n),
        Val::UInt(n) => i64::try_from(*n).or_else(|_| failed(format!("{n} is too large"))),
        #[expect(clippy::cast_possible_truncation, reason = "the guard leaves whole numbers within 53 bits")]
        Val::Double(n) if n.fract() == 0.0 && n.abs() < 9_007_199_254_740_992.0 => Ok(*n as i64),
        Val::Double(n) => failed(format!("{n} is no whole number")),
        other => failed(format!("a whole number is needed, not {}", a(other))),
    }
}

fn no_field(of: &str, field: &str, mut fields: Vec<&str>) -> Stop {
    if fields.is_empty() {
        return Stop::Missing(format!("{of} has no field '{field}'; it is empty"));
    }
    fields.sort_unstable();
    Stop::Missing(format!("{of} has no field '{field}'; it has {}", listed(fields)))
}

/// At most twelve names, cut to 64 characters each.
fn listed(names: Vec<&str>) -> String {
    const SHOWN: usize = 12;
    let more = names.len().saturating_sub(SHOWN);
    let mut text = names.iter().take(SHOWN).map(|name| name.chars().take(64).collect::<String>()).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
