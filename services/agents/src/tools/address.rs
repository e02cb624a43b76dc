//! Which addresses tools may reach. A name is checked where it is resolved, so what was checked is what is connected to.

use crate::config::HttpConfig;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};
use troupe_client::TaskError;
use url::{Host, Url};

/// The rule of one worker.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    allow_private: bool,
    allow_hosts: Arc<[String]>,
}

/// The cause of a connection that was not made.
#[derive(Debug)]
pub(super) struct Refused(pub String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl Guard {
    pub(super) fn new(config: &HttpConfig) -> Self {
        let hosts = config.allow_hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Self { allow_private: config.allow_private, allow_hosts: hosts }
    }

    fn named(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.allow_hosts.iter().any(|allowed| match allowed.strip_prefix("*.") {
            Some(parent) => host.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.')),
            None => *allowed == host,
        })
    }

    /// Checks everything that a URL itself says. The addresses of a name are checked when it is resolved.
    pub(super) fn check(&self, url: &Url) -> Result<(), TaskError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse(format!("'{}' is not http or https", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("credentials in a URL are not allowed: use a header".to_owned()));
        }
        let host = url.host().ok_or_else(|| refuse("the URL has no host".to_owned()))?;
        let text = host.to_string();
        if !self.allow_hosts.is_empty() && !self.named(&text) {
            return Err(refuse(format!("'{text}' is not among the hosts that the setting agents.http.allow_hosts names")));
        }
        let address = match host {
            Host::Domain(_) => return Ok(()),
            Host::Ipv4(v4) => IpAddr::V4(v4),
            Host::Ipv6(v6) => IpAddr::V6(v6),
        };
        self.check_address(&text, address).map_err(|refused| refuse(refused.0))
    }

    fn check_address(&self, host: &str, address: IpAddr) -> Result<(), Refused> {
        if self.allow_private || self.named(host) || is_public(address) {
            return Ok(());
        }
        Err(Refused(format!("'{host}' is at {address}, which is not a public address (the setting agents.http.allow_private is off)")))
    }
}

fn refuse(message: String) -> TaskError {
    TaskError::new("ADDRESS_REFUSED", message)
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str();
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            // One bad address refuses the name: which one would be used is not ours to choose.
            for address in &addresses {
                guard.check_address(host, address.ip())?;
            }
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

/// Whether an address is reachable over the internet, by the IANA special-purpose registries.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || a >= 224
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19)))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    if let Some(v4) = address.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    match segments {
        // NAT64: what is meant is the IPv4 address inside.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        // 6to4: likewise.
        [0x2002, high, low, ..] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        // Teredo and other protocol assignments, documentation.
        [0x2001, second, ..] => second >= 0x200 && second != 0xdb8,
        [0x3fff, second, ..] => second >= 0x1000,
        // Global unicast is 2000::/3; everything else is special.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allow_private: bool, hosts: &[&str]) -> Guard {
        let allow_hosts = hosts.iter().map(|h| (*h).to_owned()).collect();
        Guard::new(&HttpConfig { allow_private, allow_hosts, ..HttpConfig::default() })
    }

    fn check(guard: &Guard, url: &str) -> Result<(), String> {
        guard.check(&Url::parse(url).unwrap()).map_err(|e| e.message)
    }

    #[test]
    fn special_addresses_are_not_public() {
        for special in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "ff02::1",
            "::7f00:1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
        for public in ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111", "2001:4860:4860::8888", "::ffff:8.8.8.8"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn urls_are_checked() {
        let open = guard(false, &[]);
        for bad in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::1]:80/",
            "http://169.254.169.254/latest/meta-data",
            "file:///etc/passwd",
            "ftp://example.com/",
            "http://user:pw@example.com/",
            "http://[::ffff:10.0.0.1]/",
        ] {
            assert!(check(&open, bad).is_err(), "{bad}");
        }
        assert!(check(&open, "https://example.com/").is_ok());
        assert!(check(&guard(true, &[]), "http://127.0.0.1/").is_ok());
    }

    #[test]
    fn named_hosts_are_the_only_ones() {
        let named = guard(false, &["api.example.com", "*.inner.example", "127.0.0.1"]);
        for good in ["https://API.example.com/x", "http://a.inner.example/", "http://127.0.0.1:9/"] {
            assert!(check(&named, good).is_ok(), "{good}");
        }
        for bad in ["https://example.com/", "http://inner.example/", "http://evilinner.example/", "http://127.0.0.2/"] {
            assert!(check(&named, bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn names_are_checked_where_they_are_resolved() {
        let resolved = guard(false, &[]).resolve("localhost".parse().unwrap()).await;
        let error = resolved.err().unwrap();
        assert!(error.downcast_ref::<Refused>().is_some(), "{error}");
        assert!(guard(true, &[]).resolve("localhost".parse().unwrap()).await.is_ok());
    }
}
