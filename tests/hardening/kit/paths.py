"""Where things lie. Everything that is made goes below target/hardening, which git ignores."""

import os
from pathlib import Path

SUITE = Path(__file__).resolve().parent.parent
ROOT = SUITE.parent.parent
WORK = ROOT / "target" / "hardening"
LOGS = WORK / "logs"
PAGE = ROOT / "docs" / "hardening.md"


def cloakroom() -> str:
    """The program under test."""
    return os.environ.get("CLOAKROOM_BIN") or str(ROOT / "target" / "demo" / "cloakroom")
