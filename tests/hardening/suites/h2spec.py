"""h2spec: RFC 9113 and RFC 7541, case by case, over TLS and with prior knowledge in the clear."""

import socket
import xml.etree.ElementTree as ElementTree

from kit import paths, report, tools
from kit.http1 import read_to_end
from kit.process import run as run_program
from kit.proxy import Proxy
from kit.report import Row
from kit.servers import Answering

# Cases that cannot hold for us, and why. A case that is listed here and passes is told as well.
EXPECTED = {
    "http2/3.5/2": "the port speaks HTTP/1.1 too, so what is no preface is a bad HTTP/1 request: 400 in HTTP/1, then closed",
}


def run(scale: int) -> list[Row]:
    program, _ = tools.h2spec()
    with Answering("h2spec") as upstream, Proxy("h2spec", upstream.address) as proxy:
        rows = [one(program, proxy, "TLS", proxy.tls, ["-t", "-k"], {}),
                one(program, proxy, "h2c", proxy.http, [], EXPECTED)]
        rows.append(bad_preface(proxy))
        return rows


def one(program, proxy, name: str, port: int, more: list[str], expected: dict[str, str]) -> Row:
    results = paths.WORK / f"h2spec-{name}.xml"
    results.unlink(missing_ok=True)
    run_program([program, "-h", proxy.host, "-p", port, "-P", "/x", "-o", "5", "-j", results, *more],
                seconds=600, log=f"h2spec-{name}")
    failed, count = read(results)
    unexpected = [f"{case} ({text})" for case, text in failed.items() if case not in expected]
    measured = f"{count} cases: {count - len(failed)} as asked, {len(failed)} otherwise"
    measured += "".join(f"; {case}: {expected[case]}" for case in failed if case in expected)
    measured += "".join(f"; unexpected: {case}" for case in unexpected)
    passed = not unexpected and count > 140 and proxy.answers() == 200
    return Row("h2spec", f"all cases over {name}", "all; or listed with a reason", measured, passed).tell()


def read(results) -> tuple[dict[str, str], int]:
    """The failed cases of a JUnit file by section and number, and how many were run."""
    failed, count = {}, 0
    for package in ElementTree.parse(results).getroot().iter("testsuite"):
        for number, case in enumerate(package.iter("testcase"), start=1):
            count += 1
            problem = case.find("failure")
            if problem is None:
                problem = case.find("error")
            if problem is not None:
                failed[f"{package.get('package')}/{number}"] = case.get("classname") or ""
    return failed, count


def bad_preface(proxy) -> Row:
    """What h2spec cannot read: the answer to a broken preface in the clear."""
    with socket.create_connection((proxy.host, proxy.http), 5) as wire:
        wire.sendall(b"INVALID CONNECTION PREFACE\r\n\r\n")
        said, closed = read_to_end(wire, 15)
    passed = closed and (said.startswith(b"HTTP/1.1 400") or not said)
    line = said.split(b"\r\n")[0].decode(errors="replace") or "nothing"
    measured = f"{line}, {'closed' if closed else 'left open'}"
    return Row("h2spec", "a broken preface in the clear", "400 in HTTP/1 or nothing, then closed", measured, passed).tell()


def versions() -> list[str]:
    return [f"h2spec {tools.h2spec()[1]}"]
