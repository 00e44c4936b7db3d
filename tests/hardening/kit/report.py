"""What came of the suites: a table each."""

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timezone

from . import paths

WORDS = paths.SUITE / "hardening.md"

OF_OTHERS = ["fuzz"]
"""Sections that come last and are no suite's: see `fuzz.py`."""


@dataclass
class Row:
    """One line of the table."""

    suite: str
    done: str
    criterion: str
    measured: str
    passed: bool | None
    """None: not tried, and `measured` says why."""
    bounded: bool = False
    """With `passed` False: the criterion is known not to hold, and the bound that `measured` names instead does."""

    def verdict(self) -> str:
        if self.passed is False and self.bounded:
            return "not met, bounded"
        return {True: "pass", False: "**FAIL**", None: "not tried"}[self.passed]

    def failed(self) -> bool:
        return self.passed is False and not self.bounded

    def tell(self) -> "Row":
        print(f"   {self.verdict()} | {self.done} | {self.measured}", file=sys.stderr, flush=True)
        return self


def tried(suite: str, done: str, trial) -> Row:
    """What `trial` gives; a row that fails if it breaks off, so that the others' results are not lost with it."""
    try:
        return trial()
    except Exception as error:
        return broke_off(suite, done, error)


def broke_off(suite: str, done: str, error: Exception) -> Row:
    return Row(suite, done, "ends", f"broke off: {type(error).__name__}: {error}", False).tell()


@dataclass
class Section:
    """What one run of a suite brought."""

    suite: str
    rows: list[Row]
    versions: list[str]
    seconds: float
    command: str | None = None
    """What repeats it, if that is not `make hardening RUN=…`."""
    words: str = ""
    """What a reader of the table must know, if anything."""

    def text(self, scale: int) -> str:
        command = self.command or f"make hardening RUN={self.suite}" + (f" SCALE={scale}" if scale != 1 else "")
        today = datetime.now(timezone.utc).strftime("%a, %d %b %Y")
        programs = ", ".join(self.versions if self.command else [python(), *self.versions])
        about = f"{today}, `{command}`, {self.seconds:.0f} s on {os.cpu_count()} cores: {programs}."
        about += f"\n\n{self.words}" if self.words else ""
        return f"## {self.suite}\n\n{about}\n\n{table(self.rows)}\n"


def table(rows: list[Row]) -> str:
    lines = ["| what was done | pass criterion | measured | |", "|---|---|---|---|"]
    for row in rows:
        cells = (row.done, row.criterion, row.measured, row.verdict())
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def publish(sections: list[Section], suites: list[str], scale: int) -> None:
    """Prints the tables; WRITE puts them into the documentation as well, in the place of what these suites said before. What
    other suites said stays."""
    order = [*suites, *OF_OTHERS]
    new = {section.suite: section.text(scale) for section in sections}
    print("\n".join(new.values()))
    if os.environ.get("WRITE", "") in ("", "0"):
        return
    all_of_them = {**written(order), **new}
    text = "\n".join(all_of_them[suite] for suite in order if suite in all_of_them)
    paths.PAGE.write_text(WORDS.read_text().replace("@SECTIONS@\n", text))
    print("written to docs/hardening.md", file=sys.stderr)


def written(order: list[str]) -> dict[str, str]:
    """The sections of the page as it is."""
    page = paths.PAGE.read_text() if paths.PAGE.exists() else ""
    parts = re.split(r"(?m)^## (.*)\n", page)[1:]
    return {suite: f"## {suite}\n{text.rstrip()}\n" for suite, text in zip(parts[::2], parts[1::2]) if suite in order}


def version(*command: str, line: int = 0) -> str:
    """What a program says of itself."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        return f"{command[0]}: none"
    lines = (said.stdout + said.stderr).strip().splitlines()
    return lines[line].strip() if len(lines) > line else command[0]


def python() -> str:
    return f"Python {platform.python_version()}"
