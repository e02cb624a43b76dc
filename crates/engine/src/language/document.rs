//! YAML or JSON with the place of every value.

use crate::Limits;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr::Spanned;
use std::fmt;
use troupe_domain::{Fault, json::MAX_NESTING};

/// Line and column from 1; zeros where no text is behind a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub line: u32,
    pub column: u32,
}

#[derive(Debug)]
pub(crate) struct Doc {
    pub at: Place,
    pub value: Node,
}

#[derive(Debug)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Doc>),
    Map(Vec<(Key, Doc)>),
}

#[derive(Debug)]
pub(crate) struct Key {
    pub text: String,
    pub at: Place,
}

impl Doc {
    /// Reads a source. The one fault is a syntax error or a passed bound.
    pub(crate) fn read(source: &str, limits: &Limits) -> Result<Self, Fault> {
        if source.len() > limits.max_source_bytes {
            let (have, most) = (source.len(), limits.max_source_bytes);
            let message = format!("the file has {have} bytes, more than {most} (setting max_source_bytes)");
            return Err(place(Fault::at("", message).help("split it into several workflows"), Place { line: 1, column: 1 }));
        }
        // The parser recurses several frames for each level.
        let read = crate::stack::with_large_stack(|| Self::read_yaml(source));
        read.unwrap_or_else(|| {
            Err(place(Fault::at("", "the file cannot be read as YAML").help("write it more simply"), Place { line: 1, column: 1 }))
        })
    }

    fn read_yaml(source: &str) -> Result<Self, Fault> {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! { max_depth: MAX_NESTING, max_documents: 1, max_nodes: 200_000, max_anchors: 1_000, max_aliases: 1_000 },
            with_snippet: false,
            strict_booleans: true,
        };
        serde_saphyr::from_str_with_options(source, options).map_err(|error| syntax_fault(&error, source))
    }

    /// Puts all keys into the order of the canonical form, so that what was read from a file and what was read from the store are
    /// the same definition, with the same indices of steps.
    pub(crate) fn sort(&mut self) {
        match &mut self.value {
            Node::List(items) => items.iter_mut().for_each(Doc::sort),
            Node::Map(fields) => {
                fields.sort_by(|(one, _), (other, _)| one.text.cmp(&other.text));
                fields.iter_mut().for_each(|(_, value)| value.sort());
            }
            _ => {}
        }
    }

    /// The document of a stored value, without places. Depth is bounded by whoever parsed it.
    pub(crate) fn from_json(value: &Value) -> Self {
        let value = match value {
            Value::Null => Node::Null,
            Value::Bool(b) => Node::Bool(*b),
            Value::Number(n) => Node::Number(n.clone()),
            Value::String(text) => Node::Text(text.clone()),
            Value::Array(items) => Node::List(items.iter().map(Doc::from_json).collect()),
            Value::Object(fields) => {
                let key = |text: &String| Key { text: text.clone(), at: Place::default() };
                Node::Map(fields.iter().map(|(name, value)| (key(name), Doc::from_json(value))).collect())
            }
        };
        Self { at: Place::default(), value }
    }

    pub(crate) fn to_json(&self) -> Value {
        match &self.value {
            Node::Null => Value::Null,
            Node::Bool(b) => Value::Bool(*b),
            Node::Number(n) => Value::Number(n.clone()),
            Node::Text(text) => Value::String(text.clone()),
            Node::List(items) => Value::Array(items.iter().map(Doc::to_json).collect()),
            Node::Map(fields) => Value::Object(fields.iter().map(|(key, value)| (key.text.clone(), value.to_json())).collect()),
        }
    }

    /// What it is, for messages about wrong types.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Node::Null => "nothing",
            Node::Bool(_) => "true or false",
            Node::Number(_) => "a number",
            Node::Text(_) => "a text",
            Node::List(_) => "a list",
            Node::Map(_) => "a mapping",
        }
    }

    /// The value behind a path like `/lines/0`, or the nearest there is above it.
    pub(crate) fn find(&self, path: &str) -> &Self {
        let mut found = self;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let next = match &found.value {
                Node::List(items) => part.parse::<usize>().ok().and_then(|i| items.get(i)),
                Node::Map(fields) => fields.iter().find(|(key, _)| key.text == part).map(|(_, value)| value),
                _ => None,
            };
            let Some(next) = next else { break };
            found = next;
        }
        found
    }
}

pub(crate) fn place(fault: Fault, at: Place) -> Fault {
    Fault { line: at.line, column: at.column, ..fault }
}

fn syntax_fault(error: &serde_saphyr::Error, source: &str) -> Fault {
    let at = error.location().map_or(Place { line: 1, column: 1 }, |l| from(&l));
    let text = error.without_snippet().to_string();
    let line = source.lines().nth(at.line.saturating_sub(1) as usize).unwrap_or_default();
    let (message, help) = explain(&text, line);
    place(Fault::at("", format!("the file cannot be read as YAML: {message}")).help(help), at)
}

/// The parser's message in our words, and what to do.
fn explain(text: &str, line: &str) -> (String, &'static str) {
    const LESS: &str = "write less, or less deep: nesting, aliases and the number of values are bounded";
    let told = |message: &str, help| (message.to_owned(), help);
    let indent = line.chars().take_while(|c| c.is_whitespace());
    if text.contains("Documents {") {
        return told("it holds more than one document", "keep one workflow or agent in a file, and remove the line '---'");
    }
    if text.contains("Depth {") || text.contains("nesting") || text.contains("recursion") {
        return (format!("values nest deeper than {MAX_NESTING} levels"), LESS);
    }
    if text.contains("budget") || text.contains("alias") {
        return told("it is too large once its aliases are filled in, or has too many values", LESS);
    }
    // The place is told by the fault's own fields.
    let message = text.lines().next().unwrap_or_default().split(" at line ").next().unwrap_or_default();
    let message = message.split(", set DuplicateKeyPolicy").next().unwrap_or_default();
    let message: String = message.chars().take(300).collect();
    let help = if message.contains("duplicate") {
        "every name is there once: rename or remove one of the two"
    } else if indent.clone().any(|c| c == '\t') {
        "indent with spaces: YAML does not allow tabs there"
    } else {
        "check the indentation, the quotes and the brackets near this place"
    };
    (message, help)
}

fn from(location: &serde_saphyr::Location) -> Place {
    let n = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Place { line: n(location.line()), column: n(location.column()) }
}

impl<'de> Deserialize<'de> for Doc {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Node>::deserialize(deserializer)?;
        Ok(Self { at: from(&spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has too")
    }
    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }
    fn visit_bool<E>(self, b: bool) -> Result<Node, E> {
        Ok(Node::Bool(b))
    }
    fn visit_i64<E>(self, n: i64) -> Result<Node, E> {
        Ok(Node::Number(n.into()))
    }
    fn visit_u64<E>(self, n: u64) -> Result<Node, E> {
        Ok(Node::Number(n.into()))
    }
    fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<Node, E> {
        Number::from_f64(n).map(Node::Number).ok_or_else(|| E::custom("numbers must be finite"))
    }
    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields: Vec<(Key, Doc)> = Vec::new();
        let mut names = std::collections::HashSet::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let value = map.next_value()?;
            // The parser refuses equal keys; this one refuses keys that become equal as text (`1` and `"1"`).
            if !names.insert(key.value.clone()) {
                return Err(A::Error::custom(format!("duplicate key '{}'", key.value)));
            }
            fields.push((Key { at: from(&key.referenced), text: key.value }, value));
        }
        Ok(Node::Map(fields))
    }
}
