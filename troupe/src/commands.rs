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
        Command::Lint { files } => lint::execute(&globals, &files)?,
        Command::Runs(command) => return runs::execute(&globals, command).await,
        Command::Why { run } => runs::why(&globals, &run).await?,
        Command::Checkpoints(command) => checkpoints::execute(&globals, command).await?,
        Command::Tasks(command) => tasks::execute(&globals, command).await?,
        Command::Agents(command) => agents::execute(&globals, command).await?,
        Command::Approvals(command) => approvals::execute(&globals, command).await?,
        Command::Queues(command) => queues::execute(&globals, command).await?,
        Command::Schema { kind } => schema::execute(kind)?,
        Command::Config(command) => config::execute(&globals, &command)?,
        Command::Doctor => return doctor::execute(&globals).await,
        Command::New { kind, name } => new::execute(kind, &name)?,
        Command::Completions { shell } => clap_complete::generate(shell, &mut Cli::command(), "troupe", &mut std::io::stdout()),
        Command::Bench(args) => crate::bench::execute(&globals, &args).await?,
        Command::Service(args) => crate::service::execute(globals, &args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn api(globals: &Globals) -> anyhow::Result<Api> {
    Api::new(&globals.server, &globals.namespace)
}

/// A path segment that may hold anything ("agent/NAME" is one queue's name).
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

/// Prints a run in full: its fields, then a table of its steps.
fn print_run(format: output::Format, run: &serde_json::Value) -> anyhow::Result<()> {
    output::print(format, run, &RUN_FIELDS)?;
    if format == output::Format::Table {
        if let Some(steps) = run.get("steps").filter(|s| s.as_array().is_some_and(|s| !s.is_empty())) {
            output::line("")?;
            output::print(format, steps, &STEP_COLUMNS)?;
        }
        if let Some(waits) = run.get("waiting_for").filter(|w| w.as_array().is_some_and(|w| !w.is_empty())) {
            output::line("")?;
            output::print(format, waits, &WAIT_COLUMNS)?;
        }
    }
    Ok(())
}

const RUN_COLUMNS: [output::Column; 6] = [
    ("RUN", "/run_id"),
    ("WORKFLOW", "/workflow"),
    ("STATUS", "/status"),
    ("CREATED", "/created_at"),
    ("ENDED", "/ended_at"),
    ("LABELS", "/labels"),
];
const RUN_FIELDS: [output::Column; 12] = [
    ("run", "/run_id"),
    ("workflow", "/workflow"),
    ("version", "/version"),
    ("status", "/status"),
    ("created", "/created_at"),
    ("ended", "/ended_at"),
    ("labels", "/labels"),
    ("parent", "/parent_run_id"),
    ("checkpoints", "/seq"),
    ("error", "/error/code"),
    ("because", "/error/message"),
    ("output", "/output"),
];
const STEP_COLUMNS: [output::Column; 6] = [
    ("STEP", "/path"),
    ("KIND", "/kind"),
    ("STATUS", "/status"),
    ("ATTEMPT", "/attempt"),
    ("AGENT", "/agent"),
    ("ERROR", "/error/message"),
];
const WAIT_COLUMNS: [output::Column; 5] =
    [("STEP", "/step"), ("WAITS ON", "/kind"), ("REFERENCE", "/reference"), ("DETAIL", "/detail"), ("UNTIL", "/until")];
