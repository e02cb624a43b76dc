//! What can be typed.

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
pub(crate) struct Globals {
    /// How results are printed.
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// The gateway to talk to.
    #[arg(long, global = true, env = "TROUPE_SERVER", default_value = "http://127.0.0.1:8080")]
    pub server: String,
    /// The namespace to work in.
    #[arg(long, global = true, env = "TROUPE_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// The settings file.
    #[arg(long, global = true, env = "TROUPE_CONFIG")]
    pub config: Option<PathBuf>,
    /// The overlay beside the settings file: `production` reads `troupe.production.toml`.
    #[arg(long, global = true, env = "TROUPE_ENVIRONMENT")]
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
    Lint { files: Vec<PathBuf> },
    /// Runs: list, show, watch, control.
    #[command(subcommand)]
    Runs(Runs),
    /// What each pending step of a run waits on.
    Why { run: String },
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
    New { kind: NewKind, name: String },
    /// Print completions for a shell.
    Completions { shell: clap_complete::Shell },
    /// Measure this machine: latency, throughput, memory.
    Bench(Bench),
    /// Run one service as a process of its own: what its own program `troupe-NAME` does.
    #[command(hide = true)]
    Service(Service),
}

#[derive(Debug, Args)]
pub(crate) struct Service {
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
    /// Where the journal and the catalogues are kept.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// HTTP address.
    #[arg(long)]
    pub http: Option<SocketAddr>,
    /// Public gRPC address.
    #[arg(long)]
    pub grpc: Option<SocketAddr>,
    /// Keep nothing: all state is in memory.
    #[arg(long)]
    pub memory: bool,
    /// Listen on addresses other machines can reach although there is no authentication yet.
    #[arg(long)]
    pub danger_listen_on_all_interfaces_without_authentication: bool,
    /// Apply these files once the services are up.
    #[arg(long)]
    pub apply: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Check only.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// A workflow file (with the agents beside it) or the name of an applied workflow.
    pub workflow: String,
    #[arg(long)]
    pub version: Option<String>,
    /// JSON, or @FILE.
    #[arg(long, default_value = "{}")]
    pub input: String,
    /// KEY=VALUE; may be repeated.
    #[arg(long = "label", value_parser = key_value)]
    pub labels: Vec<(String, String)>,
    /// 0 (first) to 9.
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
    /// Where an embedded server keeps its data, when none answers.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Print one part of the output, a JSON pointer like /report, as it is.
    #[arg(long, value_name = "POINTER")]
    pub print: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    pub file: PathBuf,
    /// Print a Mermaid flowchart.
    #[arg(long)]
    pub mermaid: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Runs {
    List {
        #[arg(long)]
        workflow: Option<String>,
        /// May be repeated.
        #[arg(long)]
        status: Vec<String>,
        /// KEY=VALUE; may be repeated.
        #[arg(long = "label", value_parser = key_value)]
        labels: Vec<(String, String)>,
        #[arg(long, default_value_t = 50)]
        limit: u32,
        #[arg(long)]
        cursor: Option<String>,
    },
    Show {
        run: String,
    },
    /// Follow a run that has been started.
    Watch {
        run: String,
        /// Ask for approvals here, in the terminal.
        #[arg(long)]
        approve: bool,
    },
    Cancel {
        run: String,
        #[arg(long, default_value = "")]
        reason: String,
    },
    Pause {
        run: String,
        #[arg(long, default_value = "")]
        reason: String,
    },
    Resume {
        run: String,
    },
    /// Start failed steps again; finished ones stay.
    Retry {
        run: String,
    },
    Signal {
        run: String,
        name: String,
        /// JSON, or @FILE.
        #[arg(long, default_value = "null")]
        payload: String,
        /// The same key is applied once.
        #[arg(long)]
        key: Option<String>,
    },
    /// A new run from a checkpoint.
    Fork {
        run: String,
        #[arg(long)]
        checkpoint: u64,
        /// JSON object of state to change, or @FILE.
        #[arg(long)]
        state: Option<String>,
    },
    /// What changed between two checkpoints.
    Diff {
        run: String,
        from: u64,
        to: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Checkpoints {
    List {
        run: String,
        #[arg(long, default_value_t = 50)]
        limit: u32,
        #[arg(long)]
        cursor: Option<String>,
    },
    Show {
        run: String,
        seq: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tasks {
    Submit {
        /// The agent's name.
        #[arg(long, required_unless_present = "capability")]
        agent: Option<String>,
        #[arg(long, conflicts_with = "agent")]
        capability: Option<String>,
        /// JSON, or @FILE.
        #[arg(long, default_value = "{}")]
        input: String,
        /// The same key submits the task once.
        #[arg(long)]
        key: Option<String>,
        /// Wait for the end this long, like 30s.
        #[arg(long)]
        wait: Option<String>,
    },
    Show {
        task: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Agents {
    List {
        #[arg(long)]
        capability: Option<String>,
    },
    Show {
        name: String,
    },
    Apply {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Finish what runs, take nothing new.
    Drain {
        name: String,
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Out of service until activated.
    Quarantine {
        name: String,
        #[arg(long, default_value = "")]
        reason: String,
    },
    Activate {
        name: String,
    },
    Delete {
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Approvals {
    List {
        /// pending (default), approved, rejected, answered, expired, withdrawn; may be repeated.
        #[arg(long)]
        status: Vec<String>,
        #[arg(long)]
        run: Option<String>,
    },
    Show {
        approval: String,
    },
    Approve(Decide),
    Reject(Decide),
    Answer(Decide),
}

#[derive(Debug, Args)]
pub(crate) struct Decide {
    pub approval: String,
    /// Who decides, like user:ada or role:incident-manager.
    #[arg(long = "as", default_value_t = default_person())]
    pub by: String,
    #[arg(long, default_value = "")]
    pub comment: String,
    /// JSON: changed values, or the answer; or @FILE.
    #[arg(long)]
    pub edits: Option<String>,
}

fn default_person() -> String {
    format!("user:{}", std::env::var("USER").unwrap_or_else(|_| "local".to_owned()))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Queues {
    List,
    /// Failed tasks of a queue.
    Dead {
        queue: String,
    },
    /// Start them again.
    Redrive {
        queue: String,
    },
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
    #[arg(long = "waiting", default_values_t = [10_000_u32, 100_000])]
    pub waiting: Vec<u32>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).ok_or_else(|| format!("'{text}' is not KEY=VALUE"))
}
