//! A `troupe dev` process of a test's own.

use crate::{Api, ports};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// The process, its data folder and its addresses, which stay the same over restarts.
pub struct DevServer {
    program: PathBuf,
    data: PathBuf,
    http: u16,
    grpc: u16,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    api: Api,
}

impl DevServer {
    /// Starts `program dev` with its data in a folder, on free ports.
    pub async fn start(program: impl Into<PathBuf>, data: &Path) -> anyhow::Result<Self> {
        Self::start_with(program, data, &[]).await
    }

    /// The same with environment variables.
    pub async fn start_with(program: impl Into<PathBuf>, data: &Path, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let (http, grpc) = (ports::free()?, ports::free()?);
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let api = Api::new(format!("http://127.0.0.1:{http}"));
        let mut server = Self { program: program.into(), data: data.to_owned(), http, grpc, environment, child: None, api };
        server.restart().await?;
        Ok(server)
    }

    /// Starts it again after [`DevServer::kill`]; answers when it is ready.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let mut child = Command::new(&self.program)
            .args(["dev", "--http", &format!("127.0.0.1:{}", self.http), "--grpc", &format!("127.0.0.1:{}", self.grpc), "--data"])
            .arg(&self.data)
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        while let Some(line) = lines.next_line().await? {
            if line.contains("gRPC") {
                self.child = Some(child);
                return Ok(());
            }
        }
        anyhow::bail!("the server ended before it was ready: {:?}", child.wait().await?)
    }

    /// `kill -9`.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("the server does not run")?;
        child.kill().await.context("cannot kill the server")
    }

    /// SIGTERM; answers whether it ended well.
    pub async fn terminate(&mut self) -> anyhow::Result<bool> {
        let mut child = self.child.take().context("the server does not run")?;
        let pid = child.id().context("the server has ended")?;
        ensure!(Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?.success(), "cannot send SIGTERM");
        Ok(child.wait().await?.success())
    }

    /// The process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    pub fn url(&self) -> String {
        self.api.url().to_owned()
    }

    pub fn grpc_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// Runs the command line against this server; answers its standard output. Fails when it exits with anything but 0.
    pub async fn troupe(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = self.command(args).output().await?;
        let shown = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "troupe {} ended with {:?}: {shown}", args.join(" "), output.status.code());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The command line against this server, not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        command(&self.program, self.api.url(), args)
    }

    /// The HTTP API.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// GET; the status and the JSON answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<(u16, Value)> {
        self.api.get(path).await
    }

    /// POST of JSON; the status and the JSON answer.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        self.api.post(path, body).await
    }

    /// POST of text of a type.
    pub async fn post_text(&self, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> anyhow::Result<(u16, Value)> {
        self.api.post_text(path, content_type, body).await
    }
}

/// The command line against the server at a URL.
pub(crate) fn command(program: &Path, url: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env("TROUPE_SERVER", url).stdin(Stdio::null()).kill_on_drop(true);
    command
}
