//! Settings of the gateway, section `[gateway]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, time::Duration};
use troupe_domain::{Fault, Namespace, id::DEFAULT_NAMESPACE};

/// The flag that lets the gateway listen where strangers can reach it.
pub const DANGER_FLAG: &str = "danger_listen_on_all_interfaces_without_authentication";

/// Settings of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port of the HTTP API.
    pub http: SocketAddr,
    /// Address and port of the public gRPC API.
    pub grpc: SocketAddr,
    /// The largest HTTP body, in bytes.
    pub max_body: usize,
    /// How long a request may take, in milliseconds. Event streams have no limit; `?wait=` adds its own time.
    pub request_timeout_ms: u64,
    /// The longest `?wait=`, in milliseconds; longer ones are shortened to it.
    pub max_wait_ms: u64,
    /// Silence on an event stream after which a comment is sent, in milliseconds.
    pub keep_alive_ms: u64,
    /// Event streams at once.
    pub max_streams: usize,
    /// gRPC calls at once on one connection.
    pub max_concurrent_grpc_streams: u32,
    /// The namespace of requests without a `Troupe-Namespace` header.
    pub default_namespace: String,
    /// Names and addresses, without port, that a `Host` header may have besides the loopback ones; `*` allows every name.
    /// While this is empty and the gateway listens beyond loopback, every name is allowed.
    pub allowed_hosts: Vec<String>,
    /// Origins (`https://host:port`) whose pages may write besides the gateway's own.
    pub allowed_origins: Vec<String>,
    /// Answers to repeated `Idempotency-Key`s that are kept for ten minutes, at most this many.
    pub idempotency_entries: usize,
    /// There are no logins yet: whoever reaches the gateway may do everything, run code included. Listening anywhere but on loopback needs
    /// this to be true.
    pub danger_listen_on_all_interfaces_without_authentication: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            http: SocketAddr::from(([127, 0, 0, 1], 8080)),
            grpc: SocketAddr::from(([127, 0, 0, 1], 50051)),
            max_body: 8 << 20,
            request_timeout_ms: 30_000,
            max_wait_ms: 300_000,
            keep_alive_ms: 15_000,
            max_streams: 1_024,
            max_concurrent_grpc_streams: 1_024,
            default_namespace: DEFAULT_NAMESPACE.to_owned(),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            idempotency_entries: 4_096,
            danger_listen_on_all_interfaces_without_authentication: false,
        }
    }
}

impl Config {
    /// Every fault of the settings; none when they are good.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (key, address) in [("gateway.http", self.http), ("gateway.grpc", self.grpc)] {
            if !address.ip().is_loopback() && !self.danger_listen_on_all_interfaces_without_authentication {
                let message = format!(
                    "{address} is not a loopback address, and the gateway has no authentication yet: whoever reaches it may run code"
                );
                faults.push(
                    Fault::at(key, message)
                        .help(format!("listen on 127.0.0.1, or set gateway.{DANGER_FLAG} = true behind something that authenticates")),
                );
            }
        }
        let bounds = [
            ("gateway.max_body", self.max_body as u64, 1 << 10, 64 << 20),
            ("gateway.request_timeout_ms", self.request_timeout_ms, 100, 3_600_000),
            ("gateway.max_wait_ms", self.max_wait_ms, 0, 3_600_000),
            ("gateway.keep_alive_ms", self.keep_alive_ms, 100, 600_000),
            ("gateway.max_streams", self.max_streams as u64, 1, 1_000_000),
            ("gateway.max_concurrent_grpc_streams", u64::from(self.max_concurrent_grpc_streams), 1, 1_000_000),
            ("gateway.idempotency_entries", self.idempotency_entries as u64, 0, 100_000),
        ];
        for (key, value, low, high) in bounds {
            if !(low..=high).contains(&value) {
                faults.push(Fault::at(key, format!("{value} is not between {low} and {high}")));
            }
        }
        if let Err(error) = Namespace::parse(&self.default_namespace) {
            faults.push(Fault::at("gateway.default_namespace", error.message));
        }
        faults
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    pub(crate) fn max_wait(&self) -> Duration {
        Duration::from_millis(self.max_wait_ms)
    }

    /// Whether strangers can reach it by names that nobody wrote down.
    pub(crate) fn any_host(&self) -> bool {
        let open = !self.http.ip().is_loopback() && self.allowed_hosts.is_empty();
        open || self.allowed_hosts.iter().any(|host| host == "*")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_good() {
        assert_eq!(Config::default().validate(), []);
    }

    #[test]
    fn listening_beyond_loopback_needs_the_flag_named_for_its_danger() {
        let open = Config { http: SocketAddr::from(([0, 0, 0, 0], 8080)), ..Config::default() };
        let faults = open.validate();
        assert_eq!((faults.len(), faults[0].path.as_str()), (1, "gateway.http"));
        assert!(faults[0].help.contains(DANGER_FLAG), "{faults:?}");
        let meant = Config { danger_listen_on_all_interfaces_without_authentication: true, ..open };
        assert_eq!(meant.validate(), []);
        // The flag's name in the message is the field's.
        assert!(serde_json::to_value(&meant).unwrap().get(DANGER_FLAG).is_some());
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let bad = Config { max_body: 0, max_streams: 0, default_namespace: "a b".into(), ..Config::default() };
        assert_eq!(bad.validate().len(), 3);
    }
}
