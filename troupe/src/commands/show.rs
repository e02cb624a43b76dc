//! How a run is shown to a person: its fields, its steps, what it waits for, its output.

use crate::output::{self, Column, Format};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

/// An output that is longer has a place of its own below the tables.
const SHORT: usize = 100;

pub(super) const RUN_COLUMNS: [Column; 6] = [
    ("RUN", "/run_id"),
    ("WORKFLOW", "/workflow"),
    ("STATUS", "/status"),
    ("CREATED", "/created_at"),
    ("ENDED", "/ended_at"),
    ("LABELS", "/labels"),
];
pub(super) const WAIT_COLUMNS: [Column; 5] =
    [("STEP", "/step"), ("WAITS ON", "/kind"), ("DETAIL", "/detail"), ("UNTIL", "/until"), ("REFERENCE", "/reference")];
const RUN_FIELDS: [Column; 13] = [
    ("run", "/run_id"),
    ("workflow", "/workflow"),
    ("version", "/version"),
    ("status", "/status"),
    ("created", "/created_at"),
    ("ended", "/ended_at"),
    ("took", "/took"),
    ("labels", "/labels"),
    ("parent", "/parent_run_id"),
    ("checkpoints", "/seq"),
    ("error", "/error/code"),
    ("because", "/error/message"),
    ("output", "/output"),
];
const STEP_COLUMNS: [Column; 7] = [
    ("STEP", "/path"),
    ("KIND", "/kind"),
    ("STATUS", "/status"),
    ("TOOK", "/took"),
    ("ATTEMPT", "/attempt"),
    ("AGENT", "/agent"),
    ("ERROR", "/why"),
];

/// A run's fields only.
pub(super) fn run_fields(format: Format, run: &Value) -> anyhow::Result<()> {
    if format != Format::Table {
        return output::print(format, run, &[]);
    }
    let mut run = run.clone();
    measure(&mut run);
    let long = run.get("output").filter(|output| output.to_string().len() > SHORT).cloned();
    if long.is_some() {
        run["output"] = json!("below");
    }
    output::print(format, &run, &RUN_FIELDS)
}

/// A run in full.
pub(super) fn run(format: Format, run: &Value) -> anyhow::Result<()> {
    run_fields(format, run)?;
    if format != Format::Table {
        return Ok(());
    }
    let some = |key: &str| run.get(key).filter(|v| v.as_array().is_some_and(|v| !v.is_empty())).cloned();
    if let Some(mut steps) = some("steps") {
        for step in steps.as_array_mut().into_iter().flatten() {
            measure(step);
            let failure = (step["error"]["code"].as_str().unwrap_or_default(), step["error"]["message"].as_str().unwrap_or_default());
            if !failure.0.is_empty() {
                step["why"] = json!(format!("{}: {}", failure.0, failure.1));
            }
        }
        output::line("")?;
        output::print(format, &steps, &STEP_COLUMNS)?;
    }
    if let Some(waits) = some("waiting_for") {
        output::line("")?;
        output::print(format, &waits, &WAIT_COLUMNS)?;
    }
    match run.get("output") {
        Some(output) if output.to_string().len() > SHORT => output::line(&format!("\noutput:\n{}", pretty(output))),
        _ => Ok(()),
    }
}

/// Text as it is, anything else as indented JSON.
pub(super) fn pretty(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

/// Adds `took`, the time between start and end, where both are known.
fn measure(thing: &mut Value) {
    let at = |key: &str| thing[key].as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok());
    let took = at("started_at").or_else(|| at("created_at")).zip(at("ended_at")).and_then(|(from, to)| (to - from).to_std().ok());
    if let (Some(took), Some(map)) = (took, thing.as_object_mut()) {
        map.insert("took".to_owned(), json!(span(took)));
    }
}

/// `870 µs`, `12 ms`, `3.4 s`, `2m 05s`, `3h 07m`.
fn span(time: std::time::Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if time.as_millis() == 0 => format!("{} µs", time.as_micros()),
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn spans_are_short() {
        let spans = [870, 12_000, 3_420_000, 125_000_000, 11_220_000_000].map(|micros| span(Duration::from_micros(micros)));
        assert_eq!(spans, ["870 µs", "12 ms", "3.4 s", "2m 05s", "3h 07m"]);
    }

    #[test]
    fn what_has_not_ended_has_no_duration() {
        let mut step = json!({ "started_at": "2026-03-14T09:20:14Z" });
        measure(&mut step);
        assert_eq!(step.get("took"), None);
        step["ended_at"] = json!("2026-03-14T09:20:14.5Z");
        measure(&mut step);
        assert_eq!(step["took"], "500 ms");
    }
}
