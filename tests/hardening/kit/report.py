"""What came of the suites, as one table."""

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timezone

from . import paths

WORDS = paths.SUITE / "hardening.md"


@dataclass
class Row:
    """One line of the table."""

    suite: str
    done: str
    criterion: str
    measured: str
    passed: bool | None
    """None: not tried, and `measured` says why."""

    def verdict(self) -> str:
        return {True: "pass", False: "**FAIL**", None: "not tried"}[self.passed]

    def tell(self) -> "Row":
        print(f"   {self.verdict()} | {self.done} | {self.measured}", file=sys.stderr, flush=True)
        return self


def table(rows: list[Row]) -> str:
    lines = ["| suite | what was done | pass criterion | measured | |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row.suite, row.done, row.criterion, row.measured, row.verdict())
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def publish(rows: list[Row], names: list[str], scale: int, versions: list[str]) -> None:
    """Prints the table; WRITE puts it into the documentation as well."""
    text = table(rows)
    print(text)
    if os.environ.get("WRITE", "") in ("", "0"):
        return
    command = "make hardening WRITE=1"
    if names:
        command += f' RUN="{" ".join(names)}"'
    if scale != 1:
        command += f" SCALE={scale}"
    today = datetime.now(timezone.utc).strftime("%a, %d %b %Y")
    about = f"Measured {today} with `{command}` on {os.cpu_count()} cores: " + ", ".join(versions) + "."
    paths.PAGE.write_text(WORDS.read_text().replace("@ABOUT@", about).replace("@TABLE@", text))
    print("written to docs/hardening.md", file=sys.stderr)


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
