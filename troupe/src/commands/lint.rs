//! `troupe lint`: all faults of all files, with line and column.

use crate::{
    cli::Globals,
    output::{self, Format},
    sources::{self, Kind, Source},
};
use serde_json::json;
use std::{path::PathBuf, process::ExitCode};
use troupe_domain::{Code, Error, Fault};
use troupe_engine::Limits;

pub(crate) fn execute(globals: &Globals, files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let limits = crate::settings::load(globals, crate::settings::Flags::default())?.value.executor.limits;
    let sources = sources::collect(files)?;
    let faults: Vec<(&Source, Fault)> =
        sources.iter().flat_map(|source| check(source, &limits).into_iter().map(move |fault| (source, fault))).collect();
    if globals.output != Format::Table {
        let items: Vec<_> = faults.iter().map(|(source, fault)| item(source, fault)).collect();
        output::print(globals.output, &json!({ "files": sources.len(), "items": items }), &[])?;
        return Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(Code::InvalidArgument.exit()) });
    }
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    if faults.is_empty() {
        output::line(&format!("{}, no faults", count(sources.len(), "file")))?;
        return Ok(ExitCode::SUCCESS);
    }
    let message = format!("{} in {}", count(faults.len(), "fault"), count(sources.len(), "file"));
    let faults =
        faults.into_iter().flat_map(|(source, fault)| sources::name_file(Error::invalid("").with_faults(vec![fault]), &source.path).faults);
    Err(Error::invalid(message).with_faults(faults.collect()).into())
}

fn item(source: &Source, fault: &Fault) -> serde_json::Value {
    json!({
        "file": source.path, "line": fault.line, "column": fault.column, "path": fault.path, "message": fault.message, "help": fault.help
    })
}

fn check(source: &Source, limits: &Limits) -> Vec<Fault> {
    match source.kind {
        Kind::Agent => troupe_engine::agent::parse(&source.text, limits).err().unwrap_or_default(),
        Kind::Workflow => troupe_engine::language::parse(&source.text, limits).err().unwrap_or_default(),
    }
}
