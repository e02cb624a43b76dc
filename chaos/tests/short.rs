//! A short seed: the faults that matter most, once each, everything as in a long one.

use serde_json::Value;
use std::{fs, path::Path, process::Stdio};
use tokio::process::Command;

/// With the time below, all of the faults fit.
const SEED: &str = "28";
const MINUTES: &str = "0.65";
const FAULTS: [&str; 8] = [
    "kill-executor",
    "kill-scheduler",
    "kill-worker",
    "pause-executor",
    "cut-worker-gateway",
    "redis-flush",
    "postgres-restart",
    "scale-executor",
];

#[tokio::test]
async fn a_short_seed_loses_and_repeats_nothing() -> anyhow::Result<()> {
    let chaos = Path::new(env!("CARGO_BIN_EXE_troupe-chaos"));
    let troupe = chaos.with_file_name("troupe");
    anyhow::ensure!(troupe.is_file(), "{} is missing: `cargo build -p troupe` makes it, and `make test` does", troupe.display());
    // Not the folder of tempfile: PostgreSQL runs as another user when this is root, and has to enter it.
    let data = std::env::temp_dir().join(format!("troupe-chaos-test-{}", std::process::id()));
    let summary = data.with_extension("json");
    let mut command = Command::new(chaos);
    command.args(["--seed", SEED, "--minutes", MINUTES, "--rate", "8", "--lease-ms", "2000", "--patience-ms", "5000"]);
    command.arg("--only").arg(FAULTS.join(",")).arg("--program").arg(troupe).arg("--data").arg(&data).arg("--json").arg(&summary);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    let (table, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{told}\n{table}");
    anyhow::ensure!(output.status.success(), "see the table above; the data is in {}", data.display());
    assert!(!fs::exists(&data)?, "the data of a good run is removed");
    let report: Value = serde_json::from_slice(&fs::read(&summary)?)?;
    fs::remove_file(&summary)?;
    for fault in FAULTS {
        let done = report["faults"].as_array().into_iter().flatten().filter(|done| done["fault"] == fault);
        assert!(done.clone().any(|done| done["outcome"]["is"] == "happened"), "{fault}: {:?}", done.collect::<Vec<_>>());
    }
    assert!(report["stale_appends"].as_u64() > Some(0), "the executor that was stopped wrote something when it woke: {report}");
    Ok(())
}
