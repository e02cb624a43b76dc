//! Reads typed values out of a document and collects what is wrong.

mod expressions;
mod schemas;

use super::{
    document::{Doc, Key, Node, Place, place},
    nearest,
};
use crate::Limits;
use serde_json::Number;
use std::time::Duration;
use troupe_domain::{Fault, id::check_name, parse_span};

/// More faults than that help nobody.
const MAX_FAULTS: usize = 100;

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
}

pub(crate) fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(80).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    shown
}
