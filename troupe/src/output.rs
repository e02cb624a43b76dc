//! Tables for people, JSON and YAML for programs.

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
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

/// Writes a line to standard output. A closed pipe is no error.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

fn print_rows(items: &[Value], columns: &[Column], cursor: Option<&str>) -> anyhow::Result<()> {
    if items.is_empty() {
        return line("nothing");
    }
    let mut table = new_table();
    table.set_header(columns.iter().map(|(title, _)| *title));
    for item in items {
        table.add_row(columns.iter().map(|(_, pointer)| cell(item.pointer(pointer))));
    }
    line(&table.to_string())?;
    match cursor {
        Some(cursor) if !cursor.is_empty() => line(&format!("more: --cursor {cursor}")),
        _ => Ok(()),
    }
}

fn print_fields(value: &Value, columns: &[Column]) -> anyhow::Result<()> {
    let mut table = new_table();
    for (title, pointer) in columns {
        let shown = value.pointer(pointer);
        if shown.is_some_and(|v| !v.is_null()) {
            table.add_row([(*title).to_owned(), cell(shown)]);
        }
    }
    line(&table.to_string())
}

fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        Some(Value::Object(map)) if map.values().all(Value::is_string) => {
            map.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect::<Vec<_>>().join(", ")
        }
        Some(other) => other.to_string(),
    }
}

/// Prints an error to standard error: code, message, each fault with its place, and what to do.
pub(crate) fn print_error(format: Format, error: &Error) {
    if format == Format::Json {
        let body = serde_json::json!({ "code": error.code.name(), "detail": error.message, "help": error.help, "errors": error.faults });
        eprintln!("{body}");
        return;
    }
    eprintln!("{} {}", paint("error", "31;1"), paint(error.code.name(), "1"));
    if error.faults.is_empty() {
        eprintln!("  {}", error.message);
    }
    for fault in &error.faults {
        let place = if fault.line > 0 { format!("{}:{}: ", fault.line, fault.column) } else { String::new() };
        let path = if fault.path.is_empty() || fault.message.contains(&fault.path) { String::new() } else { format!("{}: ", fault.path) };
        eprintln!("  {place}{path}{}", fault.message);
        if !fault.help.is_empty() && !fault.message.contains(&fault.help) {
            eprintln!("    {} {}", paint("help:", "36"), fault.help);
        }
    }
    if !error.help.is_empty() {
        eprintln!("  {} {}", paint("help:", "36"), error.help);
    }
}

/// Colours text when a person looks at standard error.
pub(crate) fn paint(text: &str, style: &str) -> String {
    let plain = !std::io::stderr().is_terminal() || std::env::var_os("NO_COLOR").is_some();
    if plain { text.to_owned() } else { format!("\u{1b}[{style}m{text}\u{1b}[0m") }
}
