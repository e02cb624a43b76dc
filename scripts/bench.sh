#!/usr/bin/env bash
# Measures Troupe in one process and as separate services (one of each, with a PostgreSQL and a Redis of their own) on this machine, and prints
# one table. Takes the options of `troupe bench`. Everything is in target/bench and goes with the measurement.
set -euo pipefail
cd "$(dirname "$0")/.."

export UP=target/bench REPLICAS=1 PROFILE=release
# Runs that have ended stay, however many there are.
export TROUPE__CHECKPOINT__RETENTION_RUNS=0 TROUPE__TELEMETRY__LOG=warn

# Also when not everything came up.
finish() { scripts/up.sh down --remove >/dev/null; }
trap finish EXIT

# One thread for the tasks of each process: there are more processes than cores.
TOKIO_WORKER_THREADS=1 scripts/up.sh >&2

# name column: of target/bench/ports.
port() { awk -v name="$1-1" -v column="$2" '$1 == name { print $column }' "$UP/ports"; }

postgres=$(sed -n 's/^export TROUPE__CHECKPOINT__POSTGRES__URL=//p' "$UP/settings")
services=()
for service in registry scheduler executor checkpoint approval agents gateway; do
    services+=(--service "$service=http://127.0.0.1:$(port "$service" 3)")
done
target/release/troupe bench "$@" --against "http://127.0.0.1:$(port gateway 2)" --workers-at "http://127.0.0.1:$(port scheduler 2)" \
    --postgres "$postgres" "${services[@]}"
