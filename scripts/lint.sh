#!/usr/bin/env bash
# Everything that can be judged without running the program.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

step 'format'
cargo fmt --all --check
cargo fmt --manifest-path fuzz/Cargo.toml --check

step 'clippy'
cargo clippy --locked --all-targets -- -D warnings
cargo clippy --locked --features failpoints --test faults -- -D warnings

step 'dependencies: bans, licences, sources'
scripts/cargo-deny.sh
cargo deny --locked check bans licenses sources

step 'alert rules'
promtool check rules deploy/prometheus/alerts.yaml
promtool test rules deploy/prometheus/alerts.test.yaml

step 'shell scripts'
if command -v shellcheck >/dev/null 2>&1; then
  shellcheck .ci/run scripts/*.sh deploy/compose/*.sh
else
  echo 'shellcheck is not here (make setup brings it): scripts not checked'
fi
