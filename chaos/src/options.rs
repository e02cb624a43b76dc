//! What may be asked for.

use crate::{
    fault::{Chosen, Fault},
    worker,
};
use anyhow::{Context, ensure};
use clap::{Args, Parser, Subcommand};
use std::{path::PathBuf, time::Duration};

/// Kills Troupe's processes under load, and checks that nothing was lost or repeated
#[derive(Debug, Parser)]
#[command(name = "troupe-chaos", version, args_conflicts_with_subcommands = true)]
pub struct Program {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub role: Option<Role>,
}

/// What a process is that the program starts itself.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// One of the worker processes
    #[command(hide = true)]
    Worker(worker::Arguments),
}

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Which load and which faults: the same seed gives the same plan; what comes of it differs, because real time passes
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How long the load lasts
    #[arg(long, default_value_t = 2.0)]
    pub minutes: f64,
    /// Only these faults, or all that begin so: `kill-executor,redis,cut`
    #[arg(long, value_delimiter = ',', value_name = "FAULT")]
    pub only: Vec<Chosen>,
    /// Runs started in a second
    #[arg(long, default_value_t = 15.0)]
    pub rate: f64,
    /// Runs that may be open at once; beyond it no more are started for the moment
    #[arg(long, default_value_t = 500)]
    pub open: usize,
    /// Processes of each service (of executors there is place for one more)
    #[arg(long, default_value_t = 2)]
    pub replicas: usize,
    /// Worker processes
    #[arg(long, default_value_t = 3)]
    pub workers: usize,
    /// A partition's lease, in milliseconds
    #[arg(long, default_value_t = 5_000)]
    pub lease_ms: u64,
    /// How much longer than a lease a partition may stand still when its executor is lost, in milliseconds
    #[arg(long, default_value_t = 1_000)]
    pub patience_ms: u64,
    /// How long the system may take to come to rest after the load, in seconds
    #[arg(long, default_value_t = 180)]
    pub rest_seconds: u64,
    /// Keep the data folder even when all is well
    #[arg(long)]
    pub keep: bool,
    /// The data folder; it must not exist. One in the system's folder for temporary files where nothing is said
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Write the summary there as JSON, too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The `troupe` program; the one beside this one where nothing is said
    #[arg(long)]
    pub program: Option<PathBuf>,
}

impl Options {
    pub fn time(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }

    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms)
    }

    pub fn rest(&self) -> Duration {
        Duration::from_secs(self.rest_seconds)
    }

    /// The faults that are tried.
    pub fn faults(&self) -> Vec<Fault> {
        let all = Fault::all().into_iter();
        all.filter(|fault| self.only.is_empty() || self.only.iter().any(|chosen| chosen.0.contains(fault))).collect()
    }

    /// Fails when a number makes no sense.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.minutes > 0.0 && self.minutes <= 24.0 * 60.0, "--minutes is {}: set it above 0, up to 1440", self.minutes);
        ensure!(self.rate > 0.0 && self.rate <= 1_000.0, "--rate is {}: set it above 0, up to 1000", self.rate);
        ensure!((1..=5).contains(&self.replicas), "--replicas is {}: set it between 1 and 5", self.replicas);
        ensure!((1..=20).contains(&self.workers), "--workers is {}: set it between 1 and 20", self.workers);
        ensure!((300..=60_000).contains(&self.lease_ms), "--lease-ms is {}: set it between 300 and 60000", self.lease_ms);
        ensure!(self.open > 0, "--open is 0: set it above");
        Ok(())
    }

    /// The `troupe` program. Fails when it is not there.
    pub fn program(&self) -> anyhow::Result<PathBuf> {
        if let Some(program) = &self.program {
            return Ok(program.clone());
        }
        let beside = std::env::current_exe().context("cannot see where this program is")?.with_file_name("troupe");
        ensure!(beside.is_file(), "{} is missing: build it with `cargo build -p troupe`, or name it with --program", beside.display());
        Ok(beside)
    }
}
