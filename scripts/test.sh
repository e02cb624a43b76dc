#!/usr/bin/env bash
# Runs all tests: with cargo-nextest where it is installed, with cargo test otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."

if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --workspace --no-fail-fast
else
    cargo test --locked --workspace --no-fail-fast
fi
