//! `check-report FAULTS REPORT`: has the report found every fault that was planted? Exits with 1 when one is missing.

use anyhow::Context;
use serde_json::Value;
use std::{fs, process::ExitCode};

fn main() -> anyhow::Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: check-report FAULTS REPORT";
    let (faults, report) = (args.next().context(usage)?, args.next().context(usage)?);
    let faults: Vec<Value> = serde_json::from_str(&fs::read_to_string(&faults).with_context(|| format!("cannot read {faults}"))?)?;
    let report = fs::read_to_string(&report).with_context(|| format!("cannot read {report}"))?.to_lowercase();
    let mut missing = 0;
    for fault in &faults {
        let (cause, service) = (fault["cause"].as_str().unwrap_or_default(), fault["service"].as_str().unwrap_or_default());
        let found = report.lines().any(|line| line.starts_with("### ") && line.contains(cause) && line.contains(service));
        missing += usize::from(!found);
        println!("  {} {service}: {cause}", if found { "found  " } else { "MISSING" });
    }
    println!("{} of {} planted faults found", faults.len() - missing, faults.len());
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
