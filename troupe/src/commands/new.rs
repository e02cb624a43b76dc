//! `troupe new`: a file to start from, which runs as it is.

use crate::{cli::NewKind, output};
use std::{fs, path::Path};
use troupe_domain::{Error, id::check_name};

const AGENT: &str = include_str!("new/agent.yaml");
const WORKFLOW: &str = include_str!("new/workflow.yaml");
const WORKER: &str = include_str!("new/worker.rs.txt");
const WORKER_CARGO: &str = include_str!("new/worker.toml");

pub(crate) fn execute(kind: NewKind, name: &str) -> anyhow::Result<()> {
    check_name(name).map_err(|message| Error::invalid_field("name", message))?;
    let fill = |text: &str| text.replace("NAME", name);
    match kind {
        NewKind::Agent => write(&format!("{name}.yaml"), &fill(AGENT))?,
        NewKind::Workflow => {
            write(&format!("{name}.yaml"), &fill(WORKFLOW))?;
            output::line(&format!("run it: troupe run {name}.yaml --input '{{\"name\": \"Ada\"}}' --follow"))?;
        }
        NewKind::Worker => {
            write(&format!("{name}/Cargo.toml"), &fill(WORKER_CARGO))?;
            write(&format!("{name}/src/main.rs"), &fill(WORKER))?;
        }
    }
    Ok(())
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
    output::line(&format!("wrote {path}"))
}
