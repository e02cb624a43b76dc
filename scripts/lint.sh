#!/usr/bin/env bash
# Format, lints, file and function sizes, licences, protos. Installs cargo-deny and buf when they are missing.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

step "format"
cargo fmt --all --check

step "clippy"
cargo clippy --locked --workspace --all-targets -- -D warnings

step "sizes"
long=$(git ls-files '*.rs' | xargs wc -l | awk '$2 != "total" && $1 > 500 { print "  " $2 ": " $1 " lines" }')
if [ -n "$long" ]; then
    printf 'files over 500 lines:\n%s\n' "$long"
    exit 1
fi
echo "no Rust file is over 500 lines"

step "licences, bans, sources"
if ! cargo deny --version >/dev/null 2>&1; then
    cargo install --locked cargo-deny
fi
cargo deny --locked check bans licenses sources

step "protos"
if command -v buf >/dev/null 2>&1; then
    buf lint proto
elif command -v npx >/dev/null 2>&1; then
    npx --yes @bufbuild/buf@1 lint proto
else
    echo "buf is not installed and neither is npx: protos are not linted (https://buf.build/docs/installation)" >&2
    exit 1
fi
