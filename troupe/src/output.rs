//! Tables for people, JSON and YAML for programs.

use clap::ValueEnum;
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use troupe_domain::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Yaml,
}

/// A column: its title, and the JSON pointer of its value.
pub(crate) type Column = (&'static str, &'static str);

/// Prints one thing or a page of things.
pub(crate) fn print(format: Format, value: &Value, columns: &[Column]) -> anyhow::Result<()> {
    match format {
        Format::Json => line(&serde_json::to_string_pretty(value)?),
        Format::Yaml => line(serde_saphyr::to_string(value)?.trim_end()),
        Format::Table => match value.get("items").and_then(Value::as_array).or_else(|| value.as_array()) {
            Some(items) => print_rows(items, columns, value.get("next_cursor").and_then(Value::as_str)),
            None => print_fields(value, columns),
        },
    }
}

/// Prints a sentence for people, and a value for programs.
pub(crate) fn say(format: Format, text: &str, value: &Value) -> anyhow::Result<()> {
    if format == Format::Table { line(text) } else { print(format, value, &[]) }
}

/// Writes a line to standard output. A closed pipe is no error.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// Writes a line to standard error. Nobody is left to tell when that fails.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The same without an end of line.
pub(crate) fn ask(text: &str) {
    let mut out = std::io::stderr();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// Tells a person at a terminal what could come next; programs are not bothered.
pub(crate) fn hint(format: Format, text: &str) {
    if format == Format::Table && std::io::stderr().is_terminal() {
        tell(&paint(text, "2"));
    }
}

fn print_rows(items: &[Value], columns: &[Column], cursor: Option<&str>) -> anyhow::Result<()> {
    if items.is_empty() {
        return line("nothing");
    }
    let mut table = new_table();
    table.set_header(columns.iter().map(|(title, _)| *title));
    for item in items {
        table.add_row(columns.iter().map(|(_, pointer)| cell(pointer, item.pointer(pointer))));
    }
    line(&render(&mut table))?;
    match cursor {
        Some(cursor) if !cursor.is_empty() => line(&format!("more: --cursor {cursor}")),
        _ => Ok(()),
    }
}

fn print_fields(value: &Value, columns: &[Column]) -> anyhow::Result<()> {
    let mut table = new_table();
    for (title, pointer) in columns {
        let shown = value.pointer(pointer);
        if !text(pointer, shown).is_empty() {
            table.add_row([Cell::new(title), cell(pointer, shown)]);
        }
    }
    if table.is_empty() { Ok(()) } else { line(&render(&mut table)) }
}

fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table
}

/// Two spaces between columns, none at the ends of lines.
fn render(table: &mut Table) -> String {
    table.discover_columns();
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn cell(pointer: &str, value: Option<&Value>) -> Cell {
    let text = text(pointer, value);
    let color = match pointer.rsplit('/').next() {
        Some("status" | "state" | "health" | "result") => color_of(&text),
        Some("error") => Some(Color::Red),
        _ => None,
    };
    match color.filter(|_| std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()) {
        Some(color) => Cell::new(text).fg(color),
        None => Cell::new(text),
    }
}

fn color_of(status: &str) -> Option<Color> {
    match status {
        "succeeded" | "approved" | "answered" | "active" | "healthy" | "ok" => Some(Color::Green),
        "failed" | "rejected" | "expired" | "quarantined" | "unhealthy" | "failing" => Some(Color::Red),
        "waiting" | "pending" | "paused" | "retrying" | "draining" | "cancelled" | "withdrawn" => Some(Color::Yellow),
        "running" | "queued" => Some(Color::Cyan),
        _ => None,
    }
}

/// What a person reads: times to the second (of history to the millisecond), lists of words with commas, the rest as JSON.
fn text(pointer: &str, value: Option<&Value>) -> String {
    let last = pointer.rsplit('/').next().unwrap_or(pointer);
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) if last == "at" || last.ends_with("_at") || matches!(last, "oldest" | "until" | "since") => {
            time(text, if last == "at" { 23 } else { 19 })
        }
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if last == "attempt" && number.as_u64() == Some(0) => String::new(),
        Some(other) if matches!(last, "output" | "value" | "payload") => other.to_string(),
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        Some(Value::Object(map)) if map.values().all(Value::is_string) => {
            map.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect::<Vec<_>>().join(", ")
        }
        Some(other) => other.to_string(),
    }
}

