"""HTTP/2 floods and bombs, in the clear, beside good clients on HTTP/1. A connection that floods is closed, or costs no
more than a bounded share; memory stays in proportion to what the attacker sent.

What an idle connection costs is not the attack's doing: it is measured first, and taken off before octets of memory are
set against octets sent. An attack that holds what it asked for is no flood: it sends a few octets once, and the criterion
cannot hold. What holds instead is a bound for each connection, and the row says so, and what nginx in the proxy's place does."""

import json
import sys
import time

from kit import paths, report
from kit.pacing import Good, alone
from kit.process import Child, until
from kit.proxy import ANY_NUMBER, Proxy
from kit.report import Row, tried
from kit.servers import Answering, Passing

from .floods_attacks import ATTACKS, HELD, IDLE, STREAMS

SECONDS = 8
CONNECTIONS = 100
RATIO = 10
"""Most octets of memory for each octet sent."""
SLACK = 4096
"""KiB a process may grow by itself."""
WRITE_TIMEOUT = 5
"""Seconds that an answer may wait to be taken; less than the default, so that one can see it end."""
HELD_SECONDS = 12
BURST_SECONDS = 2
HELD_MOST = {"large answers that are never taken": 75}
HELD_MOST_ELSE = 8
"""MiB for one connection with as many requests as it may have at a time, none of whose answers is taken. Of a large one the
engine reads ten pieces of 64 KiB ahead, and has buffers for two more."""
FLOOD_MOST = 2
"""MiB for one connection that floods until it is closed."""
LIMIT, OVER = 512, 1.25
"""MiB of `limits.memory` where that is tried, and how far it may be overrun: memory is looked at 40 times a second."""
STRICT = {"rapid reset", "resets made by the server (window)", "CONTINUATION without end", "empty CONTINUATION", "empty DATA",
          "DATA of one octet"}
"""What nobody does by mistake: these must be closed."""
UNHARMED = "good p99 ≤ 3 × (or + 10 ms), 0 errors"
WHILE_HELD = 100
"""ms that p99 may be longer while thousands of answers are held, and then reset at the same moment."""


