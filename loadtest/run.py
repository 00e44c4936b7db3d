#!/usr/bin/env python3
"""Runs the scenarios that RUN names (default: all) with k6 and prints a table; see README.md.

Without BASE_URL everything they need is started on the loopback, anew for each scenario, and ended. With it the scripts are
pointed there and nothing is started."""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "hardening")]

from kit import paths  # noqa: E402
from kit.process import Child, end_with_us  # noqa: E402

paths.WORK = ROOT / "target" / "loadtest"
paths.LOGS = paths.WORK / "logs"

from stage.control import Control  # noqa: E402
from stage.local import Stage  # noqa: E402

SCENARIOS = ["smoke", "login", "api_steady", "csrf", "refresh_storm", "idp_slow", "idp_outage", "store_outage", "session_flush",
             "logout_storm", "websocket", "reload", "drain", "soak"]
LONGEST = 26 * 3600
# How k6 ends where a threshold does not hold.
BROKEN = 99


@dataclass
class Result:
    scenario: str
    code: int
    seconds: float
    told: dict

    def good(self) -> bool:
        return self.code == 0

    def noticed(self) -> bool:
        """A defect: k6 went through to its end, and there is a check that failed."""
        return self.code == BROKEN and self.told.get("fails", 0) > 0

    def row(self) -> list[str]:
        verdict = "passed" if self.good() else f"FAILED ({self.code})"
        told = self.told
        p95 = f"{told['p95']:.1f} ms" if told.get("p95") is not None else "–"
        return [self.scenario, verdict, f"{told.get('passes', 0)} / {told.get('fails', '–')}", str(told.get("requests", "–")), p95,
                f"{self.seconds:.0f} s", "; ".join(told.get("failed", [])[:3])]


def main() -> int:
    names = os.environ.get("RUN", "").split()
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        print(f"no such scenario: {' '.join(unknown)}; there are: {' '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    end_with_us()
    sabotage = bool(os.environ.get("SABOTAGE"))
    results = []
    for name in SCENARIOS:
        if names and name not in names:
            continue
        results.append(play(name, sabotage))
        print(f"loadtest: {' · '.join(part for part in results[-1].row() if part)}", file=sys.stderr, flush=True)
    table = written(results)
    (paths.WORK / "summary.md").write_text(table)
    print(table)
    if sabotage:
        missed = [result.scenario for result in results if not result.noticed()]
        print(f"not noticed: {' '.join(missed)}" if missed else "each defect was noticed")
        return 1 if missed else 0
    return 0 if all(result.good() for result in results) else 1


def play(name: str, sabotage: bool) -> Result:
    begun = time.monotonic()
    summary = paths.WORK / f"{name}.json"
    summary.unlink(missing_ok=True)
    stage, k6, code = None, None, 1
    try:
        variables = {"SUMMARY": str(summary), "PROFILE": os.environ.get("PROFILE") or "smoke"}
        if not os.environ.get("BASE_URL"):
            stage = Stage(name if sabotage else "")
            variables |= stage.variables(Control(stage).url)
        command = [os.environ["K6"], "run", "--quiet", "--no-color", "--no-usage-report", ROOT / "loadtest" / f"{name}.js"]
        k6 = Child(f"k6-{name}", command, env=variables)
        code = k6.wait(LONGEST)
        if code and not sabotage:
            print(k6.log.read_text(errors="replace")[-3000:], file=sys.stderr)
    except Exception as error:
        print(f"loadtest: {name}: {error}", file=sys.stderr)
    finally:
        if k6:
            k6.stop()
        if stage:
            stage.stop()
    told = json.loads(summary.read_text()) if summary.exists() else {"failed": [f"no summary; see {paths.LOGS}/k6-{name}.log"]}
    most = float(os.environ.get("LATENCY_RATIO") or 0)
    if most and name == "api_steady" and not sabotage:
        ratio = told.get("ratio")
        if ratio is None or ratio > most:
            code = code or BROKEN
            wrong = "no latency to compare (DIRECT_URL)" if ratio is None else f"latency is {ratio:.1f} times that of the direct path"
            told["failed"] = [*told.get("failed", []), wrong]
    return Result(name, code, time.monotonic() - begun, told)


def written(results: list[Result]) -> str:
    head = ["scenario", "verdict", "checks passed / failed", "requests", "p95", "took", "what failed"]
    rows = [head, *(result.row() for result in results)]
    width = [max(len(row[place]) for row in rows) for place in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width[place]) for place, cell in enumerate(row)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (size + 2) for size in width) + "|")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
