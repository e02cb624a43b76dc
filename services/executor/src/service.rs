//! Starting and ending the service.

use crate::{
    config::Config,
    definitions::Definitions,
    effects::{
        Effects, Receivers,
        approvals::{self, Approvals},
        children::Children,
        dispatch::{self, Dispatcher, Hold},
    },
    grpc::Api,
    leases::Leases,
    metrics,
    peers::Peers,
    routing::Router,
    shared::Shared,
    store::Store,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Mutex, Notify, watch};
use tonic::service::Routes;
use troupe_proto::{
    approval::v1::{ListApprovalsRequest, approval_service_client::ApprovalServiceClient},
    checkpoint::v1::ListPartitionsRequest,
    common::v1::Page,
    executor::v1::{
        effect_service_server::EffectServiceServer, peer_service_server::PeerServiceServer, run_service_server::RunServiceServer,
        workflow_service_server::WorkflowServiceServer,
    },
    scheduler::v1::ListQueuesRequest,
};
use troupe_service_kit::{Dependency, Tasks, config::accept};
use troupe_wire::{Connector, MAX_MESSAGE, Transport};

/// How long a drain waits for the partitions.
const DRAIN: Duration = Duration::from_secs(10);

/// How long a health check waits for an answer.
const HEALTH: Duration = Duration::from_secs(1);

/// The services that an executor calls.
pub struct Dependencies {
    pub checkpoint: Transport,
    pub scheduler: Transport,
    pub approval: Transport,
    /// The way to the other executors.
    pub peers: Connector,
    /// This process alone has the journal, now and for as long as it runs: at the start it takes the partitions whoever holds them. Never
    /// true where another process may write to the same journal.
    pub alone: bool,
}

/// The executor. Clones are the same executor.
#[derive(Clone)]
pub struct Service {
    shared: Arc<Shared>,
    leases: Arc<Mutex<Leases>>,
    approval: ApprovalServiceClient<Transport>,
}

impl Service {
    /// Acquires partitions, serves them at once and recovers their open runs in the background. Fails on bad settings, when the journal
    /// does not answer within 30 seconds, or when others are at work on it whom this one cannot reach, or who cannot reach this one: an
    /// executor without an address has all partitions or none.
    pub async fn start(config: Config, dependencies: Dependencies, tracker: &Tasks) -> anyhow::Result<Self> {
        accept("executor", config.validate())?;
        metrics::describe();
        let store = Store::new(dependencies.checkpoint);
        let scheduler = dispatch::client(dependencies.scheduler);
        let approval = approvals::client(dependencies.approval);
        let (effects, receivers) = Effects::new(config.effect_queue);
        let owner = owner(&config);
        let doubt = Arc::new(Notify::new());
        let peers = Peers::new(owner.clone(), dependencies.peers, config.mailbox, tracker.clone(), Arc::clone(&doubt));
        let router = Router::new(config.partitions, Duration::from_millis(config.lease_ms), peers, doubt);
        let shared = Arc::new(Shared {
            definitions: Definitions::new(store.clone(), config.limits.clone(), Duration::from_millis(config.newest_version_ms)),
            router,
            env: environment(&config),
            store,
            effects,
            scheduler,
            tasks: tracker.clone(),
            in_memory: Arc::new(AtomicUsize::new(0)),
            resync: watch::Sender::new(0),
            look: Notify::new(),
            draining: AtomicBool::new(false),
            config,
        });
        let mut leases = Leases::new(Arc::clone(&shared), owner, dependencies.alone);
        leases.join().await?;
        leases.nudge();
        let leases = Arc::new(Mutex::new(leases));
        start_effects(&shared, receivers, &approval);
        tracker.spawn("leases", keep_leases(Arc::clone(&shared), Arc::clone(&leases)));
        let table = Arc::clone(&shared);
        tracker.spawn("routes", async move { table.router.keep_table(&table.store, table.tasks.token()).await });
        Ok(Self { shared, leases, approval })
    }

