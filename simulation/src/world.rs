//! The nodes: every service as it is, several executors, workers, and a client.

use crate::{
    net::{Net, NodeId, To},
    trace::{Dice, SharedDice},
    work::{Book, Hand},
};
use futures::{FutureExt, future::BoxFuture};
use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};
use tokio::task::JoinHandle;
use troupe_service_kit::Tasks;
use troupe_wire::{Connector, Transport};

/// How long an executor owns a partition after its last renewal.
pub(crate) const LEASE: Duration = Duration::from_millis(2_000);
const PARTITIONS: u32 = 4;

/// What a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Checkpoint,
    Approval,
    Scheduler,
    Executor,
    Worker,
    Client,
}

/// A node and its present process.
struct Place {
    id: NodeId,
    role: Role,
    process: Option<Process>,
}

struct Process {
    tasks: Tasks,
    /// Hands over and finishes what it has, where the process can.
    drain: Drain,
    main: JoinHandle<()>,
}

/// Set once the process is up.
type Drain = Arc<OnceLock<Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>>>;

/// The system. Clones are the same one.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) book: Book,
    pub(crate) journal: Arc<dyn troupe_checkpoint::Journal>,
    dice: SharedDice,
    places: Arc<Mutex<Vec<Place>>>,
    /// Servers of the nodes whose memory stands for a database.
    lasting: [Transport; 2],
    executors: Vec<NodeId>,
    checkpoint: NodeId,
    approval: NodeId,
    scheduler: NodeId,
    client: NodeId,
}

impl World {
    /// Starts all nodes.
    pub(crate) async fn start(seed: u64, net: Net) -> anyhow::Result<Self> {
        let mut dice = Dice::new(seed, "world");
        let mut places = Vec::new();
        let mut add = |role, name: &str| {
            let id = net.add(name);
            places.push(Place { id, role, process: None });
            id
        };
        let checkpoint = add(Role::Checkpoint, "checkpoint");
        let approval = add(Role::Approval, "approval");
        let scheduler = add(Role::Scheduler, "scheduler");
        let client = add(Role::Client, "client");
        let executors: Vec<NodeId> = (0..dice.between(2, 3)).map(|n| add(Role::Executor, &format!("executor-{n}"))).collect();
        for n in 0..dice.between(2, 3) {
            add(Role::Worker, &format!("worker-{n}"));
        }
        net.begin(approval);
        net.begin(client);
        let tasks = Tasks::new();
        let settings = troupe_checkpoint::Config { prune_interval_seconds: 0, ..Default::default() };
        let store = troupe_checkpoint::Service::start(settings, troupe_checkpoint::Backend::Memory, &tasks).await?;
        let needs = troupe_approval::Dependencies { executor: net.transport(approval, To::Any(executors.clone())) };
        let settings = troupe_approval::Config { delivery_timeout_ms: 3_000, delivery_backoff_max_ms: 2_000, ..Default::default() };
        let desk = troupe_approval::Service::start(settings, troupe_approval::Backend::Memory, needs, &tasks).await?;
        let world = Self {
            net,
            book: Book::default(),
            journal: store.journal(),
            dice: Arc::new(Mutex::new(Dice::new(seed, "work"))),
            places: Arc::new(Mutex::new(places)),
            lasting: [Transport::embedded(store.routes()), Transport::embedded(desk.routes())],
            executors,
            checkpoint,
            approval,
            scheduler,
            client,
        };
        let all: Vec<NodeId> = world.places().iter().map(|place| place.id).collect();
        all.into_iter().for_each(|node| world.boot(node));
        Ok(world)
    }

    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nodes with this role.
    pub(crate) fn nodes(&self, role: Role) -> Vec<NodeId> {
        self.places().iter().filter(|place| place.role == role).map(|place| place.id).collect()
    }

    pub(crate) fn checkpoint(&self) -> NodeId {
        self.checkpoint
    }

    /// How the client reaches any executor.
    pub(crate) fn to_executors(&self) -> Transport {
        self.net.transport(self.client, To::Any(self.executors.clone()))
    }

    pub(crate) fn to_approval(&self) -> Transport {
        self.net.transport(self.client, To::Node(self.approval))
    }

    pub(crate) fn to_scheduler(&self) -> Transport {
        self.net.transport(self.client, To::Node(self.scheduler))
    }

    /// Ends a process as `kill -9` does. Nodes that stand for a database only lose their connections: what they had answered is kept.
    pub(crate) fn crash(&self, node: NodeId) {
        self.net.note(&format!("{} crashes", self.net.name(node)));
        let process = self.places().iter_mut().find(|place| place.id == node).and_then(|place| place.process.take());
        self.net.crash(node);
        if let Some(process) = process {
            process.main.abort();
            process.tasks.token().cancel();
        }
    }

