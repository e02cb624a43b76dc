//! What schedulers report: the workers connected to them, for each agent that a worker serves.

use crate::{
    agent::Key,
    catalogue::{Catalogue, Superseded},
    config::Config,
};
use std::{collections::HashMap, sync::Arc};
use troupe_domain::{Error, Fault};
use troupe_proto::registry::v1 as wire;

const MAX_ID: usize = 128;
const MAX_CAPABILITIES: usize = 100;

/// Who serves an agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServedBy {
    pub(crate) scheduler: String,
    pub(crate) worker: String,
}

/// How a worker serves an agent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Served {
    pub(crate) version: String,
    pub(crate) capabilities: Vec<String>,
    pub(crate) instance: wire::Instance,
}

/// One scheduler's stream of reports. What it reported is gone when this is dropped.
pub(crate) struct Reporter {
    catalogue: Arc<Catalogue>,
    scheduler: String,
    stream: u64,
}

impl Reporter {
    /// `stream` must be larger than that of every stream before.
    pub(crate) fn new(catalogue: Arc<Catalogue>, stream: u64) -> Self {
        Self { catalogue, scheduler: String::new(), stream }
    }

    /// Takes a report in place of the last one.
    pub(crate) fn report(&mut self, report: wire::ReportInstancesRequest, config: &Config) -> Result<(), Error> {
        let id = report.scheduler_id;
        if id.is_empty() || id.len() > MAX_ID || !(self.scheduler.is_empty() || self.scheduler == id) {
            let message = format!("is empty, longer than {MAX_ID} bytes, or another one than before");
            return Err(Error::invalid_field("scheduler_id", message).with_help("one stream speaks for one scheduler"));
        }
        if report.instances.len() > config.max_instances_per_report {
            let message =
                format!("{} instances in a report, at most {} are allowed", report.instances.len(), config.max_instances_per_report);
            return Err(Error::invalid_field("instances", message).with_help("raise registry.max_instances_per_report"));
        }
        let served = report.instances.into_iter().enumerate().map(|(i, reported)| served(&id, reported).map_err(|e| placed(i, e)));
        let served = served.collect::<Result<HashMap<_, _>, _>>()?;
        self.scheduler = id;
        self.catalogue.report(&self.scheduler, self.stream, served).map_err(|Superseded| {
            Error::precondition(format!("another stream reports for scheduler {}", self.scheduler)).with_reason("SUPERSEDED")
        })
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if !self.scheduler.is_empty() {
            self.catalogue.forget(&self.scheduler, self.stream);
        }
    }
}

fn served(scheduler: &str, reported: wire::ReportedInstance) -> Result<((Key, String), Served), Error> {
    let key = Key::parse(&reported.namespace, &reported.agent)?;
    let mut instance = reported.instance.unwrap_or_default();
    let long = |text: &String| text.len() > MAX_ID;
    if instance.worker_id.is_empty() || long(&instance.worker_id) || long(&instance.client) || long(&reported.version) {
        return Err(Error::invalid_field("instance", format!("has no worker_id, or a text longer than {MAX_ID} bytes")));
    }
    if reported.capabilities.len() > MAX_CAPABILITIES || reported.capabilities.iter().any(long) {
        return Err(Error::invalid_field("capabilities", format!("are more than {MAX_CAPABILITIES}, or longer than {MAX_ID} bytes")));
    }
    match instance.health.as_str() {
        "" => instance.health = "healthy".to_owned(),
        "healthy" | "stalled" | "draining" => {}
        _ => return Err(Error::invalid_field("instance.health", "is not healthy, stalled or draining")),
    }
    instance.scheduler_id = scheduler.to_owned();
    let worker = instance.worker_id.clone();
    Ok(((key, worker), Served { version: reported.version, capabilities: reported.capabilities, instance }))
}

fn placed(i: usize, mut error: Error) -> Error {
    error.faults = error.faults.into_iter().map(|f| Fault { path: format!("instances[{i}].{}", f.path), ..f }).collect();
    error.message = format!("instances[{i}]: {}", error.message);
    error
}
