//! The faults that an analysis has to find.

use crate::Line;
use chrono::{DateTime, TimeDelta, Utc};
use rand::{Rng, RngExt, rngs::StdRng};
use serde_json::{Value, json};

/// A fault: lines of one kind, spread over some minutes.
struct Fault {
    id: &'static str,
    service: &'static str,
    /// What a report must say to have found it.
    cause: &'static str,
    from_minute: i64,
    minutes: i64,
    lines: usize,
    level: &'static str,
    text: fn(&mut StdRng) -> String,
}

const FAULTS: [Fault; 6] = [
    Fault {
        id: "connection-pool",
        service: "payments",
        cause: "connection pool exhausted",
        from_minute: 72,
        minutes: 7,
        lines: 420,
        level: "ERROR",
        text: |rng| {
            format!(
                "timeout acquiring connection from pool after {}ms size=20 waiting={} req={:08x}",
                rng.random_range(5000..5200),
                rng.random_range(30..400),
                rng.next_u32()
            )
        },
    },
    Fault {
        id: "retry-storm",
        service: "checkout",
        cause: "retry storm",
        from_minute: 73,
        minutes: 7,
        lines: 610,
        level: "WARN",
        text: |rng| {
            format!("retrying POST /charges attempt={} backoff=0ms req={:08x} release=v2.31.0", rng.random_range(2..9), rng.next_u32())
        },
    },
    Fault {
        id: "memory-leak",
        service: "search",
        cause: "memory leak",
        from_minute: 20,
        minutes: 75,
        lines: 9,
        level: "ERROR",
        text: |rng| {
            format!("container OOMKilled pod=search-{:05x} limit=512Mi restart={}", rng.next_u32() & 0xf_ffff, rng.random_range(1..9))
        },
    },
    Fault {
        id: "certificate",
        service: "inventory",
        cause: "certificate expired",
        from_minute: 60,
        minutes: 60,
        lines: 130,
        level: "ERROR",
        text: |rng| {
            format!(
                "supplier sync failed: x509: certificate has expired or is not yet valid: not after 2026-03-14T10:00:00Z req={:08x}",
                rng.next_u32()
            )
        },
    },
    Fault {
        id: "disk-full",
        service: "postgres",
        cause: "disk full",
        from_minute: 96,
        minutes: 9,
        lines: 75,
        level: "FATAL",
        text: |rng| format!("could not write to file \"pg_wal/xlogtemp.{}\": No space left on device", rng.random_range(100..9999)),
    },
    Fault {
        id: "dns",
        service: "auth",
        cause: "name resolution",
        from_minute: 33,
        minutes: 3,
        lines: 160,
        level: "ERROR",
        text: |rng| {
            format!(
                "session store unavailable: getaddrinfo EAI_AGAIN redis-{}.cache.svc: temporary failure in name resolution",
                rng.random_range(0..3)
            )
        },
    },
];

/// Adds the faults' lines; answers what was planted.
pub(crate) fn plant(rng: &mut StdRng, start: DateTime<Utc>, lines: &mut Vec<Line>) -> Vec<Value> {
    heap_growth(rng, start, lines);
    lines.push(Line {
        at: start + TimeDelta::minutes(71),
        level: "INFO",
        service: "kubelet",
        text: "deployed checkout release=v2.31.0 replicas=6".to_owned(),
    });
    FAULTS.iter().map(|fault| plant_one(rng, start, fault, lines)).collect()
}

fn plant_one(rng: &mut StdRng, start: DateTime<Utc>, fault: &Fault, lines: &mut Vec<Line>) -> Value {
    let from = start + TimeDelta::minutes(fault.from_minute);
    let span = fault.minutes * 60_000;
    for _ in 0..fault.lines {
        let at = from + TimeDelta::milliseconds(rng.random_range(0..span));
        let text = (fault.text)(rng);
        lines.push(Line { at, level: fault.level, service: fault.service, text });
    }
    json!({ "id": fault.id, "service": fault.service, "cause": fault.cause, "lines": fault.lines, "from": from, "to": from + TimeDelta::milliseconds(span) })
}

/// The leak's trace before each kill: heap use that only grows.
fn heap_growth(rng: &mut StdRng, start: DateTime<Utc>, lines: &mut Vec<Line>) {
    for minute in 0..120_i64 {
        let used = 180 + (minute % 13) * 25 + rng.random_range(0..8);
        lines.push(Line {
            at: start + TimeDelta::minutes(minute),
            level: "INFO",
            service: "search",
            text: format!("heap used={used}Mi limit=512Mi gc=minor"),
        });
    }
}
