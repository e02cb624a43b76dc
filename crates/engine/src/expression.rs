//! Expressions in CEL, and JSON values with expressions in them.

use troupe_domain::Json;

/// A compiled CEL expression.
#[derive(Debug)]
pub struct Expr {
    pub source: String,
}

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
