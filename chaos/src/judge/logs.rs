//! The processes' logs: nobody panicked, and what they called an error.

use super::Wrong;
use std::{collections::BTreeMap, fs, path::Path};

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub wrong: Vec<Wrong>,
    /// How often each process said which error.
    pub errors: BTreeMap<String, u64>,
}

/// Reads every log of a folder.
pub fn read(folder: &Path) -> anyhow::Result<Found> {
    let mut found = Found::default();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read(&path)?;
        for line in String::from_utf8_lossy(&text).lines() {
            if line.contains("panicked") {
                found.wrong.push(Wrong::new("", format!("{name} panicked: {line}")));
            }
            if let Some(error) = error(line) {
                *found.errors.entry(format!("{}: {error}", service(&name))).or_default() += 1;
            }
        }
    }
    Ok(found)
}

fn service(name: &str) -> &str {
    troupe_testkit::cluster::service_of(name)
}

/// The constant part of a line that is an error.
fn error(line: &str) -> Option<String> {
    let plain = without_colours(line);
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(&plain) {
        let is_error = json["level"].as_str().is_some_and(|level| level.eq_ignore_ascii_case("error"));
        let message = json["fields"]["message"].as_str().or_else(|| json["message"].as_str()).unwrap_or("no message");
        return is_error.then(|| message.to_owned());
    }
    let (_, rest) = plain.split_once(" ERROR ")?;
    // What follows are fields.
    let words: Vec<&str> = rest.split_whitespace().take_while(|word| !word.contains('=')).collect();
    Some(words.join(" "))
}

fn without_colours(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_what_is_constant_in_them() {
        let line = "\u{1b}[2m2026-11-21T10:00:00Z\u{1b}[0m \u{1b}[31mERROR\u{1b}[0m troupe_executor: a run is lost run.id=1 seq=2";
        assert_eq!(error(line).as_deref(), Some("troupe_executor: a run is lost"));
        assert_eq!(error(r#"{"level":"ERROR","fields":{"message":"a run is lost"}}"#).as_deref(), Some("a run is lost"));
        assert_eq!(error("2026-11-21T10:00:00Z  INFO troupe: all is well"), None);
    }
}
