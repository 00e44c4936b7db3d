"""Slow clients (slowhttptest): headers, bodies and answers a few octets at a time, on thousands of connections, beside good
clients. All of them come from one address, so that the limit for one is lifted; what it does is tried by itself."""

import time

from kit import report
from kit.pacing import CONNECTIONS as GOOD_CONNECTIONS
from kit.pacing import Good, Told, alone
from kit.process import Child, until
from kit.proxy import ANY_NUMBER, Proxy
from kit.report import Row, tried
from kit.servers import Answering

CONNECTIONS = 4000
SECONDS = 30
GOOD_SECONDS = 15
KINDS = {
    "headers": ["-H", "-i", "3"],
    "bodies": ["-B", "-i", "3", "-s", "8192"],
    # A window of some hundred octets, read a few at a time, from an answer of 1 MiB.
    "readers": ["-X", "-w", "256", "-y", "512", "-z", "16", "-n", "3", "-k", "1"],
}
LIFTED = "limit for one address lifted"
ANOTHER = "127.0.0.2"
"""A client that is not the attacker."""


def run(scale: int) -> list[Row]:
    connections = max(100, CONNECTIONS // scale)
    with Answering("slow") as upstream:
        rows = [tried("slow", kind, lambda kind=kind: many(kind, upstream, connections)) for kind in KINDS]
        rows.append(tried("slow", "one address", lambda: of_one_address(upstream, connections)))
        return rows


def many(kind: str, upstream: Answering, connections: int) -> Row:
    with Proxy("slow", upstream.address, limits=ANY_NUMBER) as proxy:
        seen = beside(kind, proxy, connections, None)
    measured = (
        f"{seen.most} open at most, good ones among them, {seen.left} after 20 s; {seen.clients()}; +{seen.grown:.0f} MiB at most, "
        f"{seen.after:+.0f} MiB afterwards"
    )
    done = f"{connections} slow {kind} with slowhttptest; {LIFTED}"
    return Row("slow", done, CRITERION, measured, seen.most > connections * 0.8 and seen.fair()).tell()


def of_one_address(upstream: Answering, connections: int) -> Row:
    """More connections than may be open at all, from one address; somebody else's requests go on."""
    room = connections // 2
    with Proxy("slow", upstream.address, limits=f"connections: {room}") as proxy:
        seen = beside("headers", proxy, connections, ANOTHER)
        refused = int(proxy.metric("cloakroom_connections_rejected_total", reason="address"))
    measured = f"{seen.most} open at most, good ones of the other address among them, {refused} refused; of another address, {seen.clients()}"
    done = f"{connections} slow headers of one address where {room} connections may be open; limit for one address at its default, half"
    held = room * 0.4 < seen.most <= room // 2 + 2 * GOOD_CONNECTIONS and refused > 0
    return Row("slow", done, f"at most half of them for one address; another's {CRITERION}", measured, held and seen.fair()).tell()


CRITERION = "good clients' p99 ≤ 2 × of alone (or + 2 ms), 0 errors"


class Seen:
    """What was there at most and in the end: slow connections, MiB of memory; and how good clients fared."""

    def __init__(self, before: Told):
        self.before = before
        self.most = self.left = 0
        self.grown = self.after = 0.0

    def clients(self) -> str:
        return f"good clients alone: {self.before}; beside: {self.beside}"

    def fair(self) -> bool:
        return self.beside.errors == 0 and self.beside.p99 <= max(2 * self.before.p99, self.before.p99 + 2)


def beside(kind: str, proxy: Proxy, connections: int, source: str | None) -> Seen:
    seen = Seen(alone("slow", proxy.host, proxy.http, GOOD_SECONDS, source))
    idle = proxy.memory()
    proxy.forget_peak()
    path = "/big" if kind == "readers" else "/x"
    command = ["slowhttptest", *KINDS[kind], "-c", connections, "-r", max(100, connections // 2), "-l", SECONDS, "-p", 3, "-x", 32,
               "-u", f"http://{proxy.host}:{proxy.http}{path}"]
    slow = Child(f"slowhttptest-{kind}", command, nice=5)
    # The good clients come when the slow ones are there.
    opened = time.monotonic()
    while time.monotonic() < opened + 5:
        seen.most = max(seen.most, proxy.open_connections())
        time.sleep(0.25)
    good = Good("slow", proxy.host, proxy.http, GOOD_SECONDS, source)
    while not good.child.ended():
        seen.left = proxy.open_connections()
        seen.most = max(seen.most, seen.left)
        time.sleep(0.5)
    seen.beside = good.told()
    seen.grown = (proxy.peak() - idle) / 1024
    slow.wait(SECONDS + 60)
    until("the slow connections are gone", lambda: proxy.open_connections() <= 1, 60)
    seen.after = (proxy.memory() - idle) / 1024
    return seen


def versions() -> list[str]:
    return ["slowhttptest " + report.version("slowhttptest", "-h").rpartition(" ")[2]]
