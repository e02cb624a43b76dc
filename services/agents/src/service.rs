//! The service: connects catalogue, executor and worker.

use crate::{
    Config, catalog::Catalog, config::span, execute::Executor, llm::Llm, metrics, model::Models, sandbox::Sandbox, template::Templates,
    tools::Toolbox,
};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use troupe_client::{Context, Json, Transport, Worker};
use troupe_service_kit::{Dependency, Tasks, config::accept};

pub use crate::model::Environment;

/// What it needs of the others.
pub struct Dependencies {
    pub scheduler: Transport,
    pub registry: Transport,
}

/// The built-in worker. Clones are the same one.
#[derive(Clone)]
pub struct Service {
    catalog: Arc<Catalog>,
    connection: watch::Receiver<bool>,
    stop: CancellationToken,
    stopped: watch::Receiver<bool>,
}

impl Service {
    /// Starts working. Model keys come from the process's environment.
    pub async fn start(config: Config, dependencies: Dependencies, tasks: &Tasks) -> anyhow::Result<Self> {
        Self::start_with(config, dependencies, Arc::new(|name: &str| std::env::var(name).ok()), tasks)
    }

    /// Starts with another environment.
    pub fn start_with(config: Config, dependencies: Dependencies, environment: Environment, tasks: &Tasks) -> anyhow::Result<Self> {
        accept("agents", config.validate())?;
        metrics::describe();
        let toolbox = Toolbox::new(&config)?;
        let catalog = Arc::new(Catalog::new(toolbox.names().map(str::to_owned).collect()));
        let executor = Arc::new(executor(&config, &catalog, toolbox, environment)?);
        let follower = Arc::clone(&catalog);
        let token = tasks.token().clone();
        tasks.spawn("agents.catalog", async move {
            tokio::select! {
                () = follower.follow(dependencies.registry) => {}
                () = token.cancelled() => {}
            }
        });
        let worker = Worker::builder(dependencies.scheduler)
            .namespace("*")
            .slots(config.slots)
            .drain_timeout(span(&config.drain_timeout))
            .offers(catalog.offers())
            .any(move |context: Context, input: Json| {
                let executor = Arc::clone(&executor);
                async move { executor.execute(context, input).await }
            });
        let connection = worker.connection();
        let stop = tasks.token().child_token();
        let (ended, stopped) = watch::channel(false);
        let token = stop.clone();
        tasks.spawn("agents.worker", async move {
            if let Err(error) = worker.run(async move { token.cancelled().await }).await {
                tracing::error!(%error, "the scheduler refuses the built-in worker");
            }
            ended.send_replace(true);
        });
        Ok(Self { catalog, connection, stop, stopped })
    }

    /// It serves nothing itself.
    pub fn routes(&self) -> tonic::service::Routes {
        tonic::service::Routes::default()
    }

    /// Whether the scheduler and the registry are there.
    pub async fn health(&self) -> Vec<Dependency> {
        let state = |name: &str, ok: bool, detail: &str| if ok { Dependency::ok(name) } else { Dependency::failing(name, detail) };
        let connected = *self.connection.borrow() && !*self.stopped.borrow();
        vec![
            state("scheduler", connected, "no stream to the scheduler stands"),
            state("registry", self.catalog.is_synced(), "the agents are not followed"),
        ]
    }

    /// Takes nothing new, finishes what runs or hands it back; takes at most the drain timeout of the settings.
    pub async fn drain(&self) {
        self.stop.cancel();
        // An error means that the worker's task is gone, which is the same.
        let _ = self.stopped.clone().wait_for(|ended| *ended).await;
    }
}

fn executor(config: &Config, catalog: &Arc<Catalog>, toolbox: Toolbox, environment: Environment) -> anyhow::Result<Executor> {
    let templates = Arc::new(Templates::new(config.llm.max_prompt_bytes));
    let models = Models::new(&config.llm, environment, Arc::clone(&templates))?;
    Ok(Executor {
        catalog: Arc::clone(catalog),
        llm: Llm::new(config, models, toolbox.clone(), templates),
        toolbox,
        sandbox: Sandbox::new(&config.sandbox),
        config: config.clone(),
    })
}
