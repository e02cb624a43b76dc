//! What a cluster consists of.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

/// In an order in which nobody waits long: each after what it needs at its start.
pub(super) const SERVICES: [&str; 7] = ["checkpoint", "registry", "executor", "scheduler", "approval", "agents", "gateway"];

/// Those that keep something in PostgreSQL where there is one.
const ON_POSTGRES: [&str; 3] = ["checkpoint", "registry", "approval"];

/// `(process, target, URL)` gives the URL that the process shall use instead: a proxy's. A target is a process ("checkpoint-1"),
/// `postgres` or `redis`.
pub type Through = Arc<dyn Fn(&str, &str, &str) -> String + Send + Sync>;

/// The processes of a cluster and what they are told. The default is one of each service on files.
#[derive(Clone, Default)]
pub struct Plan {
    /// Processes of a service; one where nothing is said.
    pub replicas: BTreeMap<String, usize>,
    /// Processes that have their place but are not started at first.
    pub later: BTreeSet<String>,
    /// The database's URL; without one, services keep their data in files and cannot have replicas.
    pub postgres: Option<String>,
    /// The queues' URL; without one they are in the scheduler's memory.
    pub redis: Option<String>,
    /// Variables of all processes.
    pub environment: Vec<(String, String)>,
    /// More variables of some process.
    pub environment_of: BTreeMap<String, Vec<(String, String)>>,
    /// A command that some process is an argument of (`faketime`, `nice`); it has to become the process (`exec`).
    pub wrapper_of: BTreeMap<String, Vec<String>>,
    pub through: Option<Through>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("replicas", &self.replicas).field("later", &self.later).finish_non_exhaustive()
    }
}

impl Plan {
    /// `count` processes of a service.
    #[must_use]
    pub fn replicas(mut self, service: &str, count: usize) -> Self {
        self.replicas.insert(service.to_owned(), count);
        self
    }

    /// A variable of all processes.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// The names of all processes: "executor-1" and so on.
    pub fn names(&self) -> Vec<String> {
        let of = |service: &'static str| (1..=self.count(service)).map(move |number| format!("{service}-{number}"));
        SERVICES.into_iter().flat_map(of).collect()
    }

    fn count(&self, service: &str) -> usize {
        self.replicas.get(service).copied().unwrap_or(1)
    }

    fn url(&self, name: &str, target: &str, url: &str) -> String {
        self.through.as_ref().map_or_else(|| url.to_owned(), |through| through(name, target, url))
    }

    /// The variables of one process. `addresses` are the gRPC URLs of all.
    pub(super) fn variables(&self, name: &str, addresses: &BTreeMap<String, String>) -> Vec<(String, String)> {
        let mut variables = Vec::new();
        for service in SERVICES.into_iter().filter(|service| !matches!(*service, "agents" | "gateway")) {
            let of_service = addresses.iter().filter(|(target, _)| service_of(target) == service);
            let urls: Vec<String> = of_service.map(|(target, url)| self.url(name, target, url)).collect();
            variables.push((format!("TROUPE__PROCESS__ADDRESSES__{}", service.to_uppercase()), urls.join(",")));
        }
        let service = service_of(name);
        if let Some(url) = &self.postgres
            && ON_POSTGRES.contains(&service)
        {
            variables.push((format!("TROUPE__{}__POSTGRES__URL", service.to_uppercase()), self.url(name, "postgres", url)));
        }
        if let Some(url) = &self.redis
            && service == "scheduler"
        {
            variables.push(("TROUPE__SCHEDULER__REDIS__URL".to_owned(), self.url(name, "redis", url)));
        }
        variables.extend(self.environment.iter().cloned());
        variables.extend(self.environment_of.get(name).into_iter().flatten().cloned());
        variables
    }
}

/// "executor" of "executor-1".
pub fn service_of(name: &str) -> &str {
    name.rsplit_once('-').map_or(name, |(service, _)| service)
}
