//! Fields with expressions in them.

use super::{Reader, cut, join, listed};
use crate::{
    expression::{Expr, Template},
    language::{
        document::{Doc, Node, Place},
        nearest,
    },
};
use std::collections::BTreeSet;
use troupe_domain::id::check_name;

/// Entries of one `set` or `save`.
const MAX_WRITES: usize = 200;
/// Variables that every expression may name.
const VARIABLES: [&str; 10] = ["input", "state", "output", "error", "steps", "loop", "run", "step", "env", "now"];

impl Reader<'_> {
    /// A field that is one expression: `${ x }`, `x`, or a literal.
    pub(crate) fn expression(&mut self, doc: &Doc, path: &str) -> Option<Expr> {
        let source = match &doc.value {
            Node::Text(text) => text.clone(),
            Node::Bool(b) => b.to_string(),
            Node::Number(n) => n.to_string(),
            _ => {
                self.wrong_type(doc, path, "an expression", "write it as text, like \"${ state.score < 8 }\"");
                return None;
            }
        };
        match Expr::compile_field(&source, self.limits) {
            Ok(expr) => {
                self.check_variables(&expr, doc.at, path);
                Some(expr)
            }
            Err(message) => {
                self.bad_expression(doc.at, path, message);
                None
            }
        }
    }

    fn bad_expression(&mut self, at: Place, path: &str, message: String) {
        self.fault(at, path, message, "expressions are CEL between '${' and '}'; '$${' writes a literal '${'");
    }

    /// A value with expressions in it.
    pub(crate) fn template(&mut self, doc: &Doc, path: &str) -> Option<Template> {
        match Template::compile(&doc.to_json(), self.limits) {
            Ok(template) => {
                self.check_template(&template, doc, path);
                Some(template)
            }
            Err(wrong) => {
                for (inside, message) in wrong {
                    let inner = inside.trim_start_matches('/').replace('/', ".");
                    let path = if inner.is_empty() { path.to_owned() } else { join(path, &inner) };
                    self.bad_expression(doc.find(&inside).at, &path, message);
                }
                None
            }
        }
    }

    /// Checks the variables of all expressions, at the places of their texts.
    fn check_template(&mut self, template: &Template, doc: &Doc, path: &str) {
        match (template, &doc.value) {
            (Template::Object(fields), Node::Map(entries)) => {
                for ((name, template), (_, doc)) in fields.iter().zip(entries) {
                    self.check_template(template, doc, &join(path, name));
                }
            }
            (Template::Array(items), Node::List(docs)) => {
                for (i, (template, doc)) in items.iter().zip(docs).enumerate() {
                    self.check_template(template, doc, &join(path, &i.to_string()));
                }
            }
            _ => template.each(&mut |expr| self.check_variables(expr, doc.at, path)),
        }
    }

    /// An object with expressions in its fields.
    pub(crate) fn object_template(&mut self, doc: &Doc, path: &str) -> Option<Template> {
        // One expression may give the whole of it: `with: "${ input }"`.
        if !matches!(&doc.value, Node::Text(text) if text.trim_start().starts_with("${")) {
            self.fields(doc, path, "write it as key: value")?;
        }
        self.template(doc, path)
    }

    /// Channel names and what is written to them.
    pub(crate) fn writes(&mut self, doc: &Doc, path: &str) -> Vec<(String, Template)> {
        let Some(fields) = self.fields(doc, path, "write it as channel: value") else { return Vec::new() };
        if fields.is_empty() {
            self.fault(doc.at, path, "writes nothing", "write at least one channel: value");
        }
        if fields.len() > MAX_WRITES {
            self.fault(
                doc.at,
                path,
                format!("writes {} channels, more than {MAX_WRITES}", fields.len()),
                "put values that belong together into one channel",
            );
            return Vec::new();
        }
        let mut found = Vec::with_capacity(fields.len());
        for (key, value) in fields {
            let path = join(path, &key.text);
            if let Err(message) = check_name(&key.text) {
                self.fault(key.at, &path, message, "choose another channel name");
            }
            if let Some(template) = self.template(value, &path) {
                found.push((key.text.clone(), template));
            }
        }
        found
    }

    fn check_variables(&mut self, expr: &Expr, at: Place, path: &str) {
        for name in expr.references() {
            if VARIABLES.contains(&name.as_str()) || self.items.contains(&name) {
                continue;
            }
            let known: Vec<&str> = VARIABLES.into_iter().chain(self.items.iter().map(String::as_str)).collect();
            let help = self.variable_help(&name, &known);
            self.fault(at, path, format!("there is no variable '{name}' here, in `{}`", cut(&expr.source)), help);
        }
        for name in expr.members_of("steps").into_iter().flatten() {
            if self.groups.iter().any(|group| group.contains(&name)) {
                continue;
            }
            let known: BTreeSet<&str> = self.groups.iter().flatten().map(String::as_str).collect();
            let help = match nearest(&name, known.iter().copied()) {
                Some(near) => format!("did you mean 'steps.{near}'?"),
                None => format!("the steps that it may name are its siblings and those of the groups around it: {}", listed(known)),
            };
            self.fault(at, path, format!("there is no step '{name}' that this expression could name, in `{}`", cut(&expr.source)), help);
        }
    }

    fn variable_help(&self, name: &str, known: &[&str]) -> String {
        // `steps.sign-off` is a subtraction.
        let dashed = self.groups.iter().flatten().find(|step| step.contains('-') && step.split('-').any(|part| part == name));
        if let Some(step) = dashed {
            return format!("a step with '-' in its name is written steps[\"{step}\"]");
        }
        match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("the variables are {}; a text is written in quotes", listed(known.iter().copied())),
        }
    }
}
