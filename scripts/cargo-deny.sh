#!/usr/bin/env bash
# Makes sure that cargo-deny is here. There is no Debian package of it: cargo builds it, once, into its own folder.
set -euo pipefail

version=0.20.2

if cargo deny --version >/dev/null 2>&1; then exit 0; fi
printf 'setup: building cargo-deny %s (once; some minutes) …\n' "$version" >&2
exec cargo install --locked --quiet "cargo-deny@$version"
