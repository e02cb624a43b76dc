//! From text to [`Node`]: CEL's own parser makes the syntax tree, names are resolved here.

use super::{
    functions,
    node::{Loop, LoopKind, Node, Operator},
    scan,
    value::Val,
};
use crate::Limits;
use cel::{
    Env,
    common::ast::{CallExpr, EntryExpr, Expr as Cel, IdedExpr, LiteralValue, SourceInfo, operators as op},
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Brackets and levels up to which a text is parsed on the caller's stack.
const SHALLOW: scan::Depth = scan::Depth { brackets: 8, levels: 40 };

pub(super) fn compile(source: &str, limits: &Limits) -> Result<Node, String> {
    let depth = scan::guard(source, limits)?;
    if depth.brackets <= SHALLOW.brackets && depth.levels <= SHALLOW.levels {
        return parse_and_lower(source, limits);
    }
    // The generated parser recurses some ten frames for each bracket.
    crate::stack::with_large_stack(|| parse_and_lower(source, limits)).unwrap_or_else(|| Err(unreadable()))
}

fn unreadable() -> String {
    "it is not valid CEL".to_owned()
}

fn parse_and_lower(source: &str, limits: &Limits) -> Result<Node, String> {
    let text = scan::for_parser(source, "loop", LOOP);
    // A parser that somebody else wrote reads what strangers send: a panic in it is a syntax error.
    let parsed = catch_unwind(AssertUnwindSafe(|| Env::default().with_optional_support(false).parser().parse_with_source_info(&text)));
    let (tree, info) = parsed.map_err(|_| unreadable())?.map_err(|errors| syntax_error(&errors))?;
    let mut lowering = Lowering { info: &info, locals: Vec::new(), left: limits.max_expression_depth.saturating_mul(4) };
    let node = lowering.node(&tree)?;
    if node.depth() > limits.max_expression_depth {
        return Err(scan::too_deep(limits));
    }
    Ok(node)
}

/// `loop` is a reserved word of CEL and a variable of ours: it is parsed under another name of the same length.
const LOOP: &str = "_oop";

fn restore(name: &str) -> &str {
    if name == LOOP { "loop" } else { name }
}

fn syntax_error(errors: &cel::ParseErrors) -> String {
    let Some(first) = errors.errors.first() else { return unreadable() };
    let message = first.msg.trim_start_matches("Syntax error: ");
    let message = message.split(" expecting {").next().unwrap_or(message).replace(LOOP, "loop");
    let message = message.trim().replace("mismatched input '<EOF>'", "it ends where more is expected");
    let (line, column) = first.pos;
    let at = if line > 1 { format!("line {line}, character {column}") } else { format!("character {column}") };
    format!("it is not valid CEL: {message} (at {at})")
}

struct Lowering<'i> {
    info: &'i SourceInfo,
    /// Variables of the comprehensions around.
    locals: Vec<String>,
    /// Levels left.
    left: usize,
}

