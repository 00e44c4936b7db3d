"""All checks of deploy/; `scripts/deploy-check.sh` brings the programs."""

import sys
import time

import chart
import kustomize
import single
from kit import trouble

CHECKS = {
    "image": single.image,
    "alert rules": single.alerts,
    "chart": chart.check,
    "kustomize": kustomize.check,
    "compose": single.compose,
    "systemd": single.systemd,
}

for name, check in CHECKS.items():
    begun, before = time.monotonic(), len(trouble)
    count = check()
    word = "good" if len(trouble) == before else "WRONG"
    times = f", {count} combinations" if count else ""
    print(f"deploy: {name}: {word}{times} ({time.monotonic() - begun:.1f} s)", flush=True)
for words in trouble:
    print(f"\n{words}", file=sys.stderr)
sys.exit(1 if trouble else 0)
