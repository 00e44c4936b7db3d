#!/usr/bin/env bash
# scripts/need.sh PROGRAM... - makes sure that these programs are here.
#
# What is missing is installed with apt-get when that is allowed without a question (root, or sudo without a password).
# Otherwise the exact command is printed and the exit code is 1.
set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }

have() { command -v "$1" >/dev/null 2>&1; }

# Whether a program is here, also where it goes by several names or is more than a file.
present() {
  case "$1" in
    chromium) [ -n "${CHROMIUM:-}" ] || have chromium || have chromium-browser || have google-chrome-stable || have google-chrome ;;
    python3-venv) python3 -c 'import ensurepip, venv' >/dev/null 2>&1 ;;
    postgresql) have initdb || compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null ;;
    rustfmt) cargo fmt --version >/dev/null 2>&1 ;;
    clippy) cargo clippy --version >/dev/null 2>&1 ;;
    *) have "$1" ;;
  esac
}

# The Debian packages that bring a program; empty for what apt-get should not bring.
packages() {
  case "$1" in
    cc | c++) echo build-essential ;;
    node) echo nodejs ;;
    java) echo default-jdk-headless ;;
    mvn) echo maven ;;
    testssl) echo testssl.sh ;;
    systemd-analyze) echo systemd ;;
    go) echo golang-go ;;
    promtool) echo prometheus ;;
    nginx) echo nginx-light ;;
    apache2) echo apache2-bin ;;
    chromium | cmake | curl | gunicorn | jq | npm | openssl | postgresql | python3 | python3-venv | redis-server | shellcheck | slowhttptest | wrk) echo "$1" ;;
  esac
}

# Programs that must not be older than what we use of them.
too_old() {
  local major
  case "$1" in
    node)
      major=$(node -p 'process.versions.node.split(".")[0]')
      [ "$major" -ge 20 ] || say "Node $major is too old: 20 or newer is needed"
      [ "$major" -lt 20 ]
      ;;
    java)
      major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
      [ "${major:-0}" -ge 17 ] || say "Java ${major:-of unknown version} is too old: 17 or newer is needed"
      [ "${major:-0}" -lt 17 ]
      ;;
    *) return 1 ;;
  esac
}

missing=()
wanted=()
by_hand=0
for program in "$@"; do
  present "$program" && continue
  case "$program" in
    cargo)
      say "cargo is missing: install Rust with rustup (its site is rustup.rs)"
      by_hand=1
      ;;
    rustfmt | clippy)
      say "$program is missing; type: rustup component add $program"
      by_hand=1
      ;;
    *)
      name=$(packages "$program")
      if [ -z "$name" ]; then
        say "$program is missing, and there is no package known for it"
        by_hand=1
      else
        missing+=("$program")
        wanted+=("$name")
      fi
      ;;
  esac
done

if [ "${#wanted[@]}" -gt 0 ]; then
  say "missing: ${missing[*]}"
  install=(apt-get install --yes --no-install-recommends "${wanted[@]}")
  if ! have apt-get; then
    say "this is not a Debian: install them with your own package manager (Debian's names: ${wanted[*]})"
    exit 1
  elif [ "$(id -u)" -eq 0 ]; then
    as=(env DEBIAN_FRONTEND=noninteractive)
  elif have sudo && sudo --non-interactive true 2>/dev/null; then
    as=(sudo --non-interactive env DEBIAN_FRONTEND=noninteractive)
  else
    say "type: sudo apt-get update && sudo ${install[*]}"
    exit 1
  fi
  say "installing with apt-get: ${wanted[*]}"
  "${as[@]}" apt-get update --quiet=2 >/dev/null
  "${as[@]}" "${install[@]}" --quiet=2 </dev/null >/dev/null
  for program in "${missing[@]}"; do
    if ! present "$program"; then
      say "$program is still missing after the installation"
      by_hand=1
    fi
  done
fi

for program in "$@"; do
  if present "$program" && too_old "$program"; then by_hand=1; fi
done

exit "$by_hand"