impl Lowering<'_> {
    fn at<T>(&self, id: u64, message: impl std::fmt::Display) -> Result<T, String> {
        match self.info.offset_for(id) {
            Some((start, _)) => Err(format!("{message} (at character {})", start.saturating_add(1))),
            None => Err(message.to_string()),
        }
    }

    fn node(&mut self, tree: &IdedExpr) -> Result<Node, String> {
        self.left = self.left.checked_sub(1).ok_or("the expression nests too deep (setting max_expression_depth)")?;
        let lowered = self.lower(tree);
        self.left += 1;
        lowered
    }

    fn boxed(&mut self, tree: &IdedExpr) -> Result<Box<Node>, String> {
        self.node(tree).map(Box::new)
    }

    fn nodes(&mut self, trees: &[IdedExpr]) -> Result<Vec<Node>, String> {
        trees.iter().map(|tree| self.node(tree)).collect()
    }

    fn lower(&mut self, tree: &IdedExpr) -> Result<Node, String> {
        match &tree.expr {
            Cel::Literal(literal) => match constant(literal) {
                Some(value) => Ok(Node::Const(value)),
                None => self.at(tree.id, "bytes are not available: JSON has none; use a string"),
            },
            Cel::Ident(name) => Ok(self.variable(restore(name))),
            Cel::Select(select) => {
                let operand = self.node(&select.operand)?;
                Ok(member(operand, restore(&select.field).to_owned()))
            }
            Cel::List(list) => self.nodes(&list.elements).map(Node::List),
            Cel::Map(map) => {
                let mut entries = Vec::with_capacity(map.entries.len());
                for entry in &map.entries {
                    match &entry.expr {
                        EntryExpr::MapEntry(e) if !e.optional => entries.push((self.node(&e.key)?, self.node(&e.value)?)),
                        _ => return self.at(entry.id, "this kind of entry is not available"),
                    }
                }
                Ok(Node::Map(entries))
            }
            Cel::Struct(s) => {
                let name = s.type_name.as_str();
                self.at(tree.id, format!("typed objects like {name}{{...}} are not available: write {{\"field\": value}}"))
            }
            Cel::Call(call) => self.call(tree.id, call),
            Cel::Comprehension(_) | Cel::Unspecified => self.at(tree.id, unreadable()),
        }
    }

    fn variable(&self, name: &str) -> Node {
        match self.locals.iter().rposition(|local| local == name) {
            Some(slot) => Node::Local(slot, name.to_owned()),
            None => Node::Root(name.to_owned()),
        }
    }

    fn call(&mut self, id: u64, call: &CallExpr) -> Result<Node, String> {
        let name = call.func_name.as_str();
        if call.target.is_none()
            && let Some(node) = self.operator(id, name, &call.args)?
        {
            return Ok(node);
        }
        if let Some(target) = &call.target
            && let Some(kind) = loop_kind(name)
        {
            return self.comprehension(id, kind, target, &call.args);
        }
        let args: Vec<&IdedExpr> = call.target.as_deref().into_iter().chain(&call.args).collect();
        match (name, args.as_slice()) {
            ("has", [path]) => self.has(id, path),
            ("default", [value, fallback]) => Ok(Node::Default(self.boxed(value)?, self.boxed(fallback)?)),
            ("matches", [subject, IdedExpr { expr: Cel::Literal(LiteralValue::String(source)), .. }]) => {
                let regex = functions::pattern(source.inner()).or_else(|message| self.at(id, message))?;
                Ok(Node::Matches(self.boxed(subject)?, Box::new(regex)))
            }
            _ => self.function(id, name, &args),
        }
    }

    fn function(&mut self, id: u64, name: &str, args: &[&IdedExpr]) -> Result<Node, String> {
        let Some(function) = functions::find(name) else {
            let hint = crate::language::nearest(name, functions::names()).map(|n| format!("; did you mean '{n}'?")).unwrap_or_default();
            let loops = if loop_kind(name).is_some() { format!("; write LIST.{name}(x, ...)") } else { hint };
            return self.at(id, format!("there is no function '{name}'{loops}"));
        };
        if args.len() < function.min || args.len() > function.max {
            let wants = match (function.min, function.max) {
                (min, usize::MAX) => format!("at least {min}"),
                (min, max) if min == max => min.to_string(),
                (min, max) => format!("{min} to {max}"),
            };
            return self.at(id, format!("function '{name}' takes {wants} arguments, not {}", args.len()));
        }
        let args = args.iter().map(|arg| self.node(arg)).collect::<Result<Vec<_>, _>>()?;
        Ok(Node::Call(function, args))
    }

    fn has(&mut self, id: u64, path: &IdedExpr) -> Result<Node, String> {
        let node = self.boxed(path)?;
        match *node {
            Node::Member(..) | Node::Select(..) | Node::Index(..) => Ok(Node::Has(node)),
            _ => self.at(id, "has(...) takes a path like has(state.score)"),
        }
    }

    /// Operators are calls with names like `_+_`.
    fn operator(&mut self, id: u64, name: &str, args: &[IdedExpr]) -> Result<Option<Node>, String> {
        Ok(Some(match (name, args) {
            (op::LOGICAL_NOT, [x]) => Node::Not(self.boxed(x)?),
            (op::NEGATE, [x]) => Node::Negate(self.boxed(x)?),
            (op::LOGICAL_AND, [x, y]) => Node::And(self.boxed(x)?, self.boxed(y)?),
            (op::LOGICAL_OR, [x, y]) => Node::Or(self.boxed(x)?, self.boxed(y)?),
            (op::CONDITIONAL, [x, y, z]) => Node::If(self.boxed(x)?, self.boxed(y)?, self.boxed(z)?),
            (op::INDEX, [x, y]) => {
                let (operand, index) = (self.node(x)?, self.node(y)?);
                match index {
                    Node::Const(Val::Str(key)) => member(operand, key.to_string()),
                    index => Node::Index(Box::new(operand), Box::new(index)),
                }
            }
            (op::OPT_INDEX | op::OPT_SELECT, _) => {
                return self.at(id, "optional fields (.?) are not available: write default(a.b, fallback)");
            }
            (name, [x, y]) => match binary(name) {
                Some(operator) => {
                    let (x, y) = if is_type_call(x) || is_type_call(y) {
                        (self.type_side(x)?, self.type_side(y)?)
                    } else {
                        (self.node(x)?, self.node(y)?)
                    };
                    Node::Binary(operator, Box::new(x), Box::new(y))
                }
                None => return Ok(None),
            },
            _ => return Ok(None),
        }))
    }

    /// In `type(x) == int` the name `int` is a type.
    fn type_side(&mut self, tree: &IdedExpr) -> Result<Node, String> {
        const TYPES: [&str; 9] = ["bool", "int", "uint", "double", "string", "list", "map", "timestamp", "duration"];
        match &tree.expr {
            Cel::Ident(name) if TYPES.contains(&name.as_str()) => Ok(Node::Const(Val::text(name))),
            Cel::Ident(name) if name == "null_type" => Ok(Node::Const(Val::text("null"))),
            _ => self.node(tree),
        }
    }

    fn comprehension(&mut self, id: u64, kind: LoopKind, target: &IdedExpr, args: &[IdedExpr]) -> Result<Node, String> {
        let (variable, filter, body) = match (kind, args) {
            (_, [variable, body]) => (variable, None, body),
            (LoopKind::Map, [variable, filter, body]) => (variable, Some(filter), body),
            _ => return self.at(id, "a comprehension takes a variable and an expression, like list.map(x, x + 1)"),
        };
        let Cel::Ident(name) = &variable.expr else {
            return self.at(id, "the first argument of a comprehension is the name of its variable, like list.map(x, x + 1)");
        };
        let range = self.node(target)?;
        self.locals.push(restore(name).to_owned());
        let filter = filter.map(|tree| self.node(tree)).transpose();
        let body = self.node(body);
        self.locals.pop();
        Ok(Node::Loop(Box::new(Loop { kind, range, filter: filter?, body: body? })))
    }
}

