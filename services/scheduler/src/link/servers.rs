//! Where Redis is: one server, a master that sentinels know, or a cluster.

use super::Connection;
use anyhow::Context;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, RedisResult, TlsCertificates, TlsMode,
    aio::PubSub, cluster::ClusterClientBuilder, io::tcp::TcpSettings, sentinel::SentinelClientBuilder, sentinel::SentinelServerType,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};
use troupe_domain::{Fault, parse_span};

/// Redis as the place of task queues and events. Several schedulers share them there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// `redis://user:password@host:6379/0`, or `rediss://` with TLS. Several, with commas between them: the sentinels or the first nodes of
    /// a cluster; user, password, database and TLS are then those of the first. Empty: queues and events are kept in memory.
    pub url: RedisUrl,
    /// The name of the master that the sentinels at `url` know.
    pub sentinel_master: String,
    /// The servers at `url` are nodes of a cluster.
    pub cluster: bool,
    /// For `rediss://`: a file with the certificates (PEM) of the authorities to trust. Empty: the public ones.
    pub ca_file: String,
    /// What all keys begin with: installations with different ones may share a server.
    pub prefix: String,
    /// How long connecting and each answer may take.
    pub timeout: String,
    /// How often a scheduler looks for what others have changed; announcements only make it faster.
    pub look: String,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: RedisUrl::default(),
            sentinel_master: String::new(),
            cluster: false,
            ca_file: String::new(),
            prefix: "troupe".into(),
            timeout: "2s".into(),
            look: "500ms".into(),
        }
    }
}

/// Shows no password.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RedisUrl(pub String);

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(hidden)" })
    }
}

impl RedisConfig {
    /// Faults with their paths under `redis`.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let fault = |path: &str, message: String| Fault::at(format!("redis.{path}"), message);
        for (path, text) in [("timeout", &self.timeout), ("look", &self.look)] {
            match parse_span(text) {
                Ok(span) if span < Duration::from_millis(10) => faults.push(fault(path, format!("'{text}' is too short: at least 10ms"))),
                Ok(_) => {}
                Err(message) => faults.push(fault(path, message)),
            }
        }
        // Braces would move the hash tag, and with it the slot.
        if self.prefix.is_empty() || self.prefix.len() > 64 || self.prefix.contains(['{', '}']) {
            faults.push(fault("prefix", "must have 1 to 64 bytes and no braces".into()));
        }
        if self.cluster && !self.sentinel_master.is_empty() {
            faults.push(fault("sentinel_master", "is for sentinels, but cluster is set too".into()));
        }
        if let Err(error) = self.nodes() {
            faults.push(fault("url", format!("is no address of Redis: {error}")));
        }
        faults
    }

    fn nodes(&self) -> RedisResult<Vec<ConnectionInfo>> {
        let node = |url: &str| Ok(url.into_connection_info()?.set_tcp_settings(tcp_settings()));
        self.url.0.split(',').map(str::trim).filter(|url| !url.is_empty()).map(node).collect()
    }

    /// `None`: no address is set. Errors: an address is none, or the file of authorities cannot be read.
    pub fn servers(&self) -> anyhow::Result<Option<Servers>> {
        let nodes = self.nodes()?;
        let Some(first) = nodes.first().cloned() else { return Ok(None) };
        let read = || std::fs::read(&self.ca_file).with_context(|| format!("cannot read scheduler.redis.ca_file '{}'", self.ca_file));
        let trusted = if self.ca_file.is_empty() { None } else { Some(read()?) };
        let kind = match (self.cluster, self.sentinel_master.as_str()) {
            (true, _) => Kind::Cluster,
            (false, "") => Kind::One,
            (false, master) => Kind::Sentinel(master.to_owned()),
        };
        Ok(Some(Servers { first, nodes, kind, trusted }))
    }

    pub fn timeout(&self) -> Duration {
        parse_span(&self.timeout).unwrap_or(Duration::from_secs(2))
    }

    pub fn look(&self) -> Duration {
        parse_span(&self.look).unwrap_or(Duration::from_millis(500))
    }
}

/// See the module.
#[derive(Clone)]
pub struct Servers {
    first: ConnectionInfo,
    nodes: Vec<ConnectionInfo>,
    kind: Kind,
    /// Certificates of authorities; `None`: the public ones.
    trusted: Option<Vec<u8>>,
}

