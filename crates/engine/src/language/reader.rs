//! Reads typed values out of a document and collects what is wrong.

use super::{
    document::{Doc, Key, Node, Place, place},
    nearest,
};
use crate::{
    Limits,
    definition::Schema,
    expression::{Expr, Template},
};
use serde_json::{Number, Value};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use troupe_domain::{Fault, Json, id::check_name, parse_span};

/// More faults than that help nobody.
const MAX_FAULTS: usize = 100;
/// Entries of one `set` or `save`.
const MAX_WRITES: usize = 200;
/// Bytes of one JSON Schema.
const MAX_SCHEMA: usize = 256 << 10;
/// Variables that every expression may name.
const VARIABLES: [&str; 10] = ["input", "state", "output", "error", "steps", "loop", "run", "step", "env", "now"];

pub(crate) struct Reader<'l> {
    pub limits: &'l Limits,
    pub faults: Vec<Fault>,
    /// Names of the steps of the groups around, outermost first: what `steps.NAME` may name.
    pub groups: Vec<Vec<String>>,
    /// Variables of the `for_each` around.
    pub items: Vec<String>,
}

/// A mapping whose keys are all known.
pub(crate) struct Map<'d> {
    pub at: Place,
    pub path: String,
    fields: &'d [(Key, Doc)],
}

impl<'d> Map<'d> {
    pub(crate) fn entry(&self, key: &str) -> Option<&'d (Key, Doc)> {
        self.fields.iter().find(|(k, _)| k.text == key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'d Doc> {
        self.entry(key).map(|(_, value)| value)
    }

    pub(crate) fn path(&self, key: &str) -> String {
        join(&self.path, key)
    }
}

pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Names with commas; at most twenty.
pub(crate) fn listed<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let shown = names.iter().take(20).copied().collect::<Vec<_>>().join(", ");
    if names.len() > 20 { format!("{shown} and {} more", names.len() - 20) } else { shown }
}

impl<'l> Reader<'l> {
    pub(crate) fn new(limits: &'l Limits) -> Self {
        Self { limits, faults: Vec::new(), groups: Vec::new(), items: Vec::new() }
    }

