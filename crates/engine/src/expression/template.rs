//! JSON values with expressions in their texts.

use super::{
    EvalError, Expr, Scope,
    scan::{Piece, pieces},
};
use crate::Limits;
use serde_json::Value;
use std::collections::BTreeSet;
use troupe_domain::{Json, json::MAX_NESTING};

/// A JSON value in which texts may hold `${ ... }`.
#[derive(Debug)]
pub enum Template {
    Literal(Json),
    /// The whole text is one expression: the value keeps its type.
    Expr(Expr),
    /// Text with expressions in it.
    Text(Vec<Part>),
    Object(Vec<(String, Template)>),
    Array(Vec<Template>),
}

#[derive(Debug)]
pub enum Part {
    Text(String),
    Expr(Expr),
}

/// What is wrong at which path inside a value.
type Wrong = (String, String);

impl Template {
    /// Compiles a JSON value. `Err` names the path inside the value ("/lines/0") and what is wrong.
    pub fn compile(value: &Value, limits: &Limits) -> Result<Self, Vec<(String, String)>> {
        let mut wrong = Vec::new();
        let template = compile(value, limits, &mut String::new(), 0, &mut wrong);
        match template {
            Some(template) if wrong.is_empty() => Ok(template),
            _ => Err(wrong),
        }
    }

    /// All root variables of all its expressions.
    pub fn references(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        self.each(&mut |expr| found.extend(expr.references()));
        found
    }

    /// As [`Expr::members_of`], over all its expressions.
    pub fn members_of(&self, root: &str) -> Option<BTreeSet<String>> {
        let mut found = Some(BTreeSet::new());
        self.each(&mut |expr| match (&mut found, expr.members_of(root)) {
            (Some(all), Some(members)) => all.extend(members),
            _ => found = None,
        });
        found
    }

    /// Calls `visit` with every expression.
    pub(crate) fn each<'t>(&'t self, visit: &mut dyn FnMut(&'t Expr)) {
        match self {
            Self::Literal(_) => {}
            Self::Expr(expr) => visit(expr),
            Self::Text(parts) => {
                for part in parts {
                    if let Part::Expr(expr) = part {
                        visit(expr);
                    }
                }
            }
            Self::Object(fields) => fields.iter().for_each(|(_, template)| template.each(visit)),
            Self::Array(items) => items.iter().for_each(|template| template.each(visit)),
        }
    }

    /// The value. Larger results than `max_payload_bytes` are refused.
    pub fn render(&self, scope: &Scope<'_>) -> Result<Json, EvalError> {
        let json = match self {
            Self::Literal(json) => return Ok(json.clone()),
            Self::Expr(expr) => return expr.eval_json(scope),
            other => Json::from(&other.value(scope)?),
        };
        if json.len() > scope.limits.max_payload_bytes {
            let (have, most) = (json.len(), scope.limits.max_payload_bytes);
            let message = format!("the value has {have} bytes, more than {most} (setting max_payload_bytes)");
            return Err(EvalError { expression: self.first_source(), message });
        }
        Ok(json)
    }

    fn first_source(&self) -> String {
        let mut first = None;
        self.each(&mut |expr| {
            first.get_or_insert(&expr.source);
        });
        first.cloned().unwrap_or_default()
    }

    fn value(&self, scope: &Scope<'_>) -> Result<Value, EvalError> {
        match self {
            Self::Literal(json) => Ok(json.to_value()),
            Self::Expr(expr) => expr.eval(scope),
            Self::Text(parts) => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        Part::Text(plain) => text.push_str(plain),
                        Part::Expr(expr) => text.push_str(&expr.eval_text(scope)?),
                    }
                }
                Ok(Value::String(text))
            }
            Self::Object(fields) => fields
                .iter()
                .map(|(name, template)| Ok((name.clone(), template.value(scope)?)))
                .collect::<Result<_, _>>()
                .map(Value::Object),
            Self::Array(items) => items.iter().map(|template| template.value(scope)).collect::<Result<_, _>>().map(Value::Array),
        }
    }
}

fn compile(value: &Value, limits: &Limits, path: &mut String, depth: usize, wrong: &mut Vec<Wrong>) -> Option<Template> {
    if depth > MAX_NESTING {
        wrong.push((path.clone(), format!("nests deeper than {MAX_NESTING} levels")));
        return None;
    }
    match value {
        Value::String(text) => match text_template(text, limits) {
            Ok(template) => Some(template),
            Err(message) => {
                wrong.push((path.clone(), message));
                None
            }
        },
        Value::Array(items) => {
            let parts = items.iter().enumerate();
            let parts: Vec<Option<Template>> =
                parts.map(|(i, item)| at(path, &i.to_string(), |path| compile(item, limits, path, depth + 1, wrong))).collect();
            let parts: Vec<Template> = parts.into_iter().collect::<Option<_>>()?;
            Some(if parts.iter().all(is_literal) { Template::Literal(literal(value)) } else { Template::Array(parts) })
        }
        Value::Object(fields) => {
            let mut parts = Vec::with_capacity(fields.len());
            for (name, field) in fields {
                parts.push(at(path, name, |path| compile(field, limits, path, depth + 1, wrong)).map(|template| (name.clone(), template)));
            }
            let parts: Vec<(String, Template)> = parts.into_iter().collect::<Option<_>>()?;
            let all = parts.iter().all(|(_, template)| is_literal(template));
            Some(if all { Template::Literal(literal(value)) } else { Template::Object(parts) })
        }
        other => Some(Template::Literal(Json::from(other))),
    }
}

fn is_literal(template: &Template) -> bool {
    matches!(template, Template::Literal(_))
}

/// A value without expressions, its `$${` turned into `${`.
fn literal(value: &Value) -> Json {
    fn unescape(value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(text.replace("$${", "${")),
            Value::Array(items) => Value::Array(items.iter().map(unescape).collect()),
            Value::Object(fields) => Value::Object(fields.iter().map(|(name, value)| (name.clone(), unescape(value))).collect()),
            other => other.clone(),
        }
    }
    Json::from(&unescape(value))
}

fn at<T>(path: &mut String, name: &str, f: impl FnOnce(&mut String) -> T) -> T {
    let length = path.len();
    path.push('/');
    path.push_str(name);
    let result = f(path);
    path.truncate(length);
    result
}

fn text_template(text: &str, limits: &Limits) -> Result<Template, String> {
    // A block text of YAML ends with a line break, which must not turn a value into text.
    let whole = text.strip_suffix('\n').unwrap_or(text);
    if let [Piece::Expression(source)] = pieces(whole)?.as_slice() {
        return Expr::compile(source, limits).map(Template::Expr);
    }
    let mut parts = Vec::new();
    for piece in pieces(text)? {
        parts.push(match piece {
            Piece::Text(text) => Part::Text(text),
            Piece::Expression(source) => Part::Expr(Expr::compile(source, limits)?),
        });
    }
    match parts.as_slice() {
        [] => Ok(Template::Literal(Json::from(&Value::String(String::new())))),
        [Part::Text(plain)] => Ok(Template::Literal(Json::from(&Value::String(plain.clone())))),
        _ => Ok(Template::Text(parts)),
    }
}
