"""HTTP/2 floods and bombs, in the clear, beside good clients on HTTP/1. A connection that floods is closed, or costs no
more than a bounded share; memory stays in proportion to what the attacker sent.

What an idle connection costs is not the attack's doing: it is measured first, and taken off before octets of memory are
set against octets sent. An attack that holds what it asked for is no flood: it sends a few octets once, and the criterion
cannot hold. What holds instead is a bound for each connection, and the row says so."""

import json
import sys
import time

from kit import paths, report
from kit.pacing import Good, alone
from kit.process import Child, until
from kit.proxy import ANY_NUMBER, Proxy
from kit.report import Row, tried
from kit.servers import Answering

from .floods_attacks import ATTACKS, HELD, IDLE, STREAMS

SECONDS = 12
CONNECTIONS = 100
RATIO = 10
"""Most octets of memory for each octet sent."""
SLACK = 4096
"""KiB a process may grow by itself."""
WRITE_TIMEOUT = 5
"""Seconds that an answer may wait to be taken; less than the default, so that one can see it end."""
HELD_SECONDS = 12
HELD_MOST = 16
"""MiB for one connection with as many requests as it may have at a time, none of whose answers is taken."""
STRICT = {"rapid reset", "resets made by the server (window)", "CONTINUATION without end", "empty CONTINUATION", "empty DATA",
          "DATA of one octet"}
"""What nobody does by mistake: these must be closed."""
UNHARMED = "good p99 ≤ 3 × (or + 10 ms), 0 errors"


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
    return rows


def what_idle_ones_cost(upstream: Answering, connections: int) -> float:
    """KiB for a connection on which a request was answered and nothing else happens."""
    with Proxy("floods", upstream.address, limits=ANY_NUMBER) as proxy:
        seen = Seen(IDLE, proxy, connections, 4)
    return seen.grown / connections


class Seen:
    """One attack on a proxy of its own, so that memory tells of nothing else."""

    def __init__(self, name: str, proxy: Proxy, connections: int, seconds: int):
        self.before = alone("floods", proxy.host, proxy.http, 4)
        idle = proxy.memory()
        proxy.forget_peak()
        good = Good("floods", proxy.host, proxy.http, seconds)
        time.sleep(0.5)
        cpu = proxy.cpu()
        command = [sys.executable, "-m", "suites.floods_attacks", name, proxy.host, proxy.http, connections, seconds]
        # What the attackers compute is not the proxy's doing: they step back.
        attacker = Child("floods-attacker", command, cwd=paths.SUITE, nice=10)
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

    def unharmed(self) -> bool:
        return self.gone and self.beside.errors == 0 and self.beside.p99 <= max(3 * self.before.p99, self.before.p99 + 10)

    def ratio(self, idle: float = 0) -> float:
        """Octets of memory for each octet sent, less so many KiB."""
        return max(0.0, self.grown - idle) * 1024 / max(self.sent, 1)

    def told(self) -> str:
        stay = "" if self.gone else "; connections STAY open after the attackers left"
        return (f"{len(self.closed)} closed (90 % within {quantile(self.closed, 0.9):.1f} s), {self.left} left open; +{self.after / 1024:.1f} MiB "
                f"afterwards; {self.cpu:.1f} s of CPU; good p99 {self.before.p99:.1f} → {self.beside.p99:.1f} ms, {self.beside.errors} errors{stay}")


def flood(name: str, upstream: Answering, connections: int, seconds: int, each: float) -> Row:
    with Proxy("floods", upstream.address, limits=ANY_NUMBER) as proxy:
        seen = Seen(name, proxy, connections, seconds)
    ratio = seen.ratio(each * connections)
    measured = (f"{seen.sent / 1e6:.1f} MB sent, +{seen.grown / 1024:.1f} MiB at most, {each * connections / 1024:.1f} of them for so many "
                f"connections: {ratio:.2g}:1; {seen.told()}")
    shut = name not in STRICT or (seen.left == 0 and quantile(seen.closed, 0.9) <= 2)
    passed = seen.unharmed() and shut and (seen.grown - each * connections <= SLACK or ratio <= RATIO)
    criterion = f"≤ {RATIO}:1 (or ≤ {SLACK // 1024} MiB) beside idle connections, {UNHARMED}"
    criterion = f"closed within 2 s, {criterion}" if name in STRICT else criterion
    return Row("floods", f"{name}; {connections} connections for {seconds} s", criterion, measured, passed).tell()


def held(name: str, upstream: Answering, connections: int) -> Row:
    limits = f"{ANY_NUMBER}, write_timeout: {WRITE_TIMEOUT}s"
    with Proxy("floods", upstream.address, limits=limits) as proxy:
        seen = Seen(name, proxy, connections, HELD_SECONDS)
    each = seen.grown / 1024 / connections
    within = seen.unharmed() and each <= HELD_MOST
    measured = (f"{seen.sent / 1e6:.2f} MB sent, +{seen.grown / 1024:.1f} MiB at most: {seen.ratio():.0f}:1; bound that holds: {each:.1f} MiB a "
                f"connection, {each * 1024 / STREAMS:.0f} KiB a request (≤ {HELD_MOST} MiB a connection), until `limits.write_timeout`; "
                f"{seen.reset} of {connections * STREAMS} requests reset by the proxy; {seen.told()}")
    done = f"{name}; {connections} connections for {HELD_SECONDS} s, `write_timeout: {WRITE_TIMEOUT}s`"
    passed = within and seen.ratio() <= RATIO
    return Row("floods", done, f"≤ {RATIO}:1, {UNHARMED}", measured, passed, bounded=within).tell()


def quantile(values: list[float], part: float) -> float:
    return values[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def versions() -> list[str]:
    return [report.version("nginx", "-v")]