#[derive(Clone)]
enum Kind {
    One,
    Sentinel(String),
    Cluster,
}

impl Servers {
    /// Opens a connection to who may be written to. `answer`: how long an answer may take; `None`: for ever.
    pub(super) async fn connect(&self, open: Duration, answer: Option<Duration>) -> RedisResult<Connection> {
        match &self.kind {
            Kind::Cluster => {
                let mut builder =
                    ClusterClientBuilder::new(self.nodes.clone()).connection_timeout(open).retries(3).tcp_settings(tcp_settings());
                if self.trusted.is_some() {
                    builder = builder.certs(self.certificates());
                }
                // A cluster's client insists on some limit.
                let client = builder.response_timeout(answer.unwrap_or(Duration::from_secs(3600))).build()?;
                Ok(Connection::Cluster(within(open * 2, client.get_async_connection()).await?))
            }
            Kind::One | Kind::Sentinel(_) => {
                let client = within(open, self.master()).await?;
                let config = AsyncConnectionConfig::new().set_connection_timeout(Some(open)).set_response_timeout(answer);
                let connection = client.get_multiplexed_async_connection_with_config(&config);
                Ok(Connection::One(within(open * 2, connection).await?))
            }
        }
    }

    /// A connection for blocking reads: nobody else uses it, and an answer may take as long as it likes.
    pub async fn reader(&self, open: Duration) -> RedisResult<Connection> {
        self.connect(open, None).await
    }

    /// A connection for announcements. In a cluster any node will do: it passes them on.
    pub async fn announcements(&self, open: Duration) -> RedisResult<PubSub> {
        if !matches!(self.kind, Kind::Cluster) {
            let client = within(open, self.master()).await?;
            return within(open, client.get_async_pubsub()).await;
        }
        let mut last = timed_out();
        for node in &self.nodes {
            match within(open, self.client(node)?.get_async_pubsub()).await {
                Ok(open) => return Ok(open),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn master(&self) -> RedisResult<Client> {
        let Kind::Sentinel(name) = &self.kind else { return self.client(&self.first) };
        let sentinels: Vec<ConnectionAddr> = self.nodes.iter().map(|node| node.addr().clone()).collect();
        let login = self.first.redis_settings();
        let mut builder = SentinelClientBuilder::new(sentinels, name, SentinelServerType::Master)?
            .set_client_to_redis_db(login.db())
            .set_client_to_redis_tcp_settings(tcp_settings());
        if let Some(user) = login.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = login.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if matches!(self.first.addr(), ConnectionAddr::TcpTls { .. }) {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure).set_client_to_sentinel_tls_mode(TlsMode::Secure);
        }
        if self.trusted.is_some() {
            let certificates = self.certificates();
            builder = builder.set_client_to_redis_certificates(certificates.clone()).set_client_to_sentinel_certificates(certificates);
        }
        builder.build()?.async_get_client().await
    }

    fn client(&self, node: &ConnectionInfo) -> RedisResult<Client> {
        if self.trusted.is_none() {
            return Client::open(node.clone());
        }
        Client::build_with_tls(node.clone(), self.certificates())
    }

    fn certificates(&self) -> TlsCertificates {
        TlsCertificates { client_tls: None, root_cert: self.trusted.clone() }
    }
}

/// Scripts are small, and must not wait until the one before is acknowledged.
fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

async fn within<T>(limit: Duration, work: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(timed_out()))
}

fn timed_out() -> RedisError {
    RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_and_never_shown() {
        let with = |url: &str| RedisConfig { url: RedisUrl(url.into()), ..RedisConfig::default() };
        assert!(with("").validate().is_empty() && with("").servers().is_ok_and(|servers| servers.is_none()));
        assert!(with("redis://u:hidden@a:1/2, rediss://b").validate().is_empty());
        assert!(!format!("{:?}", with("redis://u:secret@a:1")).contains("secret"));
        let wrong = RedisConfig { prefix: "{x}".into(), look: "soon".into(), ..with("http://a") };
        let paths: Vec<String> = wrong.validate().into_iter().map(|fault| fault.path).collect();
        assert_eq!(paths, ["redis.look", "redis.prefix", "redis.url"]);
    }
}
