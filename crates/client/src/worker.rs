//! A worker: one stream to a scheduler, tasks executed as they come, results kept until they are durable.
//!
//! ```no_run
//! use serde_json::{Value, json};
//! use troupe_client::{Context, TaskError, Worker};
//!
//! # async fn example() -> Result<(), troupe_client::Error> {
//! Worker::connect("http://127.0.0.1:50051")?
//!     .agent("greeter", |ctx: Context, input: Value| async move {
//!         let name = input["name"].as_str().unwrap_or("world").to_owned();
//!         let greeting: String = ctx.step("greet", || async move { Ok(format!("Hello, {name}!")) }).await?;
//!         Ok(json!({ "greeting": greeting }))
//!     })
//!     .capabilities(["greeting"])
//!     .slots(8)
//!     .run(std::future::pending::<()>())
//!     .await
//! # }
//! ```

mod context;
mod error;
mod execute;
mod held;
mod link;
mod run;
mod session;

pub use context::Context;
pub use error::TaskError;

use crate::Transport;
use error::Outcome;
use futures::{FutureExt, future::BoxFuture};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};
use tokio::sync::watch;
use troupe_domain::{Error, Json};

/// A handler with its types erased.
pub(crate) type Handler = Arc<dyn Fn(Context) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// An agent as a worker offers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    pub name: String,
    pub version: String,
    pub capabilities: Vec<String>,
    /// Tasks at once of this agent on this worker; 0: as many as the worker has slots.
    pub slots: u32,
    /// Only for workers of all namespaces: the agent's namespace.
    pub namespace: String,
}

/// What a worker serves. May change while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    pub agents: Vec<Offered>,
    pub tools: Vec<String>,
}

/// A worker is made by its [`Builder`].
pub struct Worker;

impl Worker {
    /// A worker that reaches the scheduler through this transport.
    pub fn builder(transport: Transport) -> Builder {
        Builder::new(transport)
    }

    /// A worker that connects to `http://host:port`. Fails when that is no URL.
    pub fn connect(url: &str) -> Result<Builder, Error> {
        let transport = Transport::connect(url).map_err(|e| Error::invalid_field("url", format!("'{url}' is no address: {e}")))?;
        Ok(Builder::new(transport))
    }
}

/// What a worker is and serves.
pub struct Builder {
    transport: Transport,
    worker_id: String,
    namespace: String,
    slots: u32,
    client: String,
    drain_timeout: Duration,
    cancel_grace: Duration,
    offer: Offer,
    offers: Option<watch::Receiver<Offer>>,
    connected: watch::Sender<bool>,
    agents: HashMap<String, Handler>,
    tools: HashMap<String, Handler>,
    any: Option<Handler>,
}

impl Builder {
    fn new(transport: Transport) -> Self {
        Self {
            transport,
            worker_id: uuid::Uuid::now_v7().to_string(),
            namespace: String::new(),
            slots: 16,
            client: concat!("troupe-client-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
            drain_timeout: Duration::from_secs(25),
            cancel_grace: Duration::from_secs(2),
            offer: Offer::default(),
            offers: None,
            connected: watch::Sender::new(false),
            agents: HashMap::new(),
            tools: HashMap::new(),
            any: None,
        }
    }

    /// Serves an agent. The input is read into the handler's own type; where it does not fit, the task fails with
    /// `INVALID_INPUT` and is not retried.
    #[must_use]
    pub fn agent<I, O, F, Fut>(mut self, name: impl Into<String>, handler: F) -> Self
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + 'static,
        F: Fn(Context, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, TaskError>> + Send + 'static,
    {
        let name = name.into();
        self.agents.insert(name.clone(), erase(handler));
        self.offer.agents.push(Offered { name, ..Offered::default() });
        self
    }

    /// Capabilities of the agent that was added last.
    #[must_use]
    pub fn capabilities<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        if let Some(agent) = self.offer.agents.last_mut() {
            agent.capabilities = names.into_iter().map(Into::into).collect();
        }
        self
    }

    /// Version of the agent that was added last.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        if let Some(agent) = self.offer.agents.last_mut() {
            agent.version = version.into();
        }
        self
    }

    /// Serves a tool, for `tool` steps of workflows.
    #[must_use]
    pub fn tool<I, O, F, Fut>(mut self, name: impl Into<String>, handler: F) -> Self
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + 'static,
        F: Fn(Context, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, TaskError>> + Send + 'static,
    {
        let name = name.into();
        self.tools.insert(name.clone(), erase(handler));
        self.offer.tools.push(name);
        self
    }

    /// Takes the tasks of all agents and tools that have no handler of their own.
    #[must_use]
    pub fn any<I, O, F, Fut>(mut self, handler: F) -> Self
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + 'static,
        F: Fn(Context, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, TaskError>> + Send + 'static,
    {
        self.any = Some(erase(handler));
        self
    }

    /// What is served changes with this channel, in place of what [`Builder::agent`] and [`Builder::tool`] offer.
    #[must_use]
    pub fn offers(mut self, offers: watch::Receiver<Offer>) -> Self {
        self.offers = Some(offers);
        self
    }

    /// Whether a stream to the scheduler stands, from now on.
    pub fn connection(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    /// Tasks at once, in all; 16 where nothing is said, at least 1.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots.max(1);
        self
    }

    /// The namespace whose agents are served; `default` where nothing is said. `*` is for the built-in worker.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Stable for the life of the process; made up where nothing is said.
    #[must_use]
    pub fn worker_id(mut self, id: impl Into<String>) -> Self {
        self.worker_id = id.into();
        self
    }

    /// How long a worker that shuts down waits for its tasks; 25 s where nothing is said. What runs still is then handed back:
    /// the scheduler gives it to another worker.
    #[must_use]
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.drain_timeout = limit;
        self
    }

    /// How long a cancelled handler may go on before it is dropped; 2 s where nothing is said.
    #[must_use]
    pub fn cancel_grace(mut self, limit: Duration) -> Self {
        self.cancel_grace = limit;
        self
    }

    /// Serves until `shutdown` ends, then finishes or hands back what runs. Reconnects for ever; fails only when the server says
    /// that what this worker is cannot be (bad names, no permission).
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        run::run(self, shutdown).await
    }
}

/// Reads the input, calls the handler, writes the output.
fn erase<I, O, F, Fut>(handler: F) -> Handler
where
    I: DeserializeOwned + Send + 'static,
    O: Serialize + 'static,
    F: Fn(Context, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, TaskError>> + Send + 'static,
{
    let handler = Arc::new(handler);
    Arc::new(move |context: Context| {
        let handler = Arc::clone(&handler);
        async move {
            let input: I = serde_json::from_slice(context.input_bytes())
                .map_err(|e| TaskError::new("INVALID_INPUT", format!("the input does not fit this agent: {e}")))?;
            let output = handler(context, input).await?;
            let raw = serde_json::value::to_raw_value(&output)
                .map_err(|e| TaskError::new("OUTPUT_INVALID", format!("the output is not JSON: {e}")))?;
            if raw.get().len() > crate::MAX_PAYLOAD_BYTES {
                let message = format!("the output has {} bytes, and {} are allowed", raw.get().len(), crate::MAX_PAYLOAD_BYTES);
                return Err(TaskError::new("OUTPUT_TOO_LARGE", message));
            }
            Json::parse(raw.get().as_bytes(), "output").map_err(|e| TaskError::new("OUTPUT_INVALID", e.message))
        }
        .boxed()
    })
}
