//! All settings of all services: one section each.

use crate::cli::Globals;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};
use troupe_domain::{Error, Fault};
use troupe_service_kit::{
    config::{Layers, Loaded, accept, within},
    process, telemetry,
};

/// The settings file that is read when none is named.
const FILE: &str = "troupe.toml";

/// `troupe.toml`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The folder of the embedded databases.
    pub data: PathBuf,
    /// Keep all state in memory: nothing survives the process.
    pub memory: bool,
    /// How long a stopping `troupe dev` may take to finish what runs, in seconds, over all services. Default 30. Services in processes of
    /// their own have `process.drain_seconds`.
    pub drain_seconds: u64,
    pub telemetry: telemetry::Config,
    pub gateway: troupe_gateway::Config,
    pub executor: troupe_executor::Config,
    pub scheduler: troupe_scheduler::Config,
    pub checkpoint: troupe_checkpoint::Config,
    pub registry: troupe_registry::Config,
    pub approval: troupe_approval::Config,
    pub agents: troupe_agents::Config,
    /// Only for services in processes of their own.
    pub process: process::Config,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: PathBuf::from(".troupe"),
            memory: false,
            drain_seconds: 30,
            telemetry: telemetry::Config::default(),
            gateway: troupe_gateway::Config::default(),
            executor: troupe_executor::Config::default(),
            scheduler: troupe_scheduler::Config::default(),
            checkpoint: troupe_checkpoint::Config::default(),
            registry: troupe_registry::Config::default(),
            approval: troupe_approval::Config::default(),
            agents: troupe_agents::Config::default(),
            process: process::Config::default(),
        }
    }
}

impl Settings {
    /// All faults of all sections at once, each with its section's name in front.
    fn validate(&self) -> Result<(), Error> {
        let sections = [
            ("gateway", self.gateway.validate()),
            ("executor", self.executor.validate()),
            ("scheduler", self.scheduler.validate()),
            ("checkpoint", self.checkpoint.validate()),
            ("registry", self.registry.validate()),
            ("approval", self.approval.validate()),
            ("agents", self.agents.validate()),
        ];
        let whole = |name, faults: Vec<Fault>| faults.into_iter().map(move |fault| Fault { path: within(name, &fault.path), ..fault });
        accept("", sections.into_iter().flat_map(|(name, faults)| whole(name, faults)).collect())
    }
}

/// Settings given as flags.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub data: Option<PathBuf>,
    pub http: Option<SocketAddr>,
    pub grpc: Option<SocketAddr>,
    pub memory: bool,
    pub postgres: Option<String>,
    pub redis: Option<String>,
    pub danger: bool,
}

/// Reads file, overlay, environment and flags, and checks the result.
pub(crate) fn load(globals: &Globals, flags: Flags) -> Result<Loaded<Settings>, Error> {
    let (file, required) = globals.config.as_deref().map_or((Path::new(FILE), false), |file| (file, true));
    let mut layers = Layers::new().file(file, globals.environment.as_deref(), required)?.env(std::env::vars());
    if let Some(data) = flags.data {
        layers = layers.flag("data", data.display().to_string(), "--data");
    }
    if let Some(http) = flags.http {
        layers = layers.flag("gateway.http", http.to_string(), "--http");
    }
    if let Some(grpc) = flags.grpc {
        layers = layers.flag("gateway.grpc", grpc.to_string(), "--grpc");
    }
    if flags.memory {
        layers = layers.flag("memory", true, "--memory");
    }
    if let Some(url) = flags.postgres {
        for key in ["checkpoint.postgres.url", "registry.postgres.url", "approval.postgres.url"] {
            layers = layers.flag(key, url.clone(), "--postgres");
        }
    }
    if let Some(url) = flags.redis {
        layers = layers.flag("scheduler.redis.url", url, "--redis");
    }
    if flags.danger {
        let key = "gateway.danger_listen_on_all_interfaces_without_authentication";
        layers = layers.flag(key, true, "--danger-listen-on-all-interfaces-without-authentication");
    }
    let loaded: Loaded<Settings> = layers.read()?;
    loaded.value.validate()?;
    Ok(loaded)
}
