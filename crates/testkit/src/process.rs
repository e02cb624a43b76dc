//! One process that can be killed, paused, woken and started again.

use crate::until;
use anyhow::{Context, ensure};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

/// Lines of a log that an error shows.
const SHOWN_LINES: usize = 30;

/// How a process is started, each time in the same way.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// What errors call it.
    pub name: String,
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(String, String)>,
    /// Where its output goes, after what is there.
    pub log: PathBuf,
}

/// A process, or the place of one. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    launch: Launch,
    child: Option<Child>,
}

impl Process {
    /// Starts it.
    pub fn start(launch: Launch) -> anyhow::Result<Self> {
        let mut process = Self::later(launch);
        process.begin()?;
        Ok(process)
    }

    /// One that is started later.
    pub fn later(launch: Launch) -> Self {
        Self { launch, child: None }
    }

    /// Starts it when it does not run.
    pub fn begin(&mut self) -> anyhow::Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let Launch { name, program, arguments, environment, log } = &self.launch;
        let open = || {
            fs::create_dir_all(log.parent().unwrap_or(Path::new(".")))?;
            fs::OpenOptions::new().create(true).append(true).open(log)
        };
        let log = open().with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("cannot start {name} ({})", program.display()))?);
        Ok(())
    }

    /// The status, when it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.is_some() && self.ended().is_none()
    }

    /// The process id, of the last one when it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The file with its output.
    pub fn log(&self) -> &Path {
        &self.launch.log
    }

    /// `STOP`, `CONT`, `TERM`...
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let name = &self.launch.name;
        let id = self.child.as_ref().with_context(|| format!("{name} does not run"))?.id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &id]).stderr(Stdio::null()).status()?;
        ensure!(sent.success(), "cannot send {signal} to {name}: it has ended");
        Ok(())
    }

    /// `kill -9`; answers when it is gone. Fails when it did not run.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let name = &self.launch.name;
        let child = self.child.as_mut().with_context(|| format!("{name} does not run"))?;
        let before = child.try_wait()?;
        child.kill().with_context(|| format!("cannot kill {name}"))?;
        child.wait()?;
        self.child = None;
        ensure!(before.is_none(), "{name} had ended before it was killed: {before:?}");
        Ok(())
    }

    /// SIGTERM, and waits until it has ended.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal("TERM")?;
        until(&format!("{} ends", self.launch.name), async || self.ended()).await
    }

    /// The last lines it wrote, for errors.
    pub fn last_lines(&self) -> String {
        let text = fs::read(&self.launch.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
