#!/usr/bin/env bash
# Builds the proxy, unless CLOAKROOM_BIN names one, and tries it with the suites of tests/hardening: RUN="h2spec floods"
# runs some, SCALE=10 a tenth, WRITE=1 writes docs/hardening.md.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${CLOAKROOM_BIN:-}" ]; then
  cargo build --locked --profile demo --bin cloakroom
  export CLOAKROOM_BIN="${CARGO_TARGET_DIR:-target}/demo/cloakroom"
fi
CLOAKROOM_BIN=$(realpath "$CLOAKROOM_BIN")
# Thousands of connections at a time; what the system allows at most is enough.
ulimit -Sn "$(ulimit -Hn)"
exec python3 tests/hardening/run.py
