#!/usr/bin/env bash
# Runs all tests: with cargo-nextest where it is installed, with cargo test otherwise. Servers that the tests need are started before and
# stopped after; those that run already are used and left alone.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! scripts/services.sh running; then
    trap 'scripts/services.sh stop' EXIT
fi
servers=$(scripts/services.sh)
eval "$servers"

if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --workspace --no-fail-fast
else
    cargo test --locked --workspace --no-fail-fast
fi
