"""httpwg: RFC 9113 once more, by other people than those of h2spec, over connections in the clear."""

import re
from collections import Counter

from kit import tools
from kit.process import Child
from kit.proxy import Proxy
from kit.report import Row
from kit.servers import Answering

# Cases that come out otherwise for us, by the end of their names, and why that is harmless.
ANSWERED = "400 or 405 and the end of the stream, as RFC 9113 §8.1.1 allows, not a reset"
TRIMMED = "the space around a value is no part of it for the upstream, which gets HTTP/1"
EXPECTED = {
    "sends connect without authority": ANSWERED,
    "sends headers frame with mismatched host authority": ANSWERED,
    "sends headers frame with leading space in field value": TRIMMED,
    "sends headers frame with trailing tab in field value": TRIMMED,
    "sends headers frame with pseudo header in trailer": "trailers of requests go no further",
    "client sends push promise frame": "with fields that no request has it is not taken note of; nothing comes of it",
}
LESS_EXACT = "the connection is closed, with PROTOCOL_ERROR where a narrower code exists"
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
        failed = re.findall(r"Test failed: (.*)\n(?:\s*\n)*(.*)", told)
        if not passed and not failed:
            why = f"httpwg-cli {tools.HTTPWG} does not run here: " + " ".join(told.split())[-200:]
            return [Row("httpwg", "all cases in the clear", "all; or listed with a reason", why, None).tell()]
        reasons, unexpected = Counter(), []
        for case, problem in failed:
            name = case.split(" :: ")[-1].strip()
            why = LESS_EXACT if problem.endswith("but got ProtocolError") else EXPECTED.get(name)
            if why:
                reasons[why] += 1
            else:
                unexpected.append(f"{case}: {problem.strip()}")
        measured = f"{len(passed) + len(failed)} cases: {len(passed)} as asked, {len(failed)} otherwise"
        measured += "".join(f"; {count}: {why}" for why, count in reasons.most_common())
        measured += "".join(f"; UNEXPECTED: {one}" for one in unexpected)
        good = not unexpected and proxy.answers() == 200
        return [Row("httpwg", "all cases in the clear", "all; or listed with a reason", measured, good).tell()]


def versions() -> list[str]:
    return [f"httpwg-cli {tools.HTTPWG}"]
