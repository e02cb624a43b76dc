//! Writes the log that the example analyses: two hours of a small shop's services, with faults planted in it.
//!
//! `generate-log OUT_DIR [SEED]` writes `incident.log`, `input.json` (the run's input) and `faults.json` (what was planted, so that
//! the report can be checked). The same seed gives the same files.

mod faults;
mod traffic;

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::json;
use std::{fmt::Write as _, fs, path::PathBuf};

/// Ordinary lines; the faults come on top.
const LINES: usize = 22_000;
const HOURS: i64 = 2;

/// One line of the log, to be put in order of time.
struct Line {
    at: DateTime<Utc>,
    level: &'static str,
    service: &'static str,
    text: String,
}

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let out = PathBuf::from(args.next().context("usage: generate-log OUT_DIR [SEED]")?);
    let seed = args.next().map_or(Ok(7), |text| text.parse()).context("the seed is a whole number")?;
    let mut rng = StdRng::seed_from_u64(seed);
    let start: DateTime<Utc> = "2026-03-14T09:00:00Z".parse().context("a constant date")?;
    let end = start + TimeDelta::hours(HOURS);

    let mut lines = traffic::ordinary(&mut rng, start, end, LINES);
    let planted = faults::plant(&mut rng, start, &mut lines);
    lines.sort_by_key(|line| line.at);

    let mut log = String::new();
    for line in &lines {
        writeln!(log, "{} {:<5} {:<9} {}", line.at.format("%Y-%m-%dT%H:%M:%S%.3fZ"), line.level, line.service, line.text)?;
    }
    fs::create_dir_all(&out)?;
    fs::write(out.join("incident.log"), &log)?;
    fs::write(out.join("input.json"), json!({ "service": "shop", "log": log }).to_string())?;
    fs::write(out.join("faults.json"), serde_json::to_string_pretty(&planted)?)?;
    println!("{} lines with {} planted faults in {}", lines.len(), planted.len(), out.display());
    Ok(())
}
