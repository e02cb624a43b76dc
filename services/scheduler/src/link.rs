//! The connection to Redis: one multiplexed connection that many callers share, kept open by a task. While it is down, calls fail at once.

pub mod reply;
pub mod servers;

pub use servers::{RedisConfig, RedisUrl, Servers};

use crate::{metrics, report::backoff};
use redis::{
    Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, Script, ScriptInvocation, ServerErrorKind, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster_async::ClusterConnection,
};
use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};
use troupe_domain::Error;
use troupe_service_kit::Tasks;

/// A connection to one server, or to a cluster's.
#[derive(Clone)]
pub enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(one) => one.req_packed_command(cmd),
            Self::Cluster(cluster) => cluster.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(&'a mut self, pipeline: &'a Pipeline, offset: usize, count: usize) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(one) => one.req_packed_commands(pipeline, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(one) => one.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
        }
    }
}

/// See the module. Clones share the connection.
#[derive(Clone)]
pub struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    servers: Servers,
    timeout: Duration,
    /// With its number, so that an old failure does not close a new connection.
    current: Mutex<Option<(u64, Connection)>>,
    broken: Notify,
    state: watch::Sender<State>,
}

/// How the connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Grows with each connection that was opened.
    pub connections: u64,
    /// Why there is none; empty: there is one.
    pub down: String,
}

impl Link {
    /// Starts connecting; answers at once. `timeout`: of opening the connection, and of each answer.
    pub fn start(servers: Servers, timeout: Duration, tasks: &Tasks) -> Self {
        let (state, _) = watch::channel(State { connections: 0, down: "not connected yet".into() });
        let link = Self { inner: Arc::new(Inner { servers, timeout, current: Mutex::default(), broken: Notify::new(), state }) };
        let stop = tasks.token().clone();
        tasks.spawn("scheduler-redis", stop.run_until_cancelled_owned(link.clone().keep()));
        link
    }

    pub fn servers(&self) -> &Servers {
        &self.inner.servers
    }

    pub fn timeout(&self) -> Duration {
        self.inner.timeout
    }

    pub fn state(&self) -> watch::Receiver<State> {
        self.inner.state.subscribe()
    }

    pub fn is_up(&self) -> bool {
        self.inner.state.borrow().down.is_empty()
    }

    /// Ends when there is a connection.
    pub async fn ready(&self) {
        // The sender lives as long as this link.
        let _ = self.state().wait_for(|state| state.down.is_empty()).await;
    }

    /// Opens the connection, and again whenever it is lost.
    async fn keep(self) {
        let (mut number, mut backoff) = (0, backoff());
        loop {
            match self.inner.servers.connect(self.inner.timeout, Some(self.inner.timeout)).await {
                Ok(connection) => {
                    number += 1;
                    backoff.reset();
                    *self.lock() = Some((number, connection));
                    self.inner.state.send_replace(State { connections: number, down: String::new() });
                    tracing::info!(connection = number, "connected to redis");
                    self.inner.broken.notified().await;
                }
                Err(error) => {
                    if backoff.failures() % 20 == 0 {
                        tracing::warn!(%error, failures = backoff.failures(), "redis cannot be reached");
                    }
                    self.inner.state.send_modify(|state| state.down = error.to_string());
                }
            }
            backoff.wait().await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(u64, Connection)>> {
        // Nothing under this lock panics.
        self.inner.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self, number: u64, why: &RedisError) {
        let mut current = self.lock();
        if current.as_ref().is_some_and(|(known, _)| *known == number) {
            *current = None;
            tracing::warn!(error = %why, connection = number, "the connection to redis was lost");
            metrics::error("redis_connection");
            self.inner.state.send_modify(|state| state.down = why.to_string());
            self.inner.broken.notify_one();
        }
    }

    async fn with<T, F>(&self, call: impl FnOnce(Connection) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let (number, connection) = self.lock().clone().ok_or_else(unreachable)?;
        // The connection has its own timeout for answers; this one also bounds a load of the script and the way through a cluster.
        let outcome = tokio::time::timeout(self.inner.timeout * 2, call(connection)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut))));
        outcome.map_err(|error| {
            if is_loss(&error) {
                self.lost(number, &error);
            } else {
                tracing::error!(%error, "redis refused a command");
            }
            unreachable()
        })
    }

    /// Runs a command. Errors: UNAVAILABLE; whether it was carried out is then not known.
    pub async fn run(&self, command: &Cmd) -> Result<Value, Error> {
        self.with(async |mut connection| command.query_async(&mut connection).await).await
    }

    /// Runs commands in one go; the answers are in their order. Errors as of [`Link::run`].
    pub async fn run_all(&self, commands: &Pipeline) -> Result<Vec<Value>, Error> {
        self.with(async |mut connection| commands.query_async(&mut connection).await).await
    }

    /// Runs a script, which is loaded where the server does not have it. Errors as of [`Link::run`].
    pub async fn script(&self, script: &Script, fill: impl FnOnce(&mut ScriptInvocation<'_>)) -> Result<Value, Error> {
        let mut call = script.prepare_invoke();
        fill(&mut call);
        self.with(async |mut connection| call.invoke_async(&mut connection).await).await
    }
}

fn unreachable() -> Error {
    Error::unavailable("Redis, which holds the task queues and events, cannot be reached").with_help("try again in a moment")
}

/// The connection is of no use any more, or leads to a server that is none.
fn is_loss(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, ReadOnly};
    let server = matches!(error.kind(), ErrorKind::Server(BusyLoading | ClusterDown | MasterDown | ReadOnly));
    server || error.is_io_error() || error.is_timeout() || error.is_connection_dropped() || error.is_unrecoverable_error()
}
