//! Files that a user names: agents and workflows, and JSON arguments.

use anyhow::Context;
use std::{
    fs,
    path::{Path, PathBuf},
};
use troupe_domain::{Error, Fault, Json};

/// Folders beside a workflow file whose agents and workflows belong to it.
const BESIDE: [&str; 2] = ["agents", "workflows"];

/// What a file declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Agent,
    Workflow,
}

/// An agent or workflow file.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub path: PathBuf,
    pub kind: Kind,
    pub text: String,
}

/// Reads a file and sees what it declares by its top-level key.
pub(crate) fn read(path: &Path) -> Result<Source, Error> {
    let shown = path.display();
    let bytes = fs::read(path).map_err(|e| {
        Error::invalid(format!("cannot read {shown}: {e}"))
            .with_help("check the path; `troupe new workflow NAME` writes a file to start from")
    })?;
    let text = String::from_utf8(bytes)
        .map_err(|e| Error::invalid(format!("{shown} is not UTF-8: bad byte at offset {}", e.utf8_error().valid_up_to())))?;
    let kind = kind_of(&text).ok_or_else(|| {
        Error::invalid(format!("{shown} declares neither `workflow:` nor `agent:` at its top"))
            .with_help("begin it with `workflow: NAME` or `agent: NAME`")
    })?;
    Ok(Source { path: path.to_owned(), kind, text })
}

fn kind_of(text: &str) -> Option<Kind> {
    let starts = |key: &str| {
        text.lines().any(|line| {
            let line = line.trim_start_matches(['{', ' ']).trim_start_matches('"');
            line.strip_prefix(key).is_some_and(|rest| rest.trim_start_matches('"').trim_start().starts_with(':'))
        })
    };
    let top = |key: &str| text.lines().any(|line| line.starts_with(&format!("{key}:")));
    match (top("workflow"), top("agent")) {
        (true, _) => Some(Kind::Workflow),
        (_, true) => Some(Kind::Agent),
        _ if starts("workflow") => Some(Kind::Workflow),
        _ if starts("agent") => Some(Kind::Agent),
        _ => None,
    }
}

/// The files that are meant: files themselves, and those of directories (with their `agents` and `workflows` folders). Agents come first.
/// A directory that holds none is refused: it is not what was meant.
pub(crate) fn collect(paths: &[PathBuf]) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    for path in paths {
        if path.is_dir() {
            let before = sources.len();
            for folder in std::iter::once(path.clone()).chain(BESIDE.iter().map(|name| path.join(name))) {
                sources.extend(read_folder(&folder)?);
            }
            if sources.len() == before {
                return Err(Error::invalid(format!("there is no agent and no workflow in {}", path.display()))
                    .with_help("name a folder with .yaml or .json files, or with the folders `agents` and `workflows`"));
            }
        } else {
            sources.push(read(path)?);
        }
    }
    sources.sort_by(|a, b| (a.kind, &a.path).cmp(&(b.kind, &b.path)));
    sources.dedup_by(|a, b| a.path == b.path);
    Ok(sources)
}

/// A workflow file and what lies beside it in `agents` and `workflows`; the file itself comes last.
pub(crate) fn with_companions(file: &Path) -> Result<Vec<Source>, Error> {
    let parent = file.parent().unwrap_or(Path::new("."));
    let mut sources = Vec::new();
    for name in BESIDE {
        sources.extend(read_folder(&parent.join(name))?);
    }
    sources.sort_by(|a, b| (a.kind, &a.path).cmp(&(b.kind, &b.path)));
    sources.push(read(file)?);
    Ok(sources)
}

/// YAML and JSON files of a folder that declare something; others are none of our business.
fn read_folder(folder: &Path) -> Result<Vec<Source>, Error> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| is_source(path)).collect();
    paths.sort();
    Ok(paths.iter().filter_map(|path| read(path).ok()).collect())
}

fn is_source(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|e| matches!(e.to_str(), Some("yaml" | "yml" | "json")))
}

/// A JSON argument: the text itself, or `@FILE`.
pub(crate) fn json_argument(text: &str, name: &str) -> anyhow::Result<serde_json::Value> {
    let bytes = match text.strip_prefix('@') {
        Some(file) => {
            fs::read(file).with_context(|| format!("--{name}: cannot read {file}")).map_err(|e| Error::invalid(format!("{e:#}")))?
        }
        None => text.as_bytes().to_vec(),
    };
    let value = Json::parse(&bytes, name)
        .map_err(|e| e.with_help(format!("give JSON in quotes, --{name} '{{\"key\": 1}}', or a file, --{name} @FILE")))?;
    Ok(value.to_value())
}

/// Names the file in front of each fault's place: `FILE:LINE:COLUMN: PATH: MESSAGE`, which editors can jump to.
pub(crate) fn name_file(error: Error, path: &Path) -> Error {
    let shown = path.display();
    let faults = error.faults.iter().map(|f| {
        let place = if f.line > 0 { format!("{shown}:{}:{}: ", f.line, f.column) } else { format!("{shown}: ") };
        let path = if f.path.is_empty() || f.message.contains(&f.path) { String::new() } else { format!("{}: ", f.path) };
        Fault { message: format!("{place}{path}{}", f.message), line: 0, column: 0, ..f.clone() }
    });
    let faults: Vec<Fault> = faults.collect();
    let message = if faults.is_empty() { format!("{shown}: {}", error.message) } else { error.message.clone() };
    Error { message, faults, ..error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_tells_what_it_declares() {
        assert_eq!(kind_of("# x\nworkflow: a\nsteps:\n  b: { agent: c }\n"), Some(Kind::Workflow));
        assert_eq!(kind_of("agent: a\nkind: code\n"), Some(Kind::Agent));
        assert_eq!(kind_of(r#"{"workflow": "a"}"#), Some(Kind::Workflow));
        assert_eq!(kind_of("{\n  \"agent\": \"a\"\n}"), Some(Kind::Agent));
        assert_eq!(kind_of("a: 1\n"), None);
    }
}
