//! What schedulers report: the workers connected to them, for each agent that a worker serves.

use crate::{
    agent::Key,
    catalogue::{Catalogue, Superseded},
    config::Config,
    follow::Follower,
    store::postgres::reports::Speaker,
};
use prost::Message as _;
use std::{collections::HashMap, sync::Arc, time::Duration};
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

/// Who serves what.
pub(crate) type Serving = HashMap<(Key, String), Served>;

/// One scheduler's stream of reports.
pub(crate) struct Reporter {
    scheduler: String,
    place: Place,
}

/// Where the reports are kept.
enum Place {
    /// In this process, under a number that grows from stream to stream.
    Here(Arc<Catalogue>, u64),
    /// In the store that all replicas follow.
    Shared(Held),
}

/// What this replica holds up in the store.
struct Held {
    follower: Arc<Follower>,
    life: Duration,
    by: Speaker,
    last: Vec<u8>,
    /// Whether the store has `last`.
    is_kept: bool,
    /// Whether the store has had a report of this stream. The first one takes over from whoever spoke for the scheduler before.
    has_spoken: bool,
}

impl Reporter {
    /// `stream` must be larger than that of every stream of this process before.
    pub(crate) fn here(catalogue: Arc<Catalogue>, stream: u64) -> Self {
        Self { scheduler: String::new(), place: Place::Here(catalogue, stream) }
    }

    /// For the stores that replicas share.
    pub(crate) fn shared(follower: Arc<Follower>, life: Duration) -> Self {
        let by = Speaker { scheduler: String::new(), stream: uuid::Uuid::new_v4().to_string() };
        Self {
            scheduler: String::new(),
            place: Place::Shared(Held { follower, life, by, last: Vec::new(), is_kept: true, has_spoken: false }),
        }
    }

    /// Takes a report in place of the last one. An error ends the stream.
    pub(crate) async fn report(&mut self, report: wire::ReportInstancesRequest, config: &Config) -> Result<(), Error> {
        let id = &report.scheduler_id;
        if id.is_empty() || id.len() > MAX_ID || !(self.scheduler.is_empty() || self.scheduler == *id) {
            let message = format!("is empty, longer than {MAX_ID} bytes, or another one than before");
            return Err(Error::invalid_field("scheduler_id", message).with_help("one stream speaks for one scheduler"));
        }
        if report.instances.len() > config.max_instances_per_report {
            let message =
                format!("{} instances in a report, at most {} are allowed", report.instances.len(), config.max_instances_per_report);
            return Err(Error::invalid_field("instances", message).with_help("raise registry.max_instances_per_report"));
        }
        let id = id.clone();
        match &mut self.place {
            Place::Here(catalogue, stream) => {
                let served = served_by(report)?;
                catalogue.report(&id, *stream, served).map_err(|Superseded| superseded(&id))?;
                self.scheduler = id;
                Ok(())
            }
            Place::Shared(held) => {
                let body = report.encode_to_vec();
                served_by(report)?;
                self.scheduler.clone_from(&id);
                held.by.scheduler = id;
                if held.has_spoken && held.is_kept && held.last == body {
                    return Ok(());
                }
                (held.last, held.is_kept) = (body, false);
                held.keep().await
            }
        }
    }

    /// Holds the last report up, and brings it to a store that could not take it before. An error ends the stream.
    pub(crate) async fn renew(&mut self) -> Result<(), Error> {
        match &mut self.place {
            Place::Shared(held) if !self.scheduler.is_empty() => held.renew().await,
            _ => Ok(()),
        }
    }

    /// The stream has ended: what it reported is gone.
    pub(crate) async fn end(self) {
        if self.scheduler.is_empty() {
            return;
        }
        match self.place {
            Place::Here(catalogue, stream) => catalogue.forget(&self.scheduler, stream),
            Place::Shared(held) => {
                if let Err(error) = held.follower.store.end_report(&held.by).await {
                    tracing::warn!(error = %error, scheduler.id = self.scheduler, "the end of a report was not stored: it expires");
                }
            }
        }
    }
}

impl Held {
    async fn keep(&mut self) -> Result<(), Error> {
        let store = &self.follower.store;
        match store.report(&self.by, !self.has_spoken, &self.last, self.life).await {
            Ok(true) => {
                (self.is_kept, self.has_spoken) = (true, true);
                // Should it fail, the follower's next look shows the report.
                let _ = self.follower.catch_up().await;
                Ok(())
            }
            Ok(false) => Err(superseded(&self.by.scheduler)),
            Err(error) => {
                tracing::warn!(error = %error, scheduler.id = self.by.scheduler, "a report was not stored: it is tried again");
                Ok(())
            }
        }
    }

    async fn renew(&mut self) -> Result<(), Error> {
        if !self.is_kept {
            return self.keep().await;
        }
        match self.follower.store.renew(&self.by, self.life).await {
            Ok(true) => Ok(()),
            // It had expired while the store was away, or another stream speaks for the scheduler now: keeping it shows which.
            Ok(false) => self.keep().await,
            Err(error) => {
                tracing::warn!(error = %error, scheduler.id = self.by.scheduler, "a report was not renewed: it is tried again");
                Ok(())
            }
        }
    }
}

fn superseded(scheduler: &str) -> Error {
    Error::precondition(format!("another stream reports for scheduler {scheduler}")).with_reason("SUPERSEDED")
}

/// The workers of a report, by agent. Errors name the instance.
pub(crate) fn served_by(report: wire::ReportInstancesRequest) -> Result<Serving, Error> {
    let id = report.scheduler_id;
    report.instances.into_iter().enumerate().map(|(i, reported)| served(&id, reported).map_err(|e| placed(i, e))).collect()
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
