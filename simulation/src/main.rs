//! Runs seeds of the simulation.

#[cfg(target_os = "linux")]
mod cli;

#[cfg(target_os = "linux")]
use cli::main as run;

#[cfg(not(target_os = "linux"))]
fn run() -> std::process::ExitCode {
    eprintln!("the simulation runs on Linux only");
    std::process::ExitCode::FAILURE
}

fn main() -> std::process::ExitCode {
    run()
}
