//! The scheduler as a service: its tasks, its servers, its health, its end.

use crate::{
    bus::{EventBus, MemoryBus, RedisBus},
    chunks::Chunks,
    clock::Clock,
    config::Config,
    core::{Core, Message, Parts},
    grpc::Face,
    link::{Link, State},
    queue::{MemoryQueue, RedisQueue, TaskQueue},
    registry::Registry,
    report::Reporter,
};
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tonic::service::Routes;
use troupe_proto::scheduler::v1::{scheduler_server::SchedulerServer, worker_service_server::WorkerServiceServer};
use troupe_service_kit::{Dependency, Tasks, config::accept};
use troupe_wire::{MAX_MESSAGE, Transport};

/// Messages that may wait for the core; who sends more waits himself.
const INBOX: usize = 1_024;

/// The services that the scheduler calls.
pub struct Dependencies {
    pub executor: Transport,
    pub registry: Transport,
}

/// A running scheduler. Clones are the same one.
#[derive(Clone)]
pub struct Service {
    face: Face,
    executor: watch::Receiver<String>,
    registry: watch::Receiver<String>,
    redis: Option<watch::Receiver<State>>,
}

impl Service {
    /// Starts a scheduler with its queue and bus in Redis, if an address is set, or in memory. It need not be reachable yet. Errors: the
    /// settings are not valid.
    pub async fn start(config: Config, dependencies: Dependencies, tasks: &Tasks) -> anyhow::Result<Self> {
        accept("scheduler", config.validate())?;
        let clock = Clock::new();
        let Some(servers) = config.redis.servers()? else {
            let queue = Box::new(MemoryQueue::new(config.queue()));
            let bus = Arc::new(MemoryBus::new(config.bus(), clock));
            return Ok(Self::with(config, clock, queue, bus, dependencies, tasks));
        };
        let link = Link::start(servers, config.redis.timeout(), tasks);
        let redis = link.state();
        let bus = Arc::new(RedisBus::new(config.bus(), &config.redis.prefix, link.clone(), tasks));
        let queue = Box::new(RedisQueue::new(config.redis_queue(), link, tasks));
        Ok(Self { redis: Some(redis), ..Self::with(config, clock, queue, bus, dependencies, tasks) })
    }

    /// Starts a scheduler on a queue and a bus.
    pub fn with(
        config: Config,
        clock: Clock,
        queue: Box<dyn TaskQueue>,
        bus: Arc<dyn EventBus>,
        dependencies: Dependencies,
        tasks: &Tasks,
    ) -> Self {
        let config = Arc::new(config);
        let scheduler_id = format!("scheduler-{}", uuid::Uuid::now_v7());
        let (core, inbox) = mpsc::channel(INBOX);
        let (reports, to_report) = mpsc::unbounded_channel();
        let (executor, executor_state) = watch::channel(String::new());
        let (registry, registry_state) = watch::channel("not connected yet".to_owned());
        let (lost, losses) = watch::channel(0);
        let changed = Arc::new(Notify::new());
        let chunks = Chunks::new(config.chunk_queue as usize);
        let parts = Parts {
            config: Arc::clone(&config),
            clock,
            queue,
            chunks: chunks.clone(),
            reports,
            changed: Arc::clone(&changed),
            scheduler_id: scheduler_id.clone(),
            lost,
        };
        let reporter = Reporter {
            transport: dependencies.executor,
            batch: config.report_batch as usize,
            inbox: to_report,
            core: core.clone(),
            state: executor,
        };
        let registry = Registry { transport: dependencies.registry, core: core.clone(), scheduler_id, state: registry };
        let stop = tasks.token().clone();
        tasks.spawn("scheduler-core", Core::new(parts).run(inbox, stop.clone().cancelled_owned()));
        tasks.spawn("scheduler-reports", stop.clone().run_until_cancelled_owned(reporter.run()));
        tasks.spawn("scheduler-chunks", stop.clone().run_until_cancelled_owned(chunks.publish(Arc::clone(&bus))));
        tasks.spawn("scheduler-agents", stop.clone().run_until_cancelled_owned(registry.clone().watch()));
        tasks.spawn("scheduler-instances", stop.run_until_cancelled_owned(registry.report(changed)));
        let face = Face { config, clock, core, bus, tasks: tasks.clone(), lost: losses };
        Self { face, executor: executor_state, registry: registry_state, redis: None }
    }

    /// All its gRPC servers.
    pub fn routes(&self) -> Routes {
        let scheduler = SchedulerServer::new(self.face.clone());
        let workers = WorkerServiceServer::new(self.face.clone());
        Routes::new(scheduler.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
            .add_service(workers.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
    }

    /// The state of the executor's and the registry's streams, and of Redis where it is used.
    pub async fn health(&self) -> Vec<Dependency> {
        let state = |name: &str, state: &watch::Receiver<String>| match state.borrow().as_str() {
            "" => Dependency::ok(name),
            why => Dependency::failing(name, why),
        };
        let mut all = vec![state("executor", &self.executor), state("registry", &self.registry)];
        if let Some(redis) = &self.redis {
            all.push(match redis.borrow().down.as_str() {
                "" => Dependency::ok("redis"),
                why => Dependency::failing("redis", why),
            });
        }
        all
    }

    /// Assigns nothing more, tells the workers, and waits (bounded by the settings) until what runs has ended and is reported.
    pub async fn drain(&self) {
        let (reply, drained) = oneshot::channel();
        let limit = self.face.config.drain_limit();
        let all = async {
            if self.face.core.send(Message::Drain { reply }).await.is_ok() {
                // The core answers, or has stopped: both end the drain.
                let _ = drained.await;
            }
        };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!(limit_ms = troupe_wire::millis(limit), "drain took too long: the rest is delivered again elsewhere");
        }
    }
}
