//! The commands about one kind of thing: runs, checkpoints, tasks, agents, approvals, queues.

use super::key_value;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Runs {
    /// Runs, newest first.
    List {
        /// Only runs of this workflow.
        #[arg(long, value_name = "NAME")]
        workflow: Option<String>,
        /// queued, running, waiting, paused, succeeded, failed or cancelled; may be repeated.
        #[arg(long)]
        status: Vec<String>,
        /// Only runs with this label; may be repeated.
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
        labels: Vec<(String, String)>,
        /// How many at once, 1 to 500.
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
        /// The next page: what the page before said after `more:`.
        #[arg(long)]
        cursor: Option<String>,
    },
    /// A run with its steps, what it waits for and its output.
    Show {
        /// The run's id.
        run: String,
    },
    /// Follow a run that has been started.
    Watch {
        /// The run's id.
        run: String,
        /// Ask for approvals here, in the terminal.
        #[arg(long)]
        approve: bool,
    },
    /// End a run: what its agents do is called off.
    Cancel {
        /// The run's id.
        run: String,
        /// For the history.
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Start no more steps; what runs may finish.
    Pause {
        /// The run's id.
        run: String,
        /// For the history.
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Go on with a paused run.
    Resume {
        /// The run's id.
        run: String,
    },
    /// Start the unfinished steps of a failed or cancelled run again; finished ones stay.
    Retry {
        /// The run's id.
        run: String,
    },
    /// Send a signal that a step waits for, or will wait for.
    Signal {
        /// The run's id.
        run: String,
        /// The signal's name.
        name: String,
        /// JSON, or @FILE.
        #[arg(long, value_name = "JSON", default_value = "null")]
        payload: String,
        /// The same key is applied once.
        #[arg(long)]
        key: Option<String>,
    },
    /// A new run from a checkpoint.
    Fork {
        /// The run's id.
        run: String,
        /// The checkpoint's number, as `checkpoints list` shows it.
        #[arg(long, value_name = "SEQ")]
        checkpoint: u64,
        /// The channels of state to replace: a JSON object, or @FILE.
        #[arg(long, value_name = "JSON")]
        state: Option<String>,
    },
    /// What changed between two checkpoints.
    Diff {
        /// The run's id.
        run: String,
        /// The number of the first checkpoint.
        from: u64,
        /// The number of the second one.
        to: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Checkpoints {
    /// The checkpoints of a run, oldest first.
    List {
        /// The run's id.
        run: String,
        /// How many at once, 1 to 500.
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
        /// The next page: what the page before said after `more:`.
        #[arg(long)]
        cursor: Option<String>,
    },
    /// The run as it was after a checkpoint.
    Show {
        /// The run's id.
        run: String,
        /// The checkpoint's number.
        seq: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tasks {
    /// Give one task to an agent, to any agent with a capability, or to a tool.
    #[command(group = clap::ArgGroup::new("target").args(["agent", "capability", "tool"]).required(true))]
    Submit {
        /// The agent's name.
        #[arg(long, value_name = "NAME")]
        agent: Option<String>,
        /// Any agent with this capability.
        #[arg(long, value_name = "NAME")]
        capability: Option<String>,
        /// A tool of the built-in worker.
        #[arg(long, value_name = "NAME")]
        tool: Option<String>,
        /// JSON, or @FILE.
        #[arg(long, value_name = "JSON", default_value = "{}")]
        input: String,
        /// The same key submits the task once.
        #[arg(long)]
        key: Option<String>,
        /// Wait for the end this long, like 30s; the exit code then says how it ended (4: it has not).
        #[arg(long, value_name = "TIME")]
        wait: Option<String>,
    },
    /// A task, by the id that `submit` printed.
    Show {
        /// The task's id.
        task: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Agents {
    /// All agents, or those with a capability.
    List {
        #[arg(long, value_name = "NAME")]
        capability: Option<String>,
    },
    /// An agent and its workers.
    Show {
        /// The agent's name.
        name: String,
    },
    /// Apply agents from files and folders.
    Apply {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Finish what runs, take nothing new.
    Drain {
        /// The agent's name.
        name: String,
        /// For the history.
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Out of service until activated.
    Quarantine {
        /// The agent's name.
        name: String,
        /// For the history.
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Back into service.
    Activate {
        /// The agent's name.
        name: String,
    },
    /// Forget the agent.
    Delete {
        /// The agent's name.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Approvals {
    /// Approvals, pending ones where no status is given.
    List {
        /// all, pending, approved, rejected, answered, expired, withdrawn; may be repeated.
        #[arg(long)]
        status: Vec<String>,
        /// Only those of this run.
        #[arg(long, value_name = "ID")]
        run: Option<String>,
    },
    /// An approval, its decisions, and exactly what is to be decided about.
    Show {
        /// The approval's id.
        approval: String,
    },
    /// Say yes.
    Approve(Decide),
    /// Say no.
    Reject(Decide),
    /// Answer a question.
    Answer(Answer),
}

#[derive(Debug, Args)]
pub(crate) struct Decide {
    /// The approval's id.
    pub approval: String,
    /// Who decides, like user:ada or role:incident-manager.
    #[arg(long = "as", value_name = "WHO", default_value_t = default_person())]
    pub by: String,
    /// For whoever reads it later.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub comment: String,
    /// Changed values of the channels that the approval lists in `edit`: a JSON object, or @FILE.
    #[arg(long, value_name = "JSON")]
    pub edits: Option<String>,
    /// The digest of what you saw: the decision is refused when something else is to be decided about.
    #[arg(long)]
    pub digest: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Answer {
    /// The approval's id.
    pub approval: String,
    /// The answer; JSON where the question's schema wants more than a text; or @FILE.
    pub answer: String,
    /// Who answers, like user:ada or role:incident-manager.
    #[arg(long = "as", value_name = "WHO", default_value_t = default_person())]
    pub by: String,
    /// For whoever reads it later.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub comment: String,
}

fn default_person() -> String {
    format!("user:{}", std::env::var("USER").unwrap_or_else(|_| "local".to_owned()))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Queues {
    /// The queues in which tasks wait or run.
    List,
    /// Dead letters: the runs that failed because a task of this queue did.
    Dead {
        /// agent/NAME, capability/NAME or tool/NAME.
        queue: String,
    },
    /// Retry the dead letters of a queue.
    Redrive {
        /// agent/NAME, capability/NAME or tool/NAME.
        queue: String,
    },
}
