#!/usr/bin/env python3
"""Runs the suites that RUN names (default: all), shrunk to one SCALE-th, and prints a table each. WRITE=1 writes
them into the page."""

import importlib
import os
import sys
import time

from kit import report
from kit.process import end_with_us

# In this order. Each is a module in suites/ with `run(scale) -> list[Row]` and `versions() -> list[str]`.
SUITES = ["h2spec", "httpwg", "smuggling", "autobahn", "slow", "transfers", "crowds", "floods", "restart", "reload"]


def main() -> int:
    names = os.environ.get("RUN", "").split()
    scale = int(os.environ.get("SCALE") or 1)
    unknown = [name for name in names if name not in SUITES]
    if unknown or scale < 1:
        print(f"no such suite: {' '.join(unknown)}; there are: {' '.join(SUITES)}", file=sys.stderr)
        return 2
    end_with_us()
    sections = []
    for name in SUITES:
        if names and name not in names:
            continue
        print(f"== {name}", file=sys.stderr, flush=True)
        begun, versions = time.monotonic(), []
        try:
            suite = importlib.import_module(f"suites.{name}")
            rows = suite.run(scale)
            versions = suite.versions()
        except Exception as error:
            rows = [report.broke_off(name, "all of it", error)]
        sections.append(report.Section(name, rows, versions, time.monotonic() - begun))
        print(f"   {sections[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    report.publish(sections, SUITES, scale)
    return 1 if any(row.failed() for section in sections for row in section.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
