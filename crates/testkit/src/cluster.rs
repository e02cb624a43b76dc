//! The services as processes of their own, any number of each.

mod plan;

pub use plan::{Plan, Through, service_of};

use crate::{Api, Launch, Process, ports, until};
use anyhow::{Context, bail};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The processes, their data folder and their ports, which stay the same over restarts. All are killed when this is dropped.
pub struct Cluster {
    names: Vec<String>,
    members: BTreeMap<String, Member>,
    apis: Vec<Api>,
    grpc_urls: Vec<String>,
}

struct Member {
    process: Mutex<Process>,
    /// Where it answers `/live`, `/ready` and `/metrics`.
    ops: Api,
    address: String,
}

impl Member {
    fn process(&self) -> MutexGuard<'_, Process> {
        // Nothing that holds this lock panics.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ports of a process: gRPC and HTTP.
struct Ports {
    grpc: u16,
    http: u16,
}

impl Cluster {
    /// Starts `program service NAME` for each process of the plan, with data and logs in a folder, on free ports; answers when all are
    /// up. Their names are "executor-1" and so on.
    pub async fn start(program: impl Into<PathBuf>, data: &Path, plan: Plan) -> anyhow::Result<Self> {
        let program = program.into();
        let names = plan.names();
        let ports: BTreeMap<String, Ports> = names.iter().cloned().zip(ports::for_services(names.len())?).map(with_http).collect();
        let addresses: BTreeMap<String, String> = ports.iter().map(|(name, ports)| (name.clone(), local(ports.grpc))).collect();
        let mut members = BTreeMap::new();
        for (name, ports) in &ports {
            let launch = launch(&program, data, &plan, name, ports, &addresses);
            let (ops, address) = (Api::new(local(ports.http)), local(ports.grpc));
            let member = Member { process: Mutex::new(Process::later(launch)), ops, address };
            members.insert(name.clone(), member);
        }
        let gateways = || ports.iter().filter(|(name, _)| service_of(name) == "gateway");
        let apis = gateways().map(|(_, ports)| Api::new(local(ports.http))).collect();
        let grpc_urls = gateways().map(|(_, ports)| local(ports.grpc)).collect();
        let cluster = Self { names, members, apis, grpc_urls };
        let first: Vec<&String> = cluster.names.iter().filter(|name| !plan.later.contains(*name)).collect();
        for name in &first {
            cluster.member(name)?.process().begin()?;
        }
        for name in &first {
            cluster.wait(name).await?;
        }
        Ok(cluster)
    }

    /// All processes, in the order in which they are started.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The HTTP API at the first gateway.
    pub fn api(&self) -> &Api {
        &self.apis[0]
    }

    /// The HTTP API at each gateway.
    pub fn apis(&self) -> &[Api] {
        &self.apis
    }

    /// The public gRPC API at the first gateway.
    pub fn grpc_url(&self) -> String {
        self.grpc_urls[0].clone()
    }

    /// The public gRPC API at each gateway.
    pub fn grpc_urls(&self) -> &[String] {
        &self.grpc_urls
    }

    /// The gRPC URL of a process.
    pub fn address(&self, name: &str) -> anyhow::Result<&str> {
        Ok(&self.member(name)?.address)
    }

    /// `/live`, `/ready`, `/health` and `/metrics` of a process.
    pub fn ops(&self, name: &str) -> anyhow::Result<&Api> {
        Ok(&self.member(name)?.ops)
    }

    /// `kill -9`.
    pub async fn kill(&self, name: &str) -> anyhow::Result<()> {
        self.member(name)?.process().kill()
    }

    /// Starts a process that does not run; answers when it is up.
    pub async fn restart(&self, name: &str) -> anyhow::Result<()> {
        self.member(name)?.process().begin()?;
        self.wait(name).await
    }

    /// `STOP`, `CONT`...
    pub fn signal(&self, name: &str, signal: &str) -> anyhow::Result<()> {
        self.member(name)?.process().signal(signal)
    }

    /// SIGTERM, on which a process hands over what it has; answers when it has ended.
    pub async fn terminate(&self, name: &str) -> anyhow::Result<ExitStatus> {
        let member = self.member(name)?;
        member.process().signal("TERM")?;
        until(&format!("{name} ends"), async || member.process().ended()).await
    }

    /// False for a process that ended by itself, too.
    pub fn is_running(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|member| member.process().is_running())
    }

    pub fn pid(&self, name: &str) -> Option<u32> {
        self.members.get(name).and_then(|member| member.process().pid())
    }

    /// The file with the output of a process, over all its lives.
    pub fn log(&self, name: &str) -> anyhow::Result<PathBuf> {
        Ok(self.member(name)?.process().log().to_owned())
    }

    /// Waits until every process that runs says at `/ready` that it is.
    pub async fn ready(&self) -> anyhow::Result<()> {
        for name in &self.names {
            let member = self.member(name)?;
            let ready = async || !self.is_running(name) || matches!(member.ops.get("/ready").await, Ok((200, _)));
            let waited = until(&format!("{name} is ready"), async || ready().await.then_some(())).await;
            waited.with_context(|| member.process().last_lines())?;
        }
        Ok(())
    }

    /// Waits until a process answers.
    pub async fn wait(&self, name: &str) -> anyhow::Result<()> {
        let member = self.member(name)?;
        let waited = until(&format!("{name} is up"), async || {
            let ended = member.process().ended();
            match ended {
                Some(status) => Some(Err(anyhow::anyhow!("{name} ended before it was up: {status}"))),
                None => matches!(member.ops.get("/live").await, Ok((200, _))).then_some(Ok(())),
            }
        })
        .await;
        match waited {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) | Err(error) => bail!("{error}\n{}", member.process().last_lines()),
        }
    }

    fn member(&self, name: &str) -> anyhow::Result<&Member> {
        self.members.get(name).with_context(|| format!("there is no process {name}: {:?}", self.names))
    }
}

fn local(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// Services answer HTTP at a fixed distance; the gateway's two ports are free to choose, and get the same.
fn with_http((name, grpc): (String, u16)) -> (String, Ports) {
    (name, Ports { grpc, http: ports::ops(grpc) })
}

fn launch(program: &Path, data: &Path, plan: &Plan, name: &str, ports: &Ports, addresses: &BTreeMap<String, String>) -> Launch {
    let mut environment = vec![("TROUPE__PROCESS__DATA".to_owned(), data.display().to_string())];
    let mut words: Vec<std::ffi::OsString> = plan.wrapper_of.get(name).into_iter().flatten().map(Into::into).collect();
    words.extend([program.into(), "service".into(), service_of(name).into()]);
    if service_of(name) == "gateway" {
        environment.push(("TROUPE__GATEWAY__HTTP".to_owned(), format!("127.0.0.1:{}", ports.http)));
        environment.push(("TROUPE__GATEWAY__GRPC".to_owned(), format!("127.0.0.1:{}", ports.grpc)));
    } else {
        words.extend(["--port".into(), ports.grpc.to_string().into()]);
    }
    environment.extend(plan.variables(name, addresses));
    let arguments = words.split_off(1);
    let log = data.join("logs").join(format!("{name}.log"));
    Launch { name: name.to_owned(), program: words.remove(0).into(), arguments, environment, log }
}