    /// All its gRPC servers.
    pub fn routes(&self) -> Routes {
        let api = Api::new(Arc::clone(&self.shared));
        let workflows = WorkflowServiceServer::new(api.clone());
        let runs = RunServiceServer::new(api.clone());
        let effects = EffectServiceServer::new(api.clone());
        let peers = PeerServiceServer::new(api);
        Routes::new(workflows.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
            .add_service(runs.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
            .add_service(effects.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
            .add_service(peers.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
    }

    /// The state of what it depends on.
    pub async fn health(&self) -> Vec<Dependency> {
        let mut journal = self.shared.store.client();
        let mut scheduler = self.shared.scheduler.clone();
        let mut approval = self.approval.clone();
        let page = Some(Page { limit: 1, cursor: String::new() });
        let (journal, scheduler, approval) = tokio::join!(
            tokio::time::timeout(HEALTH, journal.list_partitions(ListPartitionsRequest {})),
            tokio::time::timeout(HEALTH, scheduler.list_queues(ListQueuesRequest { namespace: "default".to_owned() })),
            tokio::time::timeout(HEALTH, approval.list_approvals(ListApprovalsRequest { page, ..Default::default() })),
        );
        // One that owns no partition, because others own them all, is as good as any: it passes on what comes to it.
        let partitions = match self.shared.router.is_valid() {
            true => Dependency::ok("partitions"),
            false => Dependency::failing("partitions", "leases are not renewed in time"),
        };
        vec![state("checkpoint", journal), state("scheduler", scheduler), state("approval", approval), partitions]
    }

    /// Stops accepting, serves what is in the mailboxes and gives the partitions back; at most about ten seconds.
    pub async fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
        self.leases.lock().await.release_all(DRAIN).await;
    }

    /// Runs held in memory, over all partitions.
    pub fn runs_in_memory(&self) -> usize {
        self.shared.in_memory.load(Ordering::Relaxed)
    }
}

fn state<T>(name: &str, answer: Result<Result<T, tonic::Status>, tokio::time::error::Elapsed>) -> Dependency {
    match answer {
        Ok(Ok(_)) => Dependency::ok(name),
        Ok(Err(status)) => Dependency::failing(name, status.message()),
        Err(_) => Dependency::failing(name, "it does not answer in time"),
    }
}

/// The tasks that carry effects to other services.
fn start_effects(shared: &Arc<Shared>, receivers: Receivers, approval: &ApprovalServiceClient<Transport>) {
    let (tasks, token, resync) = (&shared.tasks, shared.tasks.token(), &shared.resync);
    let owner = Arc::clone(shared);
    let dispatcher = Dispatcher {
        hold: Box::new(move |run| Hold {
            is_served: run.parse().is_ok_and(|run| owner.router.serves(run)),
            is_valid: owner.router.is_valid(),
        }),
        client: shared.scheduler.clone(),
        work: receivers.dispatch,
        resync: resync.clone(),
        token: token.clone(),
    };
    tasks.spawn("dispatch", dispatcher.run());
    let approvals = Approvals {
        client: approval.clone(),
        work: receivers.approvals,
        resync: resync.clone(),
        token: token.clone(),
        shared: Arc::clone(shared),
    };
    tasks.spawn("approvals", approvals.run());
    let children = Children { shared: Arc::clone(shared), work: receivers.children, token: token.clone() };
    tasks.spawn("children", children.run());
}

/// Renews leases three times in each lease, and looks at once when there is a reason to.
async fn keep_leases(shared: Arc<Shared>, leases: Arc<Mutex<Leases>>) {
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = shared.tasks.cancelled() => return,
            () = shared.look.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        let mut leases = leases.lock().await;
        if shared.draining.load(Ordering::Acquire) {
            return;
        }
        tokio::select! {
            () = shared.tasks.cancelled() => return,
            again = leases.keep() => pause = again,
        }
    }
}

/// This executor among the owners of partitions: its name, and where it is reached.
fn owner(config: &Config) -> String {
    let made_up = || format!("executor-of-process-{}-{}", std::process::id(), uuid::Uuid::now_v7().simple());
    let name = if config.owner.is_empty() { made_up() } else { config.owner.clone() };
    if config.address.is_empty() { name } else { format!("{name}@{}", config.address) }
}

fn environment(config: &Config) -> BTreeMap<String, String> {
    config.expression_env.iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?))).collect()
}
