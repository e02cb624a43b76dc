//! A Redis of one's own, which holds everything in memory.

use super::find;
use crate::{Launch, Process, ports, until};
use anyhow::ensure;
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

const ANSWER_TIME: Duration = Duration::from_secs(10);

/// The server, on a port that stays the same over restarts. It ends when this is dropped.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    process: Process,
}

impl Redis {
    /// Starts one that writes nothing anywhere.
    pub fn start() -> anyhow::Result<Self> {
        Self::with(ports::for_services(1)?[0], &[])
    }

    /// The same on a port, with more arguments.
    pub fn with(port: u16, more: &[&str]) -> anyhow::Result<Self> {
        let number = port.to_string();
        let always = ["--port", &number, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        // A replica gets its copy without a file in between.
        let copies = ["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--repl-diskless-load", "swapdb"];
        let arguments: Vec<&str> = always.iter().chain(&copies).chain(more).copied().collect();
        Self::launch(port, &arguments, Path::new("/dev/null"))
    }

    /// A sentinel, with its settings in a file.
    pub fn sentinel(port: u16, file: &str) -> anyhow::Result<Self> {
        Self::launch(port, &[file, "--sentinel", "--port", &port.to_string(), "--bind", "127.0.0.1"], Path::new("/dev/null"))
    }

    fn launch(port: u16, arguments: &[&str], log: &Path) -> anyhow::Result<Self> {
        let program: PathBuf = find("redis-server", "redis-server")?;
        let arguments = arguments.iter().map(Into::into).collect();
        let launch = Launch { name: "redis".into(), program, arguments, environment: Vec::new(), log: log.to_owned() };
        Ok(Self { port, process: Process::start(launch)? })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it again, empty.
    pub fn begin(&mut self) -> anyhow::Result<()> {
        self.process.begin()
    }

    /// Waits until it answers.
    pub async fn ready(&self) -> anyhow::Result<()> {
        until("redis answers", async || self.ask("PING").is_ok().then_some(())).await
    }

    /// Kills it, with all it holds.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()
    }

    /// SIGSTOP.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.process.signal("STOP")
    }

    /// SIGCONT.
    pub fn wake(&self) -> anyhow::Result<()> {
        self.process.signal("CONT")
    }

    /// `FLUSHALL`.
    pub fn flush(&self) -> anyhow::Result<()> {
        self.ask("FLUSHALL").map(drop)
    }

    /// Sends a command; answers the first line of what comes back. Fails on an error of the server.
    fn ask(&self, command: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(ANSWER_TIME))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut answer = [0; 128];
        let size = stream.read(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer[..size]).trim().to_owned();
        ensure!(answer.starts_with('+'), "redis answers {command} with '{answer}'");
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_can_be_killed_paused_and_flushed() -> anyhow::Result<()> {
        let mut redis = Redis::start()?;
        redis.ready().await?;
        redis.flush()?;
        redis.pause()?;
        redis.wake()?;
        redis.kill()?;
        assert!(redis.flush().is_err());
        redis.begin()?;
        redis.ready().await
    }
}
