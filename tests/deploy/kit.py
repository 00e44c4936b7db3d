"""What all checks of deploy/ share: where things are, how programs are called, how trouble is told."""

import json
import os
import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "cloakroom"
KUSTOMIZE = DEPLOY / "kustomize"
ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARDS = DEPLOY / "grafana"
WRITE = bool(os.environ.get("WRITE"))

trouble = []


def wrong(place, words):
    """Notes a mistake; all of them are told at the end."""
    trouble.append(f"{place}: {words}")


def expect(condition, place, words):
    if not condition:
        wrong(place, words)
    return condition


def program(variable, name):
    return os.environ.get(variable, name)


def run(*command, **more):
    """Runs a program; its exit code and all that it said."""
    try:
        done = subprocess.run(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, **more
        )
    except FileNotFoundError:
        return 127, f"{command[0]} is missing: install it, or name another one in {Path(command[0]).name.upper()}"
    return done.returncode, done.stdout


def text(path):
    return Path(path).read_text()


def load(path):
    return yaml.safe_load(text(path))


def documents(output):
    return [document for document in yaml.safe_load_all(output) if document]


def seconds(duration):
    """`10s`, `1m 30s` or a number as seconds."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "min": 60, "d": 86400}
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(duration))
    return sum(float(number) * units[unit or "s"] for number, unit in parts)


def version():
    return re.search(r'^version = "(.*)"', text(ROOT / "Cargo.toml"), re.M).group(1)


def as_json(value):
    return json.dumps(value, sort_keys=True, indent=1, default=str)