/// `2026-03-14T09:20:14.787123Z` as `2026-03-14 09:20:14Z`.
fn time(text: &str, length: usize) -> String {
    match (text.get(..10), text.get(11..length.min(text.len().saturating_sub(1)))) {
        (Some(day), Some(clock)) if text.ends_with('Z') => format!("{day} {clock}Z"),
        _ => text.to_owned(),
    }
}

/// Prints an error to standard error: code, message, each fault with its place, and what to do.
pub(crate) fn print_error(format: Format, error: &Error) {
    if format != Format::Table {
        let body = json!({ "code": error.code.name(), "detail": error.message, "help": error.help, "errors": error.faults });
        let yaml = (format == Format::Yaml).then(|| serde_saphyr::to_string(&body).ok()).flatten();
        return tell(yaml.as_deref().map_or_else(|| body.to_string(), |text| text.trim_end().to_owned()).as_str());
    }
    tell(&format!("{} {}", paint("error", "31;1"), paint(error.code.name(), "1")));
    if error.faults.is_empty() {
        tell(&format!("  {}", error.message));
    }
    for fault in &error.faults {
        tell(&format!("  {}", fault_line(fault)));
        if !fault.help.is_empty() && !fault.message.contains(&fault.help) {
            tell(&format!("    {} {}", paint("help:", "36"), fault.help));
        }
    }
    if !error.help.is_empty() {
        tell(&format!("  {} {}", paint("help:", "36"), error.help));
    }
}

fn fault_line(fault: &troupe_domain::Fault) -> String {
    let place = if fault.line > 0 { format!("{}:{}: ", fault.line, fault.column) } else { String::new() };
    let path = if fault.path.is_empty() || fault.message.contains(&fault.path) { String::new() } else { format!("{}: ", fault.path) };
    format!("{place}{path}{}", fault.message)
}

/// Colours text when a person looks at standard error.
pub(crate) fn paint(text: &str, style: &str) -> String {
    let plain = !std::io::stderr().is_terminal() || std::env::var_os("NO_COLOR").is_some();
    if plain { text.to_owned() } else { format!("\u{1b}[{style}m{text}\u{1b}[0m") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_times_and_lists() {
        let shown = |pointer: &str, value: Value| text(pointer, Some(&value));
        assert_eq!(shown("/created_at", json!("2026-03-14T09:20:14.787123Z")), "2026-03-14 09:20:14Z");
        assert_eq!(shown("/created_at", json!("2026-03-14T09:20:14Z")), "2026-03-14 09:20:14Z");
        assert_eq!(shown("/at", json!("2026-03-14T09:20:14.787123Z")), "2026-03-14 09:20:14.787Z");
        assert_eq!(shown("/at", json!("2026-03-14T09:20:14Z")), "2026-03-14 09:20:14Z");
        assert_eq!(shown("/output", json!({"at": "x"})), r#"{"at":"x"}"#);
        assert_eq!(shown("/labels", json!({"team": "sre", "tier": "1"})), "team=sre, tier=1");
        assert_eq!(shown("/capabilities", json!(["a", "b"])), "a, b");
        assert_eq!(shown("/attempt", json!(0)), "");
        assert_eq!(shown("/attempt", json!(2)), "2");
    }

    #[test]
    fn lines_of_tables_have_no_blanks_at_the_end() {
        let mut table = new_table();
        table.set_header(["A", "B"]);
        table.add_row(["one", ""]);
        assert_eq!(render(&mut table), "A    B\none");
    }
}
