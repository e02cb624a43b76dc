//! The seven services as processes of their own.

use crate::{Api, ports, until};
use anyhow::Context;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::{Child, Command};

/// In an order in which nobody waits long: each after what it needs at its start.
const SERVICES: [&str; 7] = ["checkpoint", "registry", "executor", "scheduler", "approval", "agents", "gateway"];

/// The processes, their data folder and their ports, which stay the same over restarts.
pub struct Cluster {
    program: PathBuf,
    environment: Vec<(String, String)>,
    /// The gRPC port of each service but the gateway.
    ports: BTreeMap<&'static str, u16>,
    children: BTreeMap<&'static str, Child>,
    api: Api,
    grpc: u16,
}

impl Cluster {
    /// Starts `program service NAME` for each service, with the databases in a folder, on free ports; answers when all are up.
    pub async fn start(program: impl Into<PathBuf>, data: &Path) -> anyhow::Result<Self> {
        let (http, grpc) = (ports::free()?, ports::free()?);
        let inner = SERVICES.into_iter().filter(|name| *name != "gateway");
        let ports: BTreeMap<_, _> = inner.zip(ports::for_services(SERVICES.len() - 1)?).collect();
        let mut environment = vec![
            ("TROUPE__PROCESS__DATA".to_owned(), data.display().to_string()),
            ("TROUPE__GATEWAY__HTTP".to_owned(), format!("127.0.0.1:{http}")),
            ("TROUPE__GATEWAY__GRPC".to_owned(), format!("127.0.0.1:{grpc}")),
        ];
        let others = ports.iter().filter(|(name, _)| **name != "agents");
        environment.extend(
            others.map(|(name, port)| (format!("TROUPE__PROCESS__ADDRESSES__{}", name.to_uppercase()), format!("http://127.0.0.1:{port}"))),
        );
        let api = Api::new(format!("http://127.0.0.1:{http}"));
        let mut cluster = Self { program: program.into(), environment, ports, children: BTreeMap::new(), api, grpc };
        for name in SERVICES {
            cluster.spawn(name)?;
        }
        for name in SERVICES {
            cluster.wait(name).await?;
        }
        Ok(cluster)
    }

    /// The HTTP API.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The public gRPC API.
    pub fn grpc_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// `kill -9` of one service.
    pub async fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let mut child = self.children.remove(name).with_context(|| format!("{name} does not run"))?;
        child.kill().await.with_context(|| format!("cannot kill {name}"))
    }

    /// Starts a service again after [`Cluster::kill`]; answers when it is up.
    pub async fn restart(&mut self, name: &'static str) -> anyhow::Result<()> {
        self.spawn(name)?;
        self.wait(name).await
    }

    fn spawn(&mut self, name: &'static str) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["service", name]).envs(self.environment.iter().map(|(k, v)| (k, v)));
        if let Some(port) = self.ports.get(name) {
            command.args(["--port", &port.to_string()]);
        }
        let child = command.stdin(Stdio::null()).kill_on_drop(true).spawn().with_context(|| format!("cannot start {name}"))?;
        self.children.insert(name, child);
        Ok(())
    }

    async fn wait(&mut self, name: &'static str) -> anyhow::Result<()> {
        let api = self.ports.get(name).map_or_else(|| self.api.clone(), |port| Api::new(format!("http://127.0.0.1:{}", ports::ops(*port))));
        let child = self.children.get_mut(name).with_context(|| format!("{name} does not run"))?;
        until(&format!("{name} is up"), async || match child.try_wait() {
            Ok(Some(status)) => Some(Err(anyhow::anyhow!("{name} ended before it was up: {status}"))),
            _ => matches!(api.get("/live").await, Ok((200, _))).then_some(Ok(())),
        })
        .await?
    }
}
