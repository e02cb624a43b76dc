//! Free ports.

use std::net::{Ipv4Addr, TcpListener};

/// A service's HTTP port is its gRPC port plus this.
const OPS_OFFSET: u16 = 1000;
/// Below the ports that the system gives to outgoing connections: one must not take the port of a process that is being restarted.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// A port that is free now.
pub fn free() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// `count` ports for gRPC, whose HTTP ports are free too.
pub fn for_services(count: usize) -> anyhow::Result<Vec<u16>> {
    let start = free()? % COUNT;
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let candidates = (0..COUNT).map(|n| FIRST + (start + n) % COUNT);
    let found: Vec<u16> = candidates.filter(|port| is_free(*port) && is_free(port + OPS_OFFSET)).take(count).collect();
    anyhow::ensure!(found.len() == count, "no free ports");
    Ok(found)
}

/// Where a service answers `/live` and its like.
pub(crate) fn ops(grpc: u16) -> u16 {
    grpc + OPS_OFFSET
}
