//! `troupe`: the command line, and all services in one process.

mod bench;
mod cli;
mod commands;
mod follow;
mod host;
mod http;
mod output;
mod service;
mod settings;
mod sources;

use clap::Parser;
use std::process::ExitCode;
use troupe_domain::{Code, Error};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let output = cli.globals.output;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(output, &Error::unavailable(format!("cannot start the runtime: {e}"))),
    };
    let outcome = runtime.block_on(commands::execute(cli));
    // A thread may still wait for a line of standard input, for ever.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(error) => fail(output, &to_error(error)),
    }
}

/// Errors of ours keep their code; all others are failures of this program.
fn to_error(error: anyhow::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(|other| Error::new(Code::Internal, format!("{other:#}")))
}

fn fail(output: output::Format, error: &Error) -> ExitCode {
    output::print_error(output, error);
    ExitCode::from(error.code.exit())
}
