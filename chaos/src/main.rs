//! `troupe-chaos`: see `--help`.

use clap::Parser;
use std::process::ExitCode;
use troupe_chaos::{
    options::{Program, Role},
    run, worker,
};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let program = Program::parse();
    match program.role {
        None => tokio::select! {
            good = run::run(program.options) => Ok(if good? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
            // What was started ends with the future that is dropped.
            () = run::stopped() => Ok(ExitCode::FAILURE),
        },
        Some(Role::Worker(arguments)) => worker::run(arguments).await.map(|()| ExitCode::SUCCESS),
    }
}
