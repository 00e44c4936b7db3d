"""Slow clients: headers, bodies and answers a few octets at a time, on thousands of connections, beside good clients. All of
them come from one address, so that the limit for one is lifted; what it does is tried by itself.

slowhttptest has one clock for all its connections: every three seconds each of them sends a piece of its body at the same moment.
What a good client waits then is the time that thousands of pieces take to be passed on, with any proxy, and it says nothing of
slow clients as such, which have clocks of their own (`slow_bodies.py`). Both are tried, and the first with nginx in the proxy's
place as well."""

import sys
import time

from kit import paths, report
from kit.pacing import CONNECTIONS as GOOD_CONNECTIONS
from kit.pacing import Good, Told, alone
from kit.process import Child, until
from kit.proxy import ANY_NUMBER, Proxy
from kit.report import Row, tried
from kit.servers import Answering, Passing

CONNECTIONS = 4000
SECONDS = 30
GOOD_SECONDS = 15
COMING = 5
"""Seconds in which the slow ones come."""
KINDS = {
    "headers": ["-H", "-i", "3"],
    "bodies in step": ["-B", "-i", "3", "-s", "8192"],
    # A window of some hundred octets, read a few at a time, from an answer of 1 MiB.
    "readers": ["-X", "-w", "256", "-y", "512", "-z", "16", "-n", "3", "-k", "1"],
}
BODIES = "bodies"
"""By `slow_bodies.py`."""
LIMIT, OVER = 512, 1.25
"""MiB of `limits.memory` where that is tried, and how far it may be overrun: memory is looked at 40 times a second."""
SERVED = 10
"""Seconds within which a good client must be served again."""
BURST_MOST = 100
"""ms of p99 while thousands of pieces come at the same moment."""
PATHS = {"readers": "/big", "bodies in step": "/read"}
LIFTED = "limit for one address lifted"
ANOTHER = "127.0.0.2"
"""A client that is not the attacker."""


def run(scale: int) -> list[Row]:
    connections = max(100, CONNECTIONS // scale)
    with Answering("slow") as upstream:
        return [
            tried("slow", "headers", lambda: many("headers", upstream, connections)),
            tried("slow", "bodies", lambda: many(BODIES, upstream, connections)),
            tried("slow", "bodies in step", lambda: in_step(upstream, connections)),
            tried("slow", "readers", lambda: many("readers", upstream, connections)),
            tried("slow", "limits.memory", lambda: guarded(upstream, connections)),
            tried("slow", "one address", lambda: of_one_address(upstream, connections)),
        ]


def many(kind: str, upstream: Answering, connections: int) -> Row:
    with Proxy("slow", upstream.address, limits=ANY_NUMBER) as proxy:
        seen = beside(kind, proxy, connections, None)
    by = ", each by a clock of its own" if kind == BODIES else " with slowhttptest"
    done = f"{connections} slow {kind}{by}; {LIFTED}"
    return Row("slow", done, CRITERION, seen.all(), seen.most > connections * 0.8 and seen.fair()).tell()


def in_step(upstream: Answering, connections: int) -> Row:
    """The same burst for nginx tells what of it is the machine's and the attacker's doing."""
    with Proxy("slow", upstream.address, limits=ANY_NUMBER) as proxy:
        seen = beside("bodies in step", proxy, connections, None)
    with Passing("slow-passing", upstream.address) as nginx:
        before = alone("slow", nginx.host, nginx.http, GOOD_SECONDS)
        slow = attacker("bodies in step", nginx.host, nginx.http, connections)
        time.sleep(COMING)
        after = Good("slow", nginx.host, nginx.http, GOOD_SECONDS).told()
        slow.stop()
    measured = f"{seen.all()}; nginx in the proxy's place: p99 {before.p99:.1f} → {after.p99:.1f} ms, {after.errors} errors"
    done = f"{connections} slow bodies with slowhttptest, a piece of each at the same moment every 3 s; {LIFTED}"
    there = seen.most > connections * 0.8
    bounded = there and seen.beside.errors == 0 and seen.beside.p99 <= BURST_MOST
    criterion = f"{CRITERION}; bound: p99 ≤ {BURST_MOST} ms"
    return Row("slow", done, criterion, measured, there and seen.fair(), bounded=bounded).tell()


def guarded(upstream: Answering, connections: int) -> Row:
    """What is read ahead of slow readers fills memory: who takes nothing is cut then, and what was filled is given back, also
    when nobody comes but one good client now and then."""
    limit = max(48, LIMIT * connections // CONNECTIONS)
    limits = f"{ANY_NUMBER}, memory: {limit}MiB"
    with Proxy("slow", upstream.address, limits=limits) as proxy:
        slow = attacker("readers", proxy.host, proxy.http, connections)
        refused_from = until("requests are refused", lambda: proxy.metric("cloakroom_requests_rejected_total", reason="memory") and time.monotonic(), 20)
        until("a good request is answered", lambda: proxy.answers() == 200, 60, every=0.5)
        beside = time.monotonic() - refused_from
        slow.wait(SECONDS + 60)
        ended = time.monotonic()
        until("a good request is answered", lambda: proxy.answers() == 200, 60, every=0.5)
        again = time.monotonic() - ended
        peak = proxy.peak() / 1024
        cut = int(proxy.metric("cloakroom_connections_rejected_total", reason="memory"))
    measured = (f"{peak:.0f} MiB resident at most; {cut} connections cut or not taken; a good client served {beside:.1f} s after the first refusal, "
                f"and {again:.1f} s after the attack")
    done = f"{connections} slow readers with slowhttptest against `limits.memory: {limit}MiB`; {LIFTED}"
    criterion = f"≤ {limit * OVER:.0f} MiB, a good client served within {SERVED} s, beside them and after"
    return Row("slow", done, criterion, measured, peak <= limit * OVER and max(beside, again) <= SERVED).tell()


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

    def all(self) -> str:
        return (f"{self.most} open at most, good ones among them, {self.left} after 20 s; {self.clients()}; +{self.grown:.0f} MiB at most, "
                f"{self.after:+.0f} MiB afterwards")

    def fair(self) -> bool:
        return self.beside.errors == 0 and self.beside.p99 <= max(2 * self.before.p99, self.before.p99 + 2)


def beside(kind: str, proxy: Proxy, connections: int, source: str | None) -> Seen:
    seen = Seen(alone("slow", proxy.host, proxy.http, GOOD_SECONDS, source))
    idle = proxy.memory()
    proxy.forget_peak()
    slow = attacker(kind, proxy.host, proxy.http, connections)
    # The good clients come when the slow ones are there.
    opened = time.monotonic()
    while time.monotonic() < opened + COMING:
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
    # What was held is let go a moment later.
    time.sleep(2)
    seen.after = (proxy.memory() - idle) / 1024
    return seen


def attacker(kind: str, host: str, port: int, connections: int) -> Child:
    """What it computes is not the proxy's doing: it steps back."""
    if kind == BODIES:
        command = [sys.executable, "-m", "suites.slow_bodies", host, port, connections, SECONDS]
        return Child("slow-bodies", command, cwd=paths.SUITE, nice=5)
    path = PATHS.get(kind, "/x")
    command = ["slowhttptest", *KINDS[kind], "-c", connections, "-r", max(100, connections // 2), "-l", SECONDS, "-p", 3, "-x", 32,
               "-u", f"http://{host}:{port}{path}"]
    return Child(f"slowhttptest-{kind.replace(' ', '-')}", command, nice=5)


def versions() -> list[str]:
    return ["slowhttptest " + report.version("slowhttptest", "-h").rpartition(" ")[2], report.version("nginx", "-v")]
