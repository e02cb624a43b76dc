//! Expressions in CEL, and JSON values with expressions in them.
//!
//! The syntax is CEL's, read by the `cel` crate; the evaluator is our own, because an expression comes from strangers and must
//! have a budget: every node, item and byte that it handles costs steps, work is paid before it is done, and passing
//! `max_expression_cost` is an error that names the setting. Nothing here panics or overflows the stack on hostile text.
//!
//! Where this differs from standard CEL, it is for JSON's sake:
//! - Numbers mix: an int with a double is a double (`1 + 0.5`), comparisons between them are exact (`7.5 < 8`, `1 == 1.0`).
//!   Between integers `/` gives an integer, as in CEL: `7 / 2` is 3, `7 / 2.0` is 3.5.
//! - `has(a.b.c)` is false where any part of the path is missing, and takes `a["b"]` too.
//! - `default(value, fallback)` gives the fallback where the value is missing or null; nothing else that fails is hidden.
//! - Any function may be written `f(x, y)` or `x.f(y)`.
//! - Times become RFC 3339 text and durations become seconds ("90s") where a value leaves an expression.
//! - Bytes, typed messages and optionals do not exist.
//!
//! Functions: `size contains startsWith endsWith matches split lines join lower upper trim replace slice string json to_json`,
//! `chunk range flatten unique sort reverse first last`, `sum avg min max abs floor ceil round int uint double bool`,
//! `keys values merge`, `timestamp duration getFullYear getMonth getDate getDayOfMonth getDayOfWeek getDayOfYear getHours getMinutes
//! getSeconds getMilliseconds`, `has default type dyn`, and the comprehensions `map filter all exists exists_one`.

mod evaluate;
mod functions;
mod lower;
mod node;
mod operators;
mod scan;
mod scope;
mod template;
mod value;

pub use scope::Scope;
pub(crate) use scope::Variable;
pub use template::{Part, Template};

use crate::Limits;
use evaluate::{Machine, Stop};
use node::Node;
use serde_json::Value;
use std::collections::BTreeSet;
use troupe_domain::{Json, json::MAX_NESTING};
use value::Val;

/// A compiled CEL expression.
#[derive(Debug)]
pub struct Expr {
    pub source: String,
    node: Node,
}

/// Why an expression gave no value. Deterministic: the same expression over the same scope always fails the same way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} in `{expression}`")]
pub struct EvalError {
    pub expression: String,
    pub message: String,
}

impl Expr {
    /// Compiles the text between `${` and `}`. The message says what is wrong.
    pub fn compile(source: &str, limits: &Limits) -> Result<Self, String> {
        let source = source.trim();
        Ok(Self { source: source.to_owned(), node: lower::compile(source, limits)? })
    }

    /// Compiles a field that is one expression (`when`, `for_each`, ...): written `${ x }`, or `x` alone.
    pub(crate) fn compile_field(text: &str, limits: &Limits) -> Result<Self, String> {
        match scan::pieces(text.trim())?.as_slice() {
            [scan::Piece::Expression(source)] => Self::compile(source, limits),
            [scan::Piece::Text(plain)] if !plain.contains("${") => Self::compile(plain, limits),
            [] => Err("the expression is empty".to_owned()),
            _ => Err("it must be one expression, without text around '${ ... }'".to_owned()),
        }
    }

    /// Root variables (`input`, `state`, ...) that it reads, so that only those need be in the scope; variables that a comprehension
    /// declares are not among them.
    pub fn references(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        self.node.roots(&mut found);
        found
    }

    /// Names that are read as `root.NAME` (`steps.draft.output` gives `draft` for `steps`); `None`: the root is used in another way, so all are needed.
    pub fn members_of(&self, root: &str) -> Option<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        self.node.members(root, &mut found).then_some(found)
    }

    /// A value that was written without an expression.
    pub(crate) fn literal(value: &Value) -> Self {
        Self { source: value.to_string(), node: Node::Const(Val::from(value)) }
    }

    /// The value, if no variable is needed for it.
    pub(crate) fn constant(&self, limits: &Limits) -> Option<Result<Value, EvalError>> {
        self.references().is_empty().then(|| self.eval(&Scope::new(chrono::DateTime::UNIX_EPOCH, limits)))
    }

    pub fn eval(&self, scope: &Scope<'_>) -> Result<Value, EvalError> {
        self.run(scope, |machine, value| {
            printable(machine, &value)?;
            Ok(value.to_json())
        })
    }

    /// Evaluates a condition; anything but true or false is an error.
    pub fn test(&self, scope: &Scope<'_>) -> Result<bool, EvalError> {
        self.run(scope, |_, value| evaluate::truth(&value, "a condition"))
    }

    /// The value as text. A variable or a member of one is handed over without being parsed.
    pub(crate) fn eval_json(&self, scope: &Scope<'_>) -> Result<Json, EvalError> {
        let untouched = match &self.node {
            Node::Root(name) => scope.raw(name, None),
            Node::Member(name, field) => scope.raw(name, Some(field)),
            _ => None,
        };
        let json = match untouched {
            Some(json) => json,
            None => Json::from(&self.eval(scope)?),
        };
        if json.len() > scope.limits.max_payload_bytes {
            let (have, most) = (json.len(), scope.limits.max_payload_bytes);
            return Err(self.error(format!("the value has {have} bytes, more than {most} (setting max_payload_bytes)")));
        }
        Ok(json)
    }

    /// The value as it reads inside a text.
    pub(crate) fn eval_text(&self, scope: &Scope<'_>) -> Result<String, EvalError> {
        self.run(scope, |machine, value| {
            printable(machine, &value)?;
            Ok(value.display())
        })
    }

    fn run<T>(&self, scope: &Scope<'_>, finish: impl FnOnce(&mut Machine<'_>, Val) -> evaluate::Result<T>) -> Result<T, EvalError> {
        let mut machine = Machine::new(scope);
        let result = machine.eval(&self.node).and_then(|value| finish(&mut machine, value));
        scope.left.set(machine.left);
        result.map_err(|stop| match stop {
            Stop::Missing(message) | Stop::Failed(message) => self.error(message),
            Stop::Cost => {
                let most = scope.limits.max_expression_cost;
                self.error(format!(
                    "evaluating takes more than {most} steps (setting max_expression_cost); work on fewer items, or use for_each"
                ))
            }
        })
    }

    fn error(&self, message: String) -> EvalError {
        const SHOWN: usize = 200;
        let mut expression: String = self.source.chars().take(SHOWN).collect();
        if expression.len() < self.source.len() {
            expression.push_str("...");
        }
        EvalError { expression, message }
    }
}

/// Pays for printing a value, and refuses what would nest too deep for those who read it. Paying comes first: a value that shares
/// its parts can be small in memory and endless on paper.
fn printable(machine: &mut Machine<'_>, value: &Val) -> evaluate::Result<()> {
    machine.spend_weight(value)?;
    if value.nesting() > MAX_NESTING {
        return evaluate::failed(format!("the value nests deeper than {MAX_NESTING} levels"));
    }
    Ok(())
}
