//! A compiled expression: CEL's syntax tree with names resolved, macros kept as loops and functions looked up.

use super::{functions::Function, value::Val};
use regex::Regex;
use std::collections::BTreeSet;

#[derive(Debug)]
pub(super) enum Node {
    Const(Val),
    /// A variable of the scope.
    Root(String),
    /// A field of a variable of the scope: kept apart from `Select` because the scope parses single members.
    Member(String, String),
    /// A variable of a comprehension, by its place on the stack.
    Local(usize, String),
    Select(Box<Node>, String),
    /// `has(operand.field)`.
    Has(Box<Node>),
    Index(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    If(Box<Node>, Box<Node>, Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Call(&'static Function, Vec<Node>),
    /// `default(value, fallback)`: the fallback where the value is missing or null.
    Default(Box<Node>, Box<Node>),
    /// `matches` with a pattern known in advance.
    Matches(Box<Node>, Box<Regex>),
    Loop(Box<Loop>),
}

#[derive(Debug)]
pub(super) struct Loop {
    pub kind: LoopKind,
    pub range: Node,
    /// `map` with three arguments: only items for which it holds.
    pub filter: Option<Node>,
    pub body: Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoopKind {
    Map,
    Filter,
    All,
    Exists,
    ExistsOne,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

impl Operator {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
        }
    }
}

impl Node {
    fn each_child<'n>(&'n self, visit: &mut dyn FnMut(&'n Node)) {
        match self {
            Self::Const(_) | Self::Root(_) | Self::Member(..) | Self::Local(..) => {}
            Self::Select(a, _) | Self::Has(a) | Self::Not(a) | Self::Negate(a) | Self::Matches(a, _) => visit(a),
            Self::Index(a, b) | Self::And(a, b) | Self::Or(a, b) | Self::Binary(_, a, b) | Self::Default(a, b) => {
                visit(a);
                visit(b);
            }
            Self::If(a, b, c) => {
                visit(a);
                visit(b);
                visit(c);
            }
            Self::List(items) | Self::Call(_, items) => items.iter().for_each(visit),
            Self::Map(entries) => {
                for (key, value) in entries {
                    visit(key);
                    visit(value);
                }
            }
            Self::Loop(l) => {
                visit(&l.range);
                l.filter.iter().for_each(&mut *visit);
                visit(&l.body);
            }
        }
    }

    pub(super) fn roots(&self, found: &mut BTreeSet<String>) {
        if let Self::Root(name) | Self::Member(name, _) = self
            && !found.contains(name)
        {
            found.insert(name.clone());
        }
        self.each_child(&mut |child| child.roots(found));
    }

    /// Adds the members of `root` that are read; false where the root is used in another way.
    pub(super) fn members(&self, root: &str, found: &mut BTreeSet<String>) -> bool {
        match self {
            Self::Root(name) if name == root => return false,
            Self::Member(name, field) if name == root => {
                found.insert(field.clone());
            }
            _ => {}
        }
        let mut only_members = true;
        self.each_child(&mut |child| only_members &= child.members(root, found));
        only_members
    }

    /// The levels of the tree.
    pub(super) fn depth(&self) -> usize {
        let mut deepest = 0;
        self.each_child(&mut |child| deepest = deepest.max(child.depth()));
        deepest + 1
    }

    /// How it is written, where it is a path; else "the value".
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Root(name) | Self::Local(_, name) => name.clone(),
            Self::Member(name, field) => format!("{name}.{field}"),
            Self::Select(operand, field) => format!("{}.{field}", operand.describe()),
            Self::Index(operand, _) => format!("{}[...]", operand.describe()),
            Self::Call(function, _) => format!("{}(...)", function.name),
            _ => "the value".to_owned(),
        }
    }
}