def run(scale: int) -> list[Row]:
    seconds = max(4, SECONDS // scale)
    connections = max(10, CONNECTIONS // scale)
    rows = []
    with Answering("floods") as upstream:
        each = what_idle_ones_cost(upstream, connections)
        for name in ATTACKS:
            if name in HELD:
                trial = lambda name=name: held(name, upstream, max(10, connections // 2))
            elif name != IDLE:
                trial = lambda name=name: flood(name, upstream, connections, seconds, each)
            else:
                continue
            rows.append(tried("floods", name, trial))
        rows.append(tried("floods", "limits.memory", lambda: guarded(upstream, max(20, connections // 2))))
    return rows


def what_idle_ones_cost(upstream: Answering, connections: int) -> float:
    """KiB for a connection on which a request was answered and nothing else happens."""
    with Proxy("floods", upstream.address, limits=ANY_NUMBER) as proxy:
        seen = Seen(IDLE, proxy, connections, 3)
    return seen.grown / connections


class Seen:
    """One attack on a proxy of its own, so that memory tells of nothing else."""

    def __init__(self, name: str, proxy: Proxy, connections: int, seconds: int, after: int = 0):
        """Good clients come so many seconds after the attackers."""
        self.before = alone("floods", proxy.host, proxy.http, 3)
        idle = proxy.memory()
        proxy.forget_peak()
        cpu = proxy.cpu()
        attacker = attack(name, proxy, connections, seconds)
        time.sleep(after)
        good = Good("floods", proxy.host, proxy.http, seconds - after)
        attacker.wait(seconds + 60)
        self.cpu = proxy.cpu() - cpu
        told = json.loads(attacker.log.read_text())
        self.beside = good.told()
        self.grown = max(0, proxy.peak() - idle)
        self.sent = told.get("octets", 0)
        self.closed, self.left, self.reset = told["closed_after"], told.get("open", 0), told.get("reset", 0)
        self.gone = True
        try:
            until("the attackers' connections are gone", lambda: proxy.open_connections() <= 1, 15)
        except TimeoutError:
            self.gone = False
        # What was held is let go a moment later.
        time.sleep(2)
        self.after = proxy.memory() - idle

    def unharmed(self, more: float = 10) -> bool:
        return self.gone and self.beside.errors == 0 and self.beside.p99 <= max(3 * self.before.p99, self.before.p99 + more)

    def ratio(self, idle: float = 0) -> float:
        """Octets of memory for each octet sent, less so many KiB."""
        return max(0.0, self.grown - idle) * 1024 / max(self.sent, 1)

    def told(self) -> str:
        stay = "" if self.gone else "; connections STAY open after the attackers left"
        return (f"{len(self.closed)} closed (90 % within {quantile(self.closed, 0.9):.1f} s), {self.left} left open; +{self.after / 1024:.1f} MiB "
                f"afterwards; {self.cpu:.1f} s of CPU; good p99 {self.before.p99:.1f} → {self.beside.p99:.1f} ms, {self.beside.errors} errors{stay}")


def attack(name: str, target: Proxy | Passing, connections: int, seconds: int) -> Child:
    """What the attackers compute is not the target's doing: they step back."""
    command = [sys.executable, "-m", "suites.floods_attacks", name, target.host, target.http, connections, seconds]
    return Child("floods-attacker", command, cwd=paths.SUITE, nice=10)


def flood(name: str, upstream: Answering, connections: int, seconds: int, each: float) -> Row:
    with Proxy("floods", upstream.address, limits=ANY_NUMBER) as proxy:
        seen = Seen(name, proxy, connections, seconds)
    more = max(0.0, seen.grown - each * connections) / 1024
    ratio = seen.ratio(each * connections)
    measured = (f"{seen.sent / 1e6:.1f} MB sent, +{more:.1f} MiB at most beside what so many connections cost: {ratio:.2g}:1; {seen.told()}")
    shut = name not in STRICT or (seen.left == 0 and quantile(seen.closed, 0.9) <= 2)
    fine = seen.unharmed() and shut
    small = more * 1024 <= SLACK or ratio <= RATIO
    if not small:
        measured = f"{measured}; bound that holds: {more / connections:.1f} MiB a connection (≤ {FLOOD_MOST})"
    criterion = f"≤ {RATIO}:1 (or ≤ {SLACK // 1024} MiB) beside idle connections, {UNHARMED}"
    criterion = f"closed within 2 s, {criterion}" if name in STRICT else criterion
    done = f"{name}; {connections} connections for {seconds} s"
    return Row("floods", done, criterion, measured, fine and small, bounded=fine and more / connections <= FLOOD_MOST).tell()


def held(name: str, upstream: Answering, connections: int) -> Row:
    limits = f"{ANY_NUMBER}, write_timeout: {WRITE_TIMEOUT}s"
    with Proxy("floods", upstream.address, limits=limits) as proxy:
        # All these requests at once are a burst as an honest crowd makes one; how good clients fare is asked when they are held.
        seen = Seen(name, proxy, connections, HELD_SECONDS, BURST_SECONDS)
    with Passing("floods-passing", upstream.address, http2=True) as nginx:
        idle = nginx.peak()
        attack(name, nginx, connections, BURST_SECONDS).wait(HELD_SECONDS + 60)
        nginx_grown = (nginx.peak() - idle) / 1024
    each = seen.grown / 1024 / connections
    most = HELD_MOST.get(name, HELD_MOST_ELSE)
    within = seen.unharmed(WHILE_HELD) and each <= most
    measured = (f"{seen.sent / 1e6:.2f} MB sent, +{seen.grown / 1024:.1f} MiB at most: {seen.ratio():.0f}:1; bound that holds: {each:.1f} MiB a "
                f"connection, {each * 1024 / STREAMS:.0f} KiB a request (≤ {most} MiB a connection), until `limits.write_timeout`; "
                f"{seen.reset} of {connections * STREAMS} requests reset by the proxy; {seen.told()}; nginx in the proxy's place: "
                f"+{nginx_grown:.1f} MiB at most, {nginx_grown * 2**20 / max(seen.sent, 1):.0f}:1")
    done = f"{name}; {connections} connections for {HELD_SECONDS} s, `write_timeout: {WRITE_TIMEOUT}s`"
    passed = within and seen.ratio() <= RATIO
    return Row("floods", done, f"≤ {RATIO}:1; good p99 ≤ 3 × (or + {WHILE_HELD} ms), 0 errors", measured, passed, bounded=within).tell()


def guarded(upstream: Answering, connections: int) -> Row:
    """What the whole is bounded by."""
    name = "large answers that are never taken"
    limits = f"{ANY_NUMBER}, write_timeout: {WRITE_TIMEOUT}s, memory: {LIMIT}MiB"
    with Proxy("floods", upstream.address, limits=limits) as proxy:
        seen = Seen(name, proxy, connections, HELD_SECONDS, BURST_SECONDS)
        peak = proxy.peak() / 1024
        begun = time.monotonic()
        until("a good request is answered", lambda: proxy.answers() == 200, 30)
        again = time.monotonic() - begun
        refused = int(proxy.metric("cloakroom_requests_rejected_total", reason="memory"))
    measured = (f"{peak:.0f} MiB resident at most; {refused} requests refused (503), of good clients {seen.beside.errors} of {seen.beside.requests}; "
                f"good ones answered again {again:.1f} s after the attack")
    done = f"{name}, against `limits.memory: {LIMIT}MiB`; {connections} connections for {HELD_SECONDS} s"
    criterion = f"≤ {LIMIT * OVER:.0f} MiB, good clients served within 10 s after"
    return Row("floods", done, criterion, measured, peak <= LIMIT * OVER and again <= 10).tell()


def quantile(values: list[float], part: float) -> float:
    return values[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def versions() -> list[str]:
    return [report.version("nginx", "-v")]
