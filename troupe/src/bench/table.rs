//! The one table that is printed.

use super::millis;
use crate::output::{self, Format};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};

/// Where a figure was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Column {
    Embedded,
    Distributed,
    /// With many ended runs in the store.
    EmbeddedKept,
    DistributedKept,
}

impl Column {
    const ALL: [Self; 4] = [Self::Embedded, Self::Distributed, Self::EmbeddedKept, Self::DistributedKept];

    const fn key(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Distributed => "distributed",
            Self::EmbeddedKept => "embedded_kept",
            Self::DistributedKept => "distributed_kept",
        }
    }

    /// Title and place.
    const fn shown(self) -> (&'static str, &'static str) {
        match self {
            Self::Embedded => ("EMBEDDED", "/embedded"),
            Self::Distributed => ("DISTRIBUTED", "/distributed"),
            Self::EmbeddedKept => ("EMBEDDED, MANY KEPT", "/embedded_kept"),
            Self::DistributedKept => ("DISTRIBUTED, MANY KEPT", "/distributed_kept"),
        }
    }
}

#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<(String, BTreeMap<Column, String>)>,
    /// The time of one durable write of each store.
    units: BTreeMap<Column, Duration>,
}

impl Table {
    /// Adds a figure, and says it at once: a measurement takes a while.
    pub(crate) fn row(&mut self, work: impl Into<String>, column: Column, figure: impl Into<String>) {
        let (work, figure) = (work.into(), figure.into());
        eprintln!("{work} ({}): {figure}", column.key());
        match self.rows.iter_mut().find(|(known, _)| *known == work) {
            Some((_, figures)) => {
                figures.insert(column, figure);
            }
            None => self.rows.push((work, BTreeMap::from([(column, figure)]))),
        }
    }

    /// The time of one durable write: what other times are compared with.
    pub(crate) fn unit(&mut self, column: Column, time: Duration) {
        self.units.insert(column, time);
    }

    /// A time as a multiple of one durable write, where that is known.
    pub(crate) fn ratio(&self, column: Column, time: Duration) -> String {
        let unit = self.units.get(&column).filter(|unit| !unit.is_zero());
        unit.map(|unit| format!(" ({:.1}x)", millis(time) / millis(*unit))).unwrap_or_default()
    }

    pub(crate) fn print(self, format: Format) -> anyhow::Result<()> {
        let used: Vec<Column> = Column::ALL.into_iter().filter(|c| self.rows.iter().any(|(_, f)| f.contains_key(c))).collect();
        let items: Vec<_> = self
            .rows
            .into_iter()
            .map(|(work, figures)| {
                let mut item = serde_json::Map::from_iter([("work".to_owned(), json!(work))]);
                item.extend(figures.into_iter().map(|(column, figure)| (column.key().to_owned(), json!(figure))));
                serde_json::Value::Object(item)
            })
            .collect();
        let mut columns = vec![("WORK", "/work")];
        columns.extend(used.into_iter().map(Column::shown));
        output::print(format, &json!({ "items": items }), &columns)?;
        match format {
            Format::Table => output::line(
                "In brackets: how many disk syncs in place (embedded) or PostgreSQL commits (distributed) fit into the time. Embedded: one process with its \
                 workers, SQLite in WAL mode with synchronous=FULL, queues in memory; memory is that of a separate `troupe dev`.",
            ),
            _ => Ok(()),
        }
    }
}
