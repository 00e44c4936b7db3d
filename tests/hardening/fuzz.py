#!/usr/bin/env python3
"""Writes what `make fuzz` brought into the page: `fuzz.py SECONDS COMMAND VERSION...`, with the rows of its table on stdin."""

import sys

from kit import paths, report
from run import SUITES

NAME = "fuzz"
WORDS = """\
The targets of `fuzz/` feed made-up inputs to what reads the bytes of strangers, without a running proxy. A crash is a panic,
a report of the address sanitizer, an integer that wraps, an input that takes too long or too much memory, or an answer that
breaks the criterion."""


def main() -> int:
    spent, command, *versions = sys.argv[1:]
    rows = []
    for line in sys.stdin:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        target, seconds, runs, speed, edges, corpus, memory, result = cells
        passed = result == "pass"
        measured = f"{grouped(runs)} inputs, {grouped(speed)} a second; {grouped(edges)} edges of the program run; "
        measured += f"{grouped(corpus)} inputs kept; {memory} of memory at most; " + ("no crash" if passed else result)
        rows.append(report.Row(NAME, f"`{target}`, {seconds} s", checks(target), measured, passed))
    report.publish([report.Section(NAME, rows, versions, float(spent), command, WORDS)], SUITES, 1)
    return 0


def grouped(number: str) -> str:
    return f"{int(number):,}" if number.isdigit() else "?"


def checks(target: str) -> str:
    """What the target asserts: the first paragraph of its description."""
    text = (paths.ROOT / "fuzz" / "fuzz_targets" / f"{target}.rs").read_text()
    lines = [line.removeprefix("//!").strip() for line in text.splitlines() if line.startswith("//!")]
    end = lines.index("") if "" in lines else len(lines)
    return " ".join(lines[:end])


if __name__ == "__main__":
    sys.exit(main())
