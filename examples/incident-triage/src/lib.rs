//! The log that the example analyses: two hours of a small shop's services, with faults planted in it.

mod faults;
mod traffic;

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::Value;
use std::fmt::Write as _;

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

/// A log, and what was planted in it.
pub struct Generated {
    pub log: String,
    pub lines: usize,
    /// Each fault's id, service, cause, number of lines and time.
    pub faults: Vec<Value>,
}

/// The same seed gives the same log.
pub fn generate(seed: u64) -> anyhow::Result<Generated> {
    let mut rng = StdRng::seed_from_u64(seed);
    let start: DateTime<Utc> = "2026-03-14T09:00:00Z".parse().context("a constant date")?;
    let end = start + TimeDelta::hours(HOURS);
    let mut lines = traffic::ordinary(&mut rng, start, end, LINES);
    let faults = faults::plant(&mut rng, start, &mut lines);
    lines.sort_by_key(|line| line.at);
    let mut log = String::new();
    for line in &lines {
        writeln!(log, "{} {:<5} {:<9} {}", line.at.format("%Y-%m-%dT%H:%M:%S%.3fZ"), line.level, line.service, line.text)?;
    }
    Ok(Generated { log, lines: lines.len(), faults })
}
