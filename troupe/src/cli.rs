//! What can be typed.

mod resources;

pub(crate) use resources::{Agents, Answer, Approvals, Checkpoints, Decide, Queues, Runs, Tasks};

use crate::output::Format;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{net::SocketAddr, path::PathBuf};

/// Durable multi-agent orchestration.
#[derive(Debug, Parser)]
#[command(name = "troupe", version, about, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Globals {
    /// How results are printed.
    #[arg(long, short, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub output: Format,
    /// The gateway to talk to.
    #[arg(long, global = true, env = "TROUPE_SERVER", hide_env_values = true, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub server: String,
    /// The namespace to work in.
    #[arg(long, global = true, env = "TROUPE_NAMESPACE", hide_env_values = true, value_name = "NAME", default_value = "default")]
    pub namespace: String,
    /// The settings file; without it `troupe.toml`, if there is one.
    #[arg(long, global = true, env = "TROUPE_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The overlay beside the settings file: `production` reads `troupe.production.toml`.
    #[arg(long, global = true, env = "TROUPE_ENVIRONMENT", hide_env_values = true, value_name = "NAME")]
    pub environment: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run all services in this process.
    Dev(Dev),
    /// Apply agents and workflows from files and directories.
    Apply(Apply),
    /// Start a run of a file or of an applied workflow.
    Run(Run),
    /// Show a workflow's steps and how they depend on each other.
    Explain(Explain),
    /// Check files; print every fault with line and column.
    Lint {
        /// Files, or folders of files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Runs: list, show, watch, control.
    #[command(subcommand)]
    Runs(Runs),
    /// What each pending step of a run waits on.
    Why {
        /// The run's id.
        run: String,
    },
    /// A run's history.
    #[command(subcommand)]
    Checkpoints(Checkpoints),
    /// Single tasks for agents.
    #[command(subcommand)]
    Tasks(Tasks),
    /// Agents: list, show, apply, take out of service.
    #[command(subcommand)]
    Agents(Agents),
    /// Decisions that wait for a person.
    #[command(subcommand)]
    Approvals(Approvals),
    /// Task queues and dead letters.
    #[command(subcommand)]
    Queues(Queues),
    /// Print a JSON Schema.
    Schema { kind: SchemaKind },
    /// Settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check this installation and the server.
    Doctor,
    /// Write a new agent, workflow or worker to start from.
    New {
        kind: NewKind,
        /// Its name, and the name of the file or folder that is written here.
        name: String,
    },
    /// Print completions for a shell.
    Completions { shell: clap_complete::Shell },
    /// Measure this machine: latency, throughput, memory.
    Bench(Bench),
    /// Run one service as a process of its own: what its own program `troupe-NAME` does.
    Service(Service),
}

#[derive(Debug, Args)]
pub(crate) struct Service {
    /// The service.
    pub name: ServiceName,
    /// The gRPC port, instead of the service's own; HTTP with health and metrics is on this plus 1000. Not for the gateway: see
    /// `gateway.http` and `gateway.grpc`.
    #[arg(long, env = "TROUPE_PORT")]
    pub port: Option<u16>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ServiceName {
    Registry,
    Scheduler,
    Executor,
    Checkpoint,
    Approval,
    Gateway,
    Agents,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Dev {
    /// The folder for all durable state; `.troupe` without it.
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Where to serve HTTP; 127.0.0.1:8080 without it.
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<SocketAddr>,
    /// Where to serve gRPC; 127.0.0.1:50051 without it.
    #[arg(long, value_name = "ADDRESS")]
    pub grpc: Option<SocketAddr>,
    /// Keep nothing: all state is in memory.
    #[arg(long)]
    pub memory: bool,
    /// Keep journal, agents and approvals in this database instead of files: postgres://user:password@host:port/database.
    #[arg(long, value_name = "URL", conflicts_with = "memory")]
    pub postgres: Option<String>,
    /// Keep task queues and events in this Redis instead of in memory: redis://user:password@host:port/database.
    #[arg(long, value_name = "URL", conflicts_with = "memory")]
    pub redis: Option<String>,
    /// Listen on addresses other machines can reach although there is no authentication yet.
    #[arg(long)]
    pub danger_listen_on_all_interfaces_without_authentication: bool,
    /// Apply this file or folder once the services are up; may be repeated.
    #[arg(long, value_name = "PATH")]
    pub apply: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// Files, or folders with `agents` and `workflows` in them.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Let the server check them, and store nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// A workflow file (with the agents beside it) or the name of an applied workflow.
    pub workflow: String,
    /// A version of an applied workflow; the newest without it.
    #[arg(long)]
    pub version: Option<String>,
    /// The workflow's input: JSON, or @FILE.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub input: String,
    /// A label to find the run by; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub labels: Vec<(String, String)>,
    /// 0 (first) to 9; 5 without it.
    #[arg(long)]
    pub priority: Option<u32>,
    /// The whole run's time, like 10m.
    #[arg(long)]
    pub deadline: Option<String>,
    /// The same key starts the run once.
    #[arg(long)]
    pub key: Option<String>,
    /// Watch it until it ends.
    #[arg(long, short)]
    pub follow: bool,
    /// Ask for approvals here, in the terminal.
    #[arg(long)]
    pub approve: bool,
    /// Approve everything without asking, as this person (for demos and tests).
    #[arg(long, value_name = "WHO")]
    pub approve_as: Option<String>,
    /// Follow it in this process, with its data in this folder, even when a server answers.
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Follow it, and print only this part of its output, a JSON pointer like /report, as it is.
    #[arg(long, value_name = "POINTER")]
    pub print: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// A workflow file.
    pub file: PathBuf,
    /// Print a Mermaid flowchart.
    #[arg(long)]
    pub mermaid: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SchemaKind {
    Workflow,
    Agent,
    Config,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Read all layers and report every fault.
    Check,
    /// Print the result with secrets masked, and where each value came from.
    Show,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum NewKind {
    Agent,
    Workflow,
    Worker,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// A smaller load: seconds instead of minutes.
    #[arg(long)]
    pub quick: bool,
    /// Runs waiting on an approval, for memory and recovery; may be repeated.
    #[arg(long = "waiting", default_values_t = [1_000_u32, 100_000])]
    pub waiting: Vec<u32>,
    /// Measure again with so many ended runs in the store.
    #[arg(long, default_value_t = 0)]
    pub finished: u32,
    /// Measure this deployment too: the gRPC URL of its gateway.
    #[arg(long, default_value = "")]
    pub against: String,
    /// Where the workers of that measurement connect: the gRPC URL of a scheduler; the gateway where nothing is said.
    #[arg(long, default_value = "", requires = "against")]
    pub workers_at: String,
    /// A process of that deployment, for its memory: `NAME=URL` of its `/metrics`; may be repeated.
    #[arg(long = "service", value_parser = key_value, requires = "against")]
    pub services: Vec<(String, String)>,
    /// That deployment's PostgreSQL, for the time of a commit there. The schema `troupe_bench` is made and dropped.
    #[arg(long, default_value = "")]
    pub postgres: String,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).ok_or_else(|| format!("'{text}' is not KEY=VALUE"))
}
