//! `generate-log OUT_DIR [SEED]` writes `incident.log`, `input.json` (the run's input) and `faults.json` (what was planted, so that
//! the report can be checked). The same seed gives the same files.

use anyhow::Context;
use serde_json::json;
use std::{fs, path::PathBuf};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let out = args.next().filter(|arg| !arg.starts_with('-')).context("usage: generate-log OUT_DIR [SEED]")?;
    let out = PathBuf::from(out);
    let seed = args.next().map_or(Ok(7), |text| text.parse()).context("the seed is a whole number")?;
    let generated = incident_triage::generate(seed)?;
    fs::create_dir_all(&out)?;
    fs::write(out.join("incident.log"), &generated.log)?;
    fs::write(out.join("input.json"), json!({ "service": "shop", "log": generated.log }).to_string())?;
    fs::write(out.join("faults.json"), serde_json::to_string_pretty(&generated.faults)?)?;
    println!("{} lines with {} planted faults in {}", generated.lines, generated.faults.len(), out.display());
    Ok(())
}
