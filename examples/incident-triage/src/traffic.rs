//! The ordinary life of the shop: requests, queries, housekeeping, and a little harmless noise.

use crate::Line;
use chrono::{DateTime, TimeDelta, Utc};
use rand::{Rng, RngExt, rngs::StdRng};

const ROUTES: [(&str, &str, u32); 8] = [
    ("gateway", "GET /products", 18),
    ("gateway", "GET /cart", 12),
    ("checkout", "POST /orders", 85),
    ("payments", "POST /charges", 140),
    ("inventory", "GET /stock", 22),
    ("auth", "POST /sessions", 35),
    ("search", "GET /search", 48),
    ("checkout", "GET /orders", 30),
];

/// `count` lines spread over the time.
pub(crate) fn ordinary(rng: &mut StdRng, start: DateTime<Utc>, end: DateTime<Utc>, count: usize) -> Vec<Line> {
    let span = (end - start).num_milliseconds();
    (0..count)
        .map(|_| {
            let at = start + TimeDelta::milliseconds(rng.random_range(0..span));
            line(rng, at)
        })
        .collect()
}

fn line(rng: &mut StdRng, at: DateTime<Utc>) -> Line {
    match rng.random_range(0..100) {
        0..80 => request(rng, at),
        80..90 => Line {
            at,
            level: "DEBUG",
            service: "postgres",
            text: format!("statement completed rows={} duration={}ms", rng.random_range(0..400), rng.random_range(1..30)),
        },
        90..96 => Line {
            at,
            level: "INFO",
            service: "kubelet",
            text: format!("probe succeeded pod={}-{:05x}", ROUTES[rng.random_range(0..8)].0, rng.next_u32() & 0xf_ffff),
        },
        96..99 => Line {
            at,
            level: "WARN",
            service: "auth",
            text: format!("login failed user=u{} reason=bad_password", rng.random_range(1000..9999)),
        },
        _ => Line { at, level: "WARN", service: "gateway", text: format!("client closed request req={:08x} status=499", rng.next_u32()) },
    }
}

fn request(rng: &mut StdRng, at: DateTime<Utc>) -> Line {
    let (service, route, typical) = ROUTES[rng.random_range(0..ROUTES.len())];
    let spread: f64 = rng.random_range(0.5..1.8);
    let millis = (f64::from(typical) * spread).round();
    let status = if rng.random_bool(0.004) { 404 } else { 200 };
    Line { at, level: "INFO", service, text: format!("{route} status={status} duration={millis}ms req={:08x}", rng.next_u32()) }
}
