//! The one table that is printed.

use crate::output::{self, Format};
use serde_json::{Value, json};

#[derive(Default)]
pub(crate) struct Table(Vec<Value>);

impl Table {
    /// Adds a row, and says it at once: a measurement takes a while.
    pub(crate) fn row(&mut self, work: impl Into<String>, figure: impl Into<String>, note: impl Into<String>) {
        let (work, figure, note) = (work.into(), figure.into(), note.into());
        eprintln!("{work}: {figure} {note}");
        self.0.push(json!({ "work": work, "figure": figure, "note": note }));
    }

    pub(crate) fn print(self, format: Format) -> anyhow::Result<()> {
        output::print(format, &json!({ "items": self.0 }), &[("WORK", "/work"), ("FIGURE", "/figure"), ("NOTE", "/note")])
    }
}
