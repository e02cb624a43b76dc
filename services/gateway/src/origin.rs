//! Who may call from a browser. There are no logins yet, so a page of the web must not reach a local gateway: neither under a name that it
//! points at 127.0.0.1 (DNS rebinding), nor with a form or script that writes from another origin (CSRF).

use crate::Config;
use axum::http::{HeaderMap, Method, Uri, header, uri::Authority};
use std::net::IpAddr;
use troupe_domain::{Code, Error};

/// Paths that say nothing but whether the program is well; probes call them by whatever address they have.
const PROBES: [&str; 3] = ["/health", "/ready", "/live"];

/// Refuses a request that a page of another origin may have made.
pub fn check(config: &Config, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Error> {
    if PROBES.contains(&uri.path()) {
        return Ok(());
    }
    let host = host(uri, headers)?;
    if let Some(host) = &host {
        check_host(config, host)?;
    }
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    check_write(config, host.as_ref(), headers)
}

/// The host that the client meant; HTTP/2 has it in the URI. Only HTTP/1.0 clients send none, and no browser is one.
fn host(uri: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, Error> {
    if let Some(authority) = uri.authority() {
        return Ok(Some(authority.clone()));
    }
    let Some(value) = headers.get(header::HOST) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
    parsed.map(Some).ok_or_else(|| Error::invalid_field("Host", "is not a host and port"))
}

fn check_host(config: &Config, host: &Authority) -> Result<(), Error> {
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    let loopback = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if loopback || config.any_host() || config.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    let message = "this server does not answer under that host name: a web page may have pointed the name at it";
    Err(Error::new(Code::PermissionDenied, message)
        .with_reason("HOST")
        .with_help("call it by localhost or 127.0.0.1, or add the name to gateway.allowed_hosts"))
}

fn check_write(config: &Config, host: Option<&Authority>, headers: &HeaderMap) -> Result<(), Error> {
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
        let same = host.is_some_and(|host| host.as_str().eq_ignore_ascii_case(authority));
        let allowed = same || config.allowed_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin));
        return if allowed { Ok(()) } else { Err(cross_origin()) };
    }
    // Browsers that leave Origin out of a form's request still say where it comes from.
    let site = headers.get("sec-fetch-site").map_or(b"none".as_slice(), |site| site.as_bytes());
    if matches!(site, b"none" | b"same-origin") { Ok(()) } else { Err(cross_origin()) }
}

fn cross_origin() -> Error {
    Error::new(Code::PermissionDenied, "a page of another origin may not write here")
        .with_reason("ORIGIN")
        .with_help("to allow it, add the page's origin to gateway.allowed_origins")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(config: &Config, method: Method, path: &str, headers: &[(&'static str, &str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect();
        check(config, &method, &path.parse().unwrap(), &headers).is_ok()
    }

    #[test]
    fn only_known_hosts_are_answered() {
        let config = Config { allowed_hosts: vec!["troupe.example".into()], ..Config::default() };
        for good in ["localhost", "localhost:8080", "127.0.0.1:8080", "127.8.8.8", "[::1]:8080", "Troupe.Example:443"] {
            assert!(verdict(&config, Method::GET, "/api/v1/runs", &[("host", good)]), "{good}");
        }
        for bad in ["evil.example", "10.0.0.1", "localhost.evil.example", "a b", ""] {
            assert!(!verdict(&config, Method::GET, "/api/v1/runs", &[("host", bad)]), "{bad}");
        }
        assert!(verdict(&config, Method::GET, "/health", &[("host", "10.0.0.1:8080")]));
        assert!(!verdict(&config, Method::GET, "http://evil.example/api/v1/runs", &[("host", "localhost")]));
    }

    #[test]
    fn an_open_gateway_without_a_list_answers_every_host() {
        let open = Config { http: ([0, 0, 0, 0], 80).into(), ..Config::default() };
        assert!(verdict(&open, Method::GET, "/api/v1/runs", &[("host", "troupe.internal")]));
        let listed = Config { allowed_hosts: vec!["troupe.internal".into()], ..open };
        assert!(!verdict(&listed, Method::GET, "/api/v1/runs", &[("host", "evil.example")]));
    }

    #[test]
    fn pages_of_other_origins_do_not_write() {
        let config = Config { allowed_origins: vec!["https://ui.example".into()], ..Config::default() };
        let post = |origin: &str| verdict(&config, Method::POST, "/api/v1/tasks", &[("host", "localhost:8080"), ("origin", origin)]);
        assert!(post("http://localhost:8080") && post("https://ui.example"));
        assert!(!post("http://localhost:3000") && !post("https://evil.example") && !post("null"));
        let site = |site: &str| verdict(&config, Method::DELETE, "/api/v1/agents/a", &[("host", "localhost"), ("sec-fetch-site", site)]);
        assert!(site("none") && site("same-origin"));
        assert!(!site("cross-site") && !site("same-site"));
    }
}
