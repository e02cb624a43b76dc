//! What all parts of an executor share.

use crate::{config::Config, definitions::Definitions, effects::Effects, routing::Router, store::Store};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use tokio::sync::{Notify, watch};
use troupe_domain::{Error, Result};
use troupe_proto::scheduler::v1::scheduler_client::SchedulerClient;
use troupe_service_kit::Tasks;
use troupe_wire::Transport;

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) definitions: Definitions,
    pub(crate) router: Router,
    pub(crate) effects: Effects,
    pub(crate) scheduler: SchedulerClient<Transport>,
    /// What `env` holds in expressions.
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) tasks: Tasks,
    /// Runs in memory, over all partitions.
    pub(crate) in_memory: Arc<AtomicUsize>,
    /// Raised when effects may have been lost: all open runs issue theirs again.
    pub(crate) resync: watch::Sender<u64>,
    /// Raised when partitions may be free, or are to be given back.
    pub(crate) look: Notify,
    pub(crate) draining: AtomicBool,
}

impl Shared {
    /// Refuses new work while the service drains.
    pub(crate) fn accepting(&self) -> Result<()> {
        if self.draining.load(Ordering::Acquire) {
            let error = Error::unavailable("this executor is shutting down").with_reason("DRAINING");
            return Err(Error { retry_after_ms: Some(1_000), ..error });
        }
        Ok(())
    }
}
