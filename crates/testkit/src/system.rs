//! Troupe as its users meet it, whether it runs in one process or in many.

use crate::{Api, Cluster, DevServer, Plan, server};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// One process with everything in it, or the separate services.
pub struct System {
    program: PathBuf,
    folder: PathBuf,
    kind: Kind,
}

enum Kind {
    OneProcess(Box<DevServer>),
    Services(Cluster),
}

impl System {
    /// `program dev` with its data in `folder/data`; answers when it is ready.
    pub async fn one_process(program: impl Into<PathBuf>, folder: &Path) -> anyhow::Result<Self> {
        let program = program.into();
        let server = DevServer::start(&program, &folder.join("data")).await?;
        Ok(Self { program, folder: folder.to_owned(), kind: Kind::OneProcess(Box::new(server)) })
    }

    /// The processes of a plan, with logs and such in `folder/data`; answers when all are ready.
    pub async fn services(program: impl Into<PathBuf>, folder: &Path, plan: Plan) -> anyhow::Result<Self> {
        let program = program.into();
        let cluster = Cluster::start(&program, &folder.join("data"), plan).await?;
        cluster.ready().await?;
        Ok(Self { program, folder: folder.to_owned(), kind: Kind::Services(cluster) })
    }

    /// Where a test may put files of its own.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn is_one_process(&self) -> bool {
        matches!(self.kind, Kind::OneProcess(_))
    }

    /// The processes, if they are several.
    pub fn cluster(&self) -> Option<&Cluster> {
        match &self.kind {
            Kind::OneProcess(_) => None,
            Kind::Services(cluster) => Some(cluster),
        }
    }

    /// The HTTP API; of several gateways the first one's.
    pub fn api(&self) -> &Api {
        match &self.kind {
            Kind::OneProcess(server) => server.api(),
            Kind::Services(cluster) => cluster.api(),
        }
    }

    pub fn url(&self) -> &str {
        self.api().url()
    }

    /// The public gRPC API; all gateways where there are several.
    pub fn grpc_url(&self) -> String {
        match &self.kind {
            Kind::OneProcess(server) => server.grpc_url(),
            Kind::Services(cluster) => cluster.grpc_urls().join(","),
        }
    }

    /// `kill -9` of every process, and all of them again; answers when they are ready.
    pub async fn crash(&mut self) -> anyhow::Result<()> {
        match &mut self.kind {
            Kind::OneProcess(server) => {
                server.kill().await?;
                server.restart().await
            }
            Kind::Services(cluster) => {
                for name in cluster.names() {
                    cluster.kill(name).await?;
                }
                for name in cluster.names() {
                    cluster.restart(name).await?;
                }
                cluster.ready().await
            }
        }
    }

    /// The command line, not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        server::command(&self.program, self.url(), args)
    }

    /// GET; the status and the JSON answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<(u16, Value)> {
        self.api().get(path).await
    }

    /// POST of JSON; the status and the JSON answer.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        self.api().post(path, body).await
    }

    /// POST of text of a type.
    pub async fn post_text(&self, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> anyhow::Result<(u16, Value)> {
        self.api().post_text(path, content_type, body).await
    }
}
