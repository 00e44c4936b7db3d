#!/usr/bin/env bash
# Builds the proxy, unless CLOAKROOM_BIN names one, and runs tests/e2e against it.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${CLOAKROOM_BIN:-}" ]; then
  cargo build --locked --bin cloakroom
  export CLOAKROOM_BIN="${CARGO_TARGET_DIR:-target}/debug/cloakroom"
fi
CLOAKROOM_BIN=$(realpath "$CLOAKROOM_BIN")

cd tests/e2e
npm ci --no-audit --no-fund --loglevel=error
exec npm test --silent
