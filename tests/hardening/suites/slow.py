"""Slow clients (slowhttptest): headers, bodies and answers a few octets at a time, on thousands of connections, beside good
clients."""

import time

from kit import report
from kit.pacing import Good, alone
from kit.process import Child, until
from kit.proxy import Proxy
from kit.report import Row
from kit.servers import Answering

CONNECTIONS = 4000
SECONDS = 40
KINDS = {
    "headers": ["-H", "-i", "3"],
    "bodies": ["-B", "-i", "3", "-s", "8192"],
    # A window of some hundred octets, read a few at a time, from an answer of 1 MiB.
    "readers": ["-X", "-w", "256", "-y", "512", "-z", "16", "-n", "3", "-k", "1"],
}


def run(scale: int) -> list[Row]:
    rows = []
    with Answering("slow") as upstream:
        for kind in KINDS:
            with Proxy("slow", upstream.address) as proxy:
                rows.append(one(kind, proxy, max(100, CONNECTIONS // scale)))
    return rows


def one(kind: str, proxy: Proxy, connections: int) -> Row:
    before = alone("slow", proxy.host, proxy.http, 15)
    idle = proxy.memory()
    proxy.forget_peak()
    path = "/big" if kind == "readers" else "/x"
    command = ["slowhttptest", *KINDS[kind], "-c", connections, "-r", connections // 4, "-l", SECONDS, "-p", 3, "-x", 32,
               "-u", f"http://{proxy.host}:{proxy.http}{path}"]
    slow = Child(f"slowhttptest-{kind}", command, nice=5)
    # The good clients come when the slow ones are there.
    most, opened = 0, time.monotonic()
    while time.monotonic() < opened + 5:
        most = max(most, proxy.open_connections())
        time.sleep(0.25)
    good = Good("slow", proxy.host, proxy.http, 15)
    beside = good.told()
    left = proxy.open_connections()
    most = max(most, left)
    grown = (proxy.peak() - idle) / 1024
    slow.wait(SECONDS + 60)
    until("the slow connections are gone", lambda: proxy.open_connections() <= 1, 60)
    after = (proxy.memory() - idle) / 1024
    measured = (
        f"{most} slow ones open at most, {left} after 20 s; good clients alone: {before}; beside: {beside}; +{grown:.0f} MiB at most, "
        f"{after:+.0f} MiB afterwards"
    )
    passed = most > connections * 0.8 and beside.errors == 0 and beside.p99 <= max(2 * before.p99, before.p99 + 2)
    criterion = "good clients' p99 ≤ 2 × of alone (or + 2 ms), 0 errors"
    return Row("slow", f"{connections} slow {kind} with slowhttptest", criterion, measured, passed).tell()


def versions() -> list[str]:
    return [report.version("slowhttptest", "-v")]