fn member(operand: Node, field: String) -> Node {
    match operand {
        Node::Root(root) => Node::Member(root, field),
        operand => Node::Select(Box::new(operand), field),
    }
}

fn is_type_call(tree: &IdedExpr) -> bool {
    matches!(&tree.expr, Cel::Call(call) if call.func_name == "type")
}

fn constant(literal: &LiteralValue) -> Option<Val> {
    Some(match literal {
        LiteralValue::Boolean(b) => Val::Bool(*b.inner()),
        LiteralValue::Int(n) => Val::Int(*n.inner()),
        LiteralValue::UInt(n) => Val::UInt(*n.inner()),
        LiteralValue::Double(n) if n.inner().is_finite() => Val::Double(*n.inner()),
        LiteralValue::Double(_) | LiteralValue::Bytes(_) => return None,
        LiteralValue::Null => Val::Null,
        LiteralValue::String(text) => Val::text(text.inner()),
    })
}

fn loop_kind(name: &str) -> Option<LoopKind> {
    Some(match name {
        "map" => LoopKind::Map,
        "filter" => LoopKind::Filter,
        "all" => LoopKind::All,
        "exists" => LoopKind::Exists,
        "exists_one" | "existsOne" => LoopKind::ExistsOne,
        _ => return None,
    })
}

fn binary(name: &str) -> Option<Operator> {
    Some(match name {
        op::ADD => Operator::Add,
        op::SUBSTRACT => Operator::Subtract,
        op::MULTIPLY => Operator::Multiply,
        op::DIVIDE => Operator::Divide,
        op::MODULO => Operator::Modulo,
        op::EQUALS => Operator::Equal,
        op::NOT_EQUALS => Operator::NotEqual,
        op::LESS => Operator::Less,
        op::LESS_EQUALS => Operator::LessOrEqual,
        op::GREATER => Operator::Greater,
        op::GREATER_EQUALS => Operator::GreaterOrEqual,
        op::IN => Operator::In,
        _ => return None,
    })
}