    /// Ends a process as a rolling update does: it hands over first.
    pub(crate) async fn stop(&self, node: NodeId) {
        let drain = self.places().iter().find(|place| place.id == node).and_then(|place| Some(Arc::clone(&place.process.as_ref()?.drain)));
        if let Some(drain) = drain.as_ref().and_then(|drain| drain.get()) {
            self.net.note(&format!("{} is told to stop", self.net.name(node)));
            drain().await;
        }
        self.crash(node);
    }

    /// Starts a node's process, unless it has one.
    pub(crate) fn boot(&self, node: NodeId) {
        let Some((at, role)) = self.places().iter().enumerate().find(|(_, place)| place.id == node).map(|(at, place)| (at, place.role))
        else {
            return;
        };
        if self.places()[at].process.is_some() {
            return;
        }
        // The client and the approval service, whose memory lasts, keep the life that they called others with first.
        let lasts = matches!(role, Role::Approval | Role::Client);
        let life = if lasts { self.net.revive(node) } else { self.net.begin(node) };
        let (tasks, drain) = (Tasks::new(), Drain::default());
        let main = match role {
            Role::Checkpoint => self.serve(node, life, self.lasting[0].clone()),
            Role::Approval => self.serve(node, life, self.lasting[1].clone()),
            Role::Client => spawn(std::future::ready(())),
            Role::Scheduler => spawn(self.clone().run_scheduler(node, life, tasks.clone(), Arc::clone(&drain))),
            Role::Executor => spawn(self.clone().run_executor(node, life, tasks.clone(), Arc::clone(&drain))),
            Role::Worker => {
                let hand = Hand { net: self.net.clone(), node, life, book: self.book.clone(), dice: Arc::clone(&self.dice) };
                self.net.note(&format!("{} is up", self.net.name(node)));
                spawn(hand.run(self.net.transport(node, To::Node(self.scheduler))))
            }
        };
        self.places()[at].process = Some(Process { tasks, main, drain });
    }

    /// Starts every node that is down.
    pub(crate) fn boot_all(&self) {
        let all: Vec<NodeId> = self.places().iter().map(|place| place.id).collect();
        all.into_iter().for_each(|node| self.boot(node));
    }

    fn serve(&self, node: NodeId, life: u32, server: Transport) -> JoinHandle<()> {
        self.net.serve(node, life, server);
        spawn(std::future::ready(()))
    }

    async fn run_scheduler(self, node: NodeId, life: u32, tasks: Tasks, drain: Drain) {
        let settings = troupe_scheduler::Config { lease: "1500ms".into(), stop_grace: "500ms".into(), ..Default::default() };
        let registry = Transport::embedded(tower::service_fn(|_| async {
            std::future::pending::<Result<tonic::codegen::http::Response<tonic::body::Body>, std::convert::Infallible>>().await
        }));
        let needs = troupe_scheduler::Dependencies { executor: self.net.transport(node, To::Any(self.executors.clone())), registry };
        match troupe_scheduler::Service::start(settings, needs, &tasks).await {
            Ok(service) => {
                self.net.serve(node, life, Transport::embedded(service.routes()));
                drop(drain.set(Box::new(move || {
                    let service = service.clone();
                    async move { service.drain().await }.boxed()
                })));
            }
            Err(error) => self.net.note(&format!("the scheduler does not start: {error}")),
        }
    }

    async fn run_executor(self, node: NodeId, life: u32, tasks: Tasks, drain: Drain) {
        let name = self.net.name(node);
        let settings = troupe_executor::Config {
            // As a container that is started again keeps its name, and one that replaces it does not.
            owner: if life % 4 == 1 { name.clone() } else { format!("{name}-{life}") },
            address: format!("http://{name}"),
            partitions: PARTITIONS,
            lease_ms: u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX),
            ..Default::default()
        };
        let net = self.net.clone();
        let peers = Connector::new(move |address| {
            let name = address.trim_start_matches("http://");
            let peer = net.named(name).ok_or_else(|| format!("there is no node {name}"))?;
            Ok(net.transport(node, To::Node(peer)))
        });
        let needs = troupe_executor::Dependencies {
            checkpoint: self.net.transport(node, To::Node(self.checkpoint)),
            scheduler: self.net.transport(node, To::Node(self.scheduler)),
            approval: self.net.transport(node, To::Node(self.approval)),
            peers,
            alone: false,
        };
        match troupe_executor::Service::start(settings, needs, &tasks).await {
            Ok(service) => {
                self.net.serve(node, life, Transport::embedded(service.routes()));
                drop(drain.set(Box::new(move || {
                    let service = service.clone();
                    async move { service.drain().await }.boxed()
                })));
            }
            Err(error) => {
                self.net.note(&format!("{name} does not start: {error}"));
                // Whoever watches over processes starts it again.
                let again = self.clone();
                spawn(async move {
                    again.crash(node);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    again.boot(node);
                });
            }
        }
    }
}

/// The main task of a simulated process, and what the simulation does itself.
#[expect(clippy::disallowed_methods, reason = "a process is the root of its tasks")]
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(future)
}
