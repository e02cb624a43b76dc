//! `troupe new`: a file to start from, which runs as it is.

use crate::{
    cli::{Globals, NewKind},
    output,
};
use serde_json::json;
use std::{fs, path::Path};
use troupe_domain::{Error, id::check_name};

const AGENT: &str = include_str!("new/agent.yaml");
const WORKFLOW: &str = include_str!("new/workflow.yaml");
const WORKER: &str = include_str!("new/worker.rs.txt");
const WORKER_CARGO: &str = include_str!("new/worker.toml");

pub(crate) fn execute(globals: &Globals, kind: NewKind, name: &str) -> anyhow::Result<()> {
    check_name(name).map_err(|message| Error::invalid_field("name", message))?;
    let fill = |text: &str| text.replace("NAME", name);
    let files = match kind {
        NewKind::Agent => vec![(format!("{name}.yaml"), fill(AGENT))],
        NewKind::Workflow => vec![(format!("{name}.yaml"), fill(WORKFLOW))],
        NewKind::Worker => vec![(format!("{name}/Cargo.toml"), fill(WORKER_CARGO)), (format!("{name}/src/main.rs"), fill(WORKER))],
    };
    let next = match kind {
        NewKind::Agent => {
            format!("try it: troupe apply {name}.yaml && troupe tasks submit --agent {name} --input '{{\"name\": \"Ada\"}}' --wait 30s")
        }
        NewKind::Workflow => format!("run it: troupe run {name}.yaml --input '{{\"name\": \"Ada\"}}' --follow"),
        NewKind::Worker => format!("set the path of troupe-client in {name}/Cargo.toml, then: cargo run --manifest-path {name}/Cargo.toml"),
    };
    for (path, text) in &files {
        write(path, text)?;
    }
    let wrote: Vec<_> = files.iter().map(|(path, _)| path.as_str()).collect();
    let lines: String = wrote.iter().map(|path| format!("wrote {path}\n")).collect();
    output::say(globals.output, &format!("{lines}{next}"), &json!({ "wrote": wrote }))
}

/// Never overwrites.
fn write(path: &str, text: &str) -> anyhow::Result<()> {
    if Path::new(path).exists() {
        return Err(Error::conflict(format!("{path} exists already")).with_help("choose another name, or remove it").into());
    }
    if let Some(folder) = Path::new(path).parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)?;
    Ok(())
}
