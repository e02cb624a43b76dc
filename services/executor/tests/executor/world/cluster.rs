//! Several executors over one journal, with one scheduler and one approval service.

use super::{FakeApprovals, FakeScheduler, Journal, Link, Worker, World};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tonic::Status;
use troupe_executor::Config;
use troupe_proto::{
    checkpoint::v1::{ListPartitionsRequest, checkpoint_store_client::CheckpointStoreClient},
    executor::v1::effect_service_client::EffectServiceClient,
};
use troupe_service_kit::Tasks;
use troupe_wire::{Connector, Transport};

pub(crate) const LEASE: Duration = Duration::from_millis(600);

/// Who is where: addresses of those who are up.
#[derive(Clone, Default)]
struct Net {
    up: Arc<Mutex<BTreeMap<String, Transport>>>,
    /// Nobody gets through to these although they are up.
    cut_off: Arc<Mutex<BTreeSet<String>>>,
    turn: Arc<AtomicUsize>,
}

impl Net {
    /// Calls whoever `pick` finds at that moment.
    fn transport(&self, pick: impl Fn(&Self) -> Option<Transport> + Clone + Send + Sync + 'static) -> Transport {
        let net = self.clone();
        Transport::embedded(tower::service_fn(move |request: tonic::codegen::http::Request<tonic::body::Body>| {
            let target = pick(&net);
            async move {
                match target {
                    Some(target) => tower::ServiceExt::oneshot(target, request).await,
                    None => Ok::<_, tonic::codegen::StdError>(Status::unavailable("nobody is there").into_http()),
                }
            }
        }))
    }

    fn connector(&self) -> Connector {
        let net = self.clone();
        Connector::new(move |address| {
            let address = address.to_owned();
            Ok(net.transport(move |net| {
                let cut_off = net.cut_off.lock().unwrap().contains(&address);
                net.up.lock().unwrap().get(&address).filter(|_| !cut_off).cloned()
            }))
        })
    }

    /// Each call goes to the next one.
    fn any(&self) -> Transport {
        self.transport(|net| {
            let up = net.up.lock().unwrap();
            let turn = net.turn.fetch_add(1, Ordering::SeqCst);
            up.values().nth(turn % up.len().max(1)).cloned()
        })
    }
}

pub(crate) struct Cluster {
    pub(crate) journal: Journal,
    pub(crate) scheduler: FakeScheduler,
    pub(crate) approvals: FakeApprovals,
    net: Net,
    joined: AtomicUsize,
}

impl Cluster {
    pub(crate) fn on(journal: Journal, worker: Worker) -> Self {
        let net = Net::default();
        let scheduler = FakeScheduler::new(Tasks::new(), EffectServiceClient::new(net.any()), worker);
        Self { journal, scheduler, approvals: FakeApprovals::default(), net, joined: AtomicUsize::new(0) }
    }

    pub(crate) async fn new(worker: Worker) -> Self {
        Self::on(Journal::in_memory().await, worker)
    }

    fn config() -> Config {
        Config { partitions: 8, lease_ms: LEASE.as_millis().try_into().unwrap(), ..Config::default() }
    }

    /// Another executor. The first one is "e0".
    pub(crate) async fn join(&self, config: Config) -> World {
        self.join_by(config, &Link::default()).await
    }

    pub(crate) async fn add(&self) -> World {
        self.join(Self::config()).await
    }

    /// Another one, with a link of its own to the journal.
    pub(crate) async fn add_by(&self, link: &Link) -> World {
        self.join_by(Self::config(), link).await
    }

    /// One that others cannot reach.
    pub(crate) async fn seclude(&self) -> anyhow::Result<World> {
        let (scheduler, approvals) = (self.scheduler.clone(), self.approvals.clone());
        World::try_join(&self.journal, Self::config(), Tasks::new(), scheduler, approvals, Some(self.net.connector())).await
    }

    /// One that others can reach, where it may be refused.
    pub(crate) async fn try_add(&self) -> anyhow::Result<World> {
        let config = Config { address: "http://refused".to_owned(), ..Self::config() };
        let (scheduler, approvals) = (self.scheduler.clone(), self.approvals.clone());
        World::try_join(&self.journal, config, Tasks::new(), scheduler, approvals, Some(self.net.connector())).await
    }

    async fn join_by(&self, config: Config, link: &Link) -> World {
        let n = self.joined.fetch_add(1, Ordering::SeqCst);
        let address = format!("http://e{n}");
        let config = Config { owner: format!("e{n}"), address: address.clone(), ..config };
        let journal = link.before(&self.journal);
        let (scheduler, approvals) = (self.scheduler.clone(), self.approvals.clone());
        let world = World::join(&journal, config, Tasks::new(), scheduler, approvals, Some(self.net.connector())).await;
        self.net.up.lock().unwrap().insert(address, Transport::embedded(world.service.routes()));
        world
    }

    /// Whether the other executors cannot get through to this one.
    pub(crate) fn cut_off(&self, n: usize, is_cut_off: bool) {
        let (mut cut_off, address) = (self.net.cut_off.lock().unwrap(), format!("http://e{n}"));
        if is_cut_off {
            cut_off.insert(address)
        } else {
            cut_off.remove(&address)
        };
    }

    /// Ends as a killed process does.
    pub(crate) async fn crash(&self, n: usize, world: World) {
        self.net.up.lock().unwrap().remove(&format!("http://e{n}"));
        world.crash().await;
    }

    /// Ends as a process does that is told to.
    pub(crate) async fn leave(&self, n: usize, world: World) {
        world.service.drain().await;
        self.crash(n, world).await;
    }

    /// How many partitions each one owns.
    pub(crate) async fn owners(&self) -> BTreeMap<String, usize> {
        let mut client = CheckpointStoreClient::new(self.journal.transport.clone());
        let leases = client.list_partitions(ListPartitionsRequest {}).await.unwrap().into_inner().leases;
        let mut owners = BTreeMap::new();
        for lease in leases.into_iter().filter(|lease| lease.remaining_ms > 0) {
            *owners.entry(lease.owner.split('@').next().unwrap().to_owned()).or_default() += 1;
        }
        owners
    }

    /// Waits until the shares are these, from "e0" on; 0: it has none.
    pub(crate) async fn settles(&self, shares: &[usize]) {
        let wanted: BTreeMap<String, usize> =
            shares.iter().enumerate().filter(|(_, share)| **share > 0).map(|(n, share)| (format!("e{n}"), *share)).collect();
        super::eventually(&format!("the shares become {shares:?}"), async || self.owners().await == wanted).await;
    }
}
