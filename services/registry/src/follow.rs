//! How a replica keeps up with the others: the catalogue shows what is in the database they share, change by change, in their order.

use crate::{
    agent::Key,
    catalogue::Catalogue,
    config::Config,
    instances,
    store::{
        Store as _,
        postgres::{Changes, PostgresStore, by_key},
    },
};
use prost::Message as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;
use troupe_domain::Error;
use troupe_proto::registry::v1 as wire;

/// See the module.
pub(crate) struct Follower {
    pub(crate) store: PostgresStore,
    catalogue: Arc<Catalogue>,
    /// Rounds that have begun.
    begun: AtomicU64,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    revision: u64,
    /// The last round that reached the end.
    completed: u64,
}

impl Follower {
    /// A catalogue of everything that the store has.
    pub(crate) async fn start(store: PostgresStore, config: &Config) -> Result<Self, Error> {
        let catalogue = Arc::new(Catalogue::new(config.watch_buffer, Vec::new(), Vec::new()));
        let follower = Self { store, catalogue, begun: AtomicU64::new(0), progress: Mutex::default() };
        let mut progress = follower.progress.lock().await;
        follower.reload(&mut progress).await?;
        drop(progress);
        Ok(follower)
    }

    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue)
    }

    /// Ends when the catalogue shows everything that any replica answered before the call. Calls that wait together share one question.
    pub(crate) async fn catch_up(&self) -> Result<(), Error> {
        let before = self.begun.load(Ordering::SeqCst);
        let mut progress = self.progress.lock().await;
        if progress.completed > before {
            return Ok(());
        }
        let round = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        loop {
            match self.store.changes(progress.revision).await? {
                Changes::Missed => {
                    self.reload(&mut progress).await?;
                    break;
                }
                Changes::These { revision, agents, schedulers, more } => {
                    self.show(&agents, &schedulers).await?;
                    progress.revision = revision;
                    if !more {
                        break;
                    }
                }
            }
        }
        progress.completed = round;
        Ok(())
    }

    /// Follows until the service stops, and drops what replicas left that are gone.
    pub(crate) async fn run(self: Arc<Self>, config: Config, stopping: CancellationToken) {
        let mut works = true;
        let mut since = Instant::now();
        let mut swept = since;
        while stopping.run_until_cancelled(tokio::time::sleep(config.refresh())).await.is_some() {
            let mut outcome = self.catch_up().await;
            // After an outage of the database everybody gets the time to renew what they hold.
            let settled = works && since.elapsed() >= config.instance_life();
            if outcome.is_ok() && settled && swept.elapsed() >= config.renewal() {
                swept = Instant::now();
                outcome = self.store.expire_reports().await.map(drop);
            }
            match outcome {
                Ok(()) if !works => {
                    tracing::info!("the registry's database is back");
                    (works, since) = (true, Instant::now());
                }
                Err(error) if works => {
                    tracing::error!(error = %error, "the registry cannot follow its database");
                    works = false;
                }
                _ => {}
            }
        }
    }

    /// Everything anew: the beginning, or too much was missed.
    async fn reload(&self, progress: &mut Progress) -> Result<(), Error> {
        // The number first: what changes meanwhile comes once more, and makes no difference then.
        let revision = self.store.revision().await?;
        let (active, standings) = by_key(self.store.load().await?);
        let reports: BTreeMap<_, _> = self.store.reports(None).await?.into_iter().collect();
        let keys: BTreeSet<Key> = self.catalogue.keys().into_iter().chain(active.keys().chain(standings.keys()).cloned()).collect();
        for key in keys {
            self.catalogue.set(&key, active.get(&key).cloned(), standings.get(&key).cloned());
        }
        let schedulers: BTreeSet<String> = self.catalogue.schedulers().into_iter().chain(reports.keys().cloned()).collect();
        for scheduler in &schedulers {
            self.show_report(scheduler, reports.get(scheduler));
        }
        progress.revision = revision;
        Ok(())
    }

    async fn show(&self, agents: &BTreeSet<Key>, schedulers: &BTreeSet<String>) -> Result<(), Error> {
        if !agents.is_empty() {
            let (mut active, mut standings) = by_key(self.store.agents(agents).await?);
            for key in agents {
                self.catalogue.set(key, active.remove(key), standings.remove(key));
            }
        }
        if !schedulers.is_empty() {
            let reports: BTreeMap<_, _> = self.store.reports(Some(schedulers)).await?.into_iter().collect();
            for scheduler in schedulers {
                self.show_report(scheduler, reports.get(scheduler));
            }
        }
        Ok(())
    }

    fn show_report(&self, scheduler: &str, body: Option<&Vec<u8>>) {
        // For the catalogue each round is a newer stream.
        let round = self.begun.load(Ordering::SeqCst);
        let Some(body) = body else { return self.catalogue.forget(scheduler, round) };
        let served = wire::ReportInstancesRequest::decode(&body[..]).map_err(|_| Error::internal()).and_then(instances::served_by);
        let shown = served.map(|served| self.catalogue.report(scheduler, round, served));
        if shown.is_err() {
            tracing::error!(scheduler.id = scheduler, "a stored report cannot be read");
        }
    }
}
