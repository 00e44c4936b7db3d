#!/usr/bin/env bash
# Makes sure that cargo-fuzz is here. There is no Debian package of it: cargo builds it, once, into its own folder.
set -euo pipefail

version=0.13.2

if cargo fuzz --version >/dev/null 2>&1; then exit 0; fi
printf 'setup: building cargo-fuzz %s (once; a minute or two) …\n' "$version" >&2
exec cargo install --locked --quiet "cargo-fuzz@$version"
