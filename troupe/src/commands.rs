//! One file a command.

mod agents;
mod apply;
pub(crate) mod approvals;
mod checkpoints;
mod config;
mod dev;
mod doctor;
mod explain;
mod lint;
mod new;
mod queues;
mod run;
mod runs;
mod schema;
mod show;
mod tasks;

use crate::{
    cli::{Cli, Command, Globals},
    http::Api,
    output,
};
use clap::CommandFactory;
use std::process::ExitCode;

pub(crate) async fn execute(cli: Cli) -> anyhow::Result<ExitCode> {
    let globals = cli.globals;
    match cli.command {
        Command::Dev(args) => dev::execute(&globals, args).await?,
        Command::Apply(args) => apply::execute(&globals, &args).await?,
        Command::Run(args) => return run::execute(&globals, args).await,
        Command::Explain(args) => explain::execute(&globals, &args)?,
        Command::Lint { files } => return lint::execute(&globals, &files),
        Command::Runs(command) => return runs::execute(&globals, command).await,
        Command::Why { run } => runs::why(&globals, &run).await?,
        Command::Checkpoints(command) => checkpoints::execute(&globals, command).await?,
        Command::Tasks(command) => return tasks::execute(&globals, command).await,
        Command::Agents(command) => agents::execute(&globals, command).await?,
        Command::Approvals(command) => approvals::execute(&globals, command).await?,
        Command::Queues(command) => queues::execute(&globals, command).await?,
        Command::Schema { kind } => schema::execute(&globals, kind)?,
        Command::Config(command) => config::execute(&globals, &command)?,
        Command::Doctor => return doctor::execute(&globals).await,
        Command::New { kind, name } => new::execute(&globals, kind, &name)?,
        Command::Completions { shell } => completions(shell)?,
        Command::Bench(args) => crate::bench::execute(&globals, &args).await?,
        Command::Service(args) => crate::service::execute(globals, &args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Generated into memory: the generator would panic on a closed pipe.
fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "troupe", &mut script);
    output::line(String::from_utf8(script)?.trim_end())
}

fn api(globals: &Globals) -> anyhow::Result<Api> {
    Api::new(&globals.server, &globals.namespace)
}

/// A path segment or query value that may hold anything ("agent/NAME" is one queue's name).
fn segment(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
