//! The ledger: what workers did, written down by themselves, outside of Troupe.
//!
//! A side effect appends one line to its process's file, in one write, before anything of it is reported to Troupe. `kill -9` takes nothing
//! that was written away: the kernel has it.

use crate::clock::{self, Micros};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    sync::Arc,
};

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The side effect of a task.
    Effect,
    /// The side effect inside of one of a task's recorded steps.
    Step,
    /// Troupe has answered that the step's record is durable, or had it from an earlier attempt.
    Recorded,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub what: What,
    /// The idempotency key: the same for all attempts.
    pub key: String,
    pub run: String,
    /// The step instance's path.
    pub step: String,
    pub attempt: u32,
    pub fence: u64,
    /// The place of the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    pub at: Micros,
    pub worker: String,
    pub pid: u32,
    /// Which call of a handler within the process.
    pub execution: u64,
}

/// The file of one worker process.
#[derive(Clone, Debug)]
pub struct Ledger {
    file: Arc<File>,
}

impl Ledger {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { file: Arc::new(file) })
    }

    /// Appends a line, in one write.
    pub fn write(&self, line: &Line) -> std::io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        (&*self.file).write_all(&text)
    }
}

/// All lines of all files of a folder, in the order of their times.
pub fn read(folder: &Path) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        for (number, line) in text.lines().enumerate() {
            let line =
                serde_json::from_str(line).with_context(|| format!("{}:{}: not a line of the ledger", path.display(), number + 1))?;
            lines.push(line);
        }
    }
    lines.sort_by_key(|line: &Line| line.at);
    Ok(lines)
}

/// The moment of a line that is written now.
pub fn moment() -> Micros {
    clock::now()
}