    pub(crate) fn fault(&mut self, at: Place, path: &str, message: impl Into<String>, help: impl Into<String>) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(place(Fault::at(path, message).help(help), at));
        }
    }

    pub(crate) fn wrong_type(&mut self, doc: &Doc, path: &str, needs: &str, help: impl Into<String>) {
        self.fault(doc.at, path, format!("must be {needs}, not {}", doc.kind()), help);
    }

    /// The fields of a mapping.
    pub(crate) fn fields<'d>(&mut self, doc: &'d Doc, path: &str, help: &str) -> Option<&'d [(Key, Doc)]> {
        match &doc.value {
            Node::Map(fields) => Some(fields),
            _ => {
                self.wrong_type(doc, path, "a mapping (key: value)", help);
                None
            }
        }
    }

    /// A mapping of known keys; others are faults with the nearest name.
    pub(crate) fn map<'d>(&mut self, doc: &'d Doc, path: &str, known: &[&str]) -> Option<Map<'d>> {
        let fields = self.fields(doc, path, &format!("its keys are {}", listed(known.iter().copied())))?;
        for (key, _) in fields {
            if !known.contains(&key.text.as_str()) {
                self.unknown_key(key, path, known);
            }
        }
        Some(Map { at: doc.at, path: path.to_owned(), fields })
    }

    fn unknown_key(&mut self, key: &Key, path: &str, known: &[&str]) {
        let shown: String = key.text.chars().take(80).collect();
        let help = match nearest(&key.text, known.iter().copied()) {
            Some(name) => format!("did you mean '{name}'?"),
            None => format!("remove it; the keys here are {}", listed(known.iter().copied())),
        };
        self.fault(key.at, &join(path, &shown), format!("there is no key '{shown}' here"), help);
    }

    pub(crate) fn text<'d>(&mut self, doc: &'d Doc, path: &str) -> Option<&'d str> {
        match &doc.value {
            Node::Text(text) => Some(text),
            _ => {
                self.wrong_type(doc, path, "a text", "put it in quotes if it is meant as text");
                None
            }
        }
    }

    pub(crate) fn name<'d>(&mut self, doc: &'d Doc, path: &str) -> Option<&'d str> {
        let text = self.text(doc, path)?;
        match check_name(text) {
            Ok(()) => Some(text),
            Err(message) => {
                self.fault(doc.at, path, message, "choose a name of these characters");
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn word<'d>(&mut self, doc: &'d Doc, path: &str, words: &[&str]) -> Option<&'d str> {
        let text = self.text(doc, path)?;
        if words.contains(&text) {
            return Some(text);
        }
        let help = nearest(text, words.iter().copied())
            .map_or_else(|| format!("use {}", words.join(" or ")), |near| format!("did you mean '{near}'?"));
        let shown: String = text.chars().take(60).collect();
        self.fault(doc.at, path, format!("'{shown}' is not one of {}", words.join(", ")), help);
        None
    }

    pub(crate) fn number<'d>(&mut self, doc: &'d Doc, path: &str) -> Option<&'d Number> {
        match &doc.value {
            Node::Number(n) => Some(n),
            _ => {
                self.wrong_type(doc, path, "a number", "write a number without quotes");
                None
            }
        }
    }

    /// A whole number within bounds; `setting` names what sets the upper one.
    pub(crate) fn whole(&mut self, doc: &Doc, path: &str, least: u64, most: u64, setting: &str) -> Option<u64> {
        let n = self.number(doc, path)?;
        match n.as_u64() {
            Some(n) if (least..=most).contains(&n) => Some(n),
            _ => {
                let setting = if setting.is_empty() { String::new() } else { format!(" (setting {setting})") };
                let message = format!("{n} is out of range: it must be a whole number from {least} to {most}{setting}");
                self.fault(doc.at, path, message, format!("write a whole number from {least} to {most}"));
                None
            }
        }
    }

    pub(crate) fn real(&mut self, doc: &Doc, path: &str, least: f64, most: f64) -> Option<f64> {
        let n = self.number(doc, path)?.as_f64()?;
        if (least..=most).contains(&n) {
            return Some(n);
        }
        self.fault(doc.at, path, format!("{n} is out of range"), format!("write a number from {least} to {most}"));
        None
    }

    pub(crate) fn span(&mut self, doc: &Doc, path: &str) -> Option<Duration> {
        const HELP: &str = "write a number and a unit, like 250ms, 30s, 2m, 1h30m or 7d";
        let Node::Text(text) = &doc.value else {
            self.wrong_type(doc, path, "a duration", HELP);
            return None;
        };
        match parse_span(text) {
            Ok(span) => Some(span),
            Err(message) => {
                self.fault(doc.at, path, message, HELP);
                None
            }
        }
    }

    /// A list of texts, or one text.
    pub(crate) fn texts<'d>(&mut self, doc: &'d Doc, path: &str) -> Vec<(&'d str, Place, String)> {
        match &doc.value {
            Node::Text(text) => vec![(text, doc.at, path.to_owned())],
            Node::List(items) => {
                let mut found = Vec::with_capacity(items.len());
                for (i, item) in items.iter().enumerate() {
                    let path = join(path, &i.to_string());
                    if let Some(text) = self.text(item, &path) {
                        found.push((text, item.at, path));
                    }
                }
                found
            }
            _ => {
                self.wrong_type(doc, path, "a text or a list of texts", "write one, or several in a list: [a, b]");
                Vec::new()
            }
        }
    }

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

    /// A JSON Schema, compiled.
    pub(crate) fn schema(&mut self, doc: &Doc, path: &str) -> Option<Schema> {
        const HELP: &str = "write a JSON Schema (draft 2020-12), like { type: object, required: [text] }";
        if !matches!(doc.value, Node::Map(_) | Node::Bool(_)) {
            self.wrong_type(doc, path, "a JSON Schema", HELP);
            return None;
        }
        let value = doc.to_json();
        let source = Json::from(&value);
        if source.len() > MAX_SCHEMA {
            self.fault(doc.at, path, format!("the schema has more than {MAX_SCHEMA} bytes"), "make it smaller");
            return None;
        }
        if let Some(reference) = remote_reference(&value) {
            let message = format!("the schema refers to '{}' outside itself, and nothing is ever fetched", cut(reference));
            self.fault(doc.at, path, message, "put what it refers to under $defs and refer to it by '#/$defs/NAME'");
            return None;
        }
        match compile_schema(&value) {
            Ok(validator) => Some(Schema { source, validator: Arc::new(validator) }),
            Err((inside, message)) => {
                self.fault(doc.find(&inside).at, path, format!("is no valid JSON Schema: at '{inside}': {message}"), HELP);
                None
            }
        }
    }
}

pub(crate) fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(80).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    shown
}

fn remote_reference(value: &Value) -> Option<&str> {
    match value {
        Value::Object(fields) => fields.iter().find_map(|(key, value)| match (key.as_str(), value) {
            ("$ref" | "$dynamicRef", Value::String(target)) if !target.starts_with('#') => Some(target.as_str()),
            // A value of `const`, `enum`, `default` or `examples` is data, not schema.
            ("const" | "enum" | "default" | "examples", _) => None,
            _ => remote_reference(value),
        }),
        Value::Array(items) => items.iter().find_map(remote_reference),
        _ => None,
    }
}

/// Compiles a schema with a pattern engine of bounded time. `Err` is the path inside and the message.
fn compile_schema(value: &Value) -> Result<jsonschema::Validator, (String, String)> {
    let patterns = jsonschema::PatternOptions::regex().size_limit(1 << 20).dfa_size_limit(1 << 20);
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .with_pattern_options(patterns)
        .build(value)
        .map_err(|e| (e.instance_path().to_string(), cut(&e.to_string())))
}
