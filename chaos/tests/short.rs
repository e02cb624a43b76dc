//! A short seed: most kinds of faults once, everything as in a long one.

use std::{fs, path::Path, process::Stdio};
use tokio::process::Command;

const SEED: &str = "7";
/// One of most kinds; those that are left out differ from these in whom they hit.
const FAULTS: &str = "kill-executor,kill-scheduler,kill-worker,kill-gateway,kill-checkpoint,pause-executor,cut-executor-checkpoint,\
                      silence-scheduler-executor,delay-checkpoint-postgres,redis-kill,redis-flush,postgres-kill,drain-executor";

#[tokio::test]
async fn a_short_seed_loses_and_repeats_nothing() -> anyhow::Result<()> {
    let chaos = Path::new(env!("CARGO_BIN_EXE_troupe-chaos"));
    let troupe = chaos.with_file_name("troupe");
    anyhow::ensure!(troupe.is_file(), "{} is missing: `cargo build -p troupe` makes it, and `make test` does", troupe.display());
    // Not the folder of tempfile: PostgreSQL runs as another user when this is root, and has to enter it.
    let data = std::env::temp_dir().join(format!("troupe-chaos-test-{}", std::process::id()));
    let mut command = Command::new(chaos);
    command.args(["--seed", SEED, "--minutes", "0.6", "--rate", "8", "--lease-ms", "2500", "--patience-ms", "5000", "--only", FAULTS]);
    command.arg("--program").arg(troupe).arg("--data").arg(&data).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await?;
    let (table, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{told}\n{table}");
    anyhow::ensure!(output.status.success(), "see the table above; the data is in {}", data.display());
    assert!(!fs::exists(&data)?, "the data of a good run is removed");
    Ok(())
}
