#!/usr/bin/env python3
"""Runs the suites that RUN names (default: all), shrunk to one SCALE-th, and prints one table. WRITE=1 writes the page."""

import importlib
import os
import sys
import time

from kit import report
from kit.process import end_with_us

# In this order. Each is a module in suites/ with `run(scale) -> list[Row]` and `versions() -> list[str]`.
SUITES = ["h2spec", "smuggling", "autobahn", "slow", "transfers", "crowds", "floods", "restart"]


def main() -> int:
    names = os.environ.get("RUN", "").split()
    scale = int(os.environ.get("SCALE") or 1)
    unknown = [name for name in names if name not in SUITES]
    if unknown or scale < 1:
        print(f"no such suite: {' '.join(unknown)}; there are: {' '.join(SUITES)}", file=sys.stderr)
        return 2
    end_with_us()
    rows, versions = [], [report.python()]
    for name in SUITES:
        if names and name not in names:
            continue
        print(f"== {name}", file=sys.stderr, flush=True)
        begun = time.monotonic()
        try:
            suite = importlib.import_module(f"suites.{name}")
            rows += suite.run(scale)
            versions += [version for version in suite.versions() if version not in versions]
        except Exception as error:
            rows.append(report.Row(name, "broke off", "ends", f"{type(error).__name__}: {error}", False).tell())
        print(f"   {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    report.publish(rows, names, scale, versions)
    return 0 if all(row.passed is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
