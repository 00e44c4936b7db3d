"""httpwg: RFC 9113 once more, by other people than those of h2spec, over connections in the clear."""

import re

from kit import tools
from kit.process import Child
from kit.proxy import Proxy
from kit.report import Row
from kit.servers import Answering

# Cases that cannot hold for us, by the beginning of their names, and why.
EXPECTED: dict[str, str] = {}
MILLISECONDS = 2000
"""How long it waits for a frame: its 250 ms are for an idle machine."""


def run(scale: int) -> list[Row]:
    program = tools.httpwg()
    with Answering("httpwg") as upstream, Proxy("httpwg", upstream.address) as proxy:
        command = [program, "--address", f"{proxy.host}:{proxy.http}", "--frame-timeout", MILLISECONDS, "--connect-timeout", MILLISECONDS]
        # One after the other: all at once they wait for each other.
        child = Child("httpwg", command, env={"SEQUENTIAL": "1", "RUST_LOG": "warn", "NO_COLOR": "1"})
        child.wait(600)
        told = re.sub(r"\x1b\[[0-9;]*m", "", child.log.read_text(errors="replace"))
        passed = re.findall(r"Test passed: (.*)", told)
        failed = re.findall(r"Test failed: (.*)", told)
        if not passed and not failed:
            why = f"httpwg-cli {tools.HTTPWG} does not run here: " + " ".join(told.split())[-200:]
            return [Row("httpwg", "all cases in the clear", "all; or listed with a reason", why, None).tell()]
        reasons = {name: next((why for begin, why in EXPECTED.items() if name.startswith(begin)), None) for name in failed}
        measured = f"{len(passed) + len(failed)} cases: {len(passed)} as asked, {len(failed)} otherwise"
        measured += "".join(f"; {name}: {why or 'UNEXPECTED'}" for name, why in reasons.items())
        good = all(reasons.values()) and proxy.answers() == 200
        return [Row("httpwg", "all cases in the clear", "all; or listed with a reason", measured, good).tell()]


def versions() -> list[str]:
    return [f"httpwg-cli {tools.HTTPWG}"]
