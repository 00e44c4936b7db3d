"""HTTP/2 floods and bombs, in the clear, beside good clients on HTTP/1. A connection that floods is closed, or costs no
more than a bounded share; memory stays in proportion to what the attacker sent."""

import json
import sys
import time

from kit import paths, report
from kit.pacing import Good, alone
from kit.process import Child, until
from kit.proxy import Proxy
from kit.report import Row
from kit.servers import Answering

from .floods_attacks import ATTACKS, HELD

SECONDS = 12
CONNECTIONS = 100
RATIO = 10
"""Most octets of memory for each octet sent."""
SLACK = 4096
"""KiB a process may grow by itself."""
HELD_SECONDS = 40
"""Longer than an answer may wait to be taken (30 s)."""
HELD_MOST = 4
"""MiB for one connection with as many requests as it may have at a time, none of whose answers is taken."""
STRICT = {"rapid reset", "resets made by the server (window)", "CONTINUATION without end", "empty CONTINUATION", "empty DATA"}
"""What nobody does by mistake: these must be closed."""


def run(scale: int) -> list[Row]:
    seconds = max(4, SECONDS // scale)
    connections = max(10, CONNECTIONS // scale)
    rows = []
    with Answering("floods") as upstream:
        for name in ATTACKS:
            # A proxy of its own each, so that memory tells of one attack.
            with Proxy("floods", upstream.address) as proxy:
                if name in HELD:
                    rows.append(one(name, proxy, max(10, connections // 2), HELD_SECONDS))
                else:
                    rows.append(one(name, proxy, connections, seconds))
    return rows


def one(name: str, proxy: Proxy, connections: int, seconds: int) -> Row:
    before = alone("floods", proxy.host, proxy.http, 4)
    idle = proxy.memory()
    proxy.forget_peak()
    good = Good("floods", proxy.host, proxy.http, seconds)
    time.sleep(0.5)
    cpu = proxy.cpu()
    command = [sys.executable, "-m", "suites.floods_attacks", name, proxy.host, proxy.http, connections, seconds]
    # What the attackers compute is not the proxy's doing: they step back.
    attacker = Child("floods-attacker", command, cwd=paths.SUITE, nice=10)
    attacker.wait(seconds + 60)
    used = proxy.cpu() - cpu
    told = json.loads(attacker.log.read_text())
    beside = good.told()
    grown = max(0, proxy.peak() - idle)
    sent = told.get("octets", 0)
    closed, left = told["closed_after"], told.get("open", 0)
    until("the attackers' connections are gone", lambda: proxy.open_connections() <= 1, 15)
    # What was held is let go a moment later.
    time.sleep(2)
    after = proxy.memory() - idle

    ratio = grown * 1024 / max(sent, 1)
    unharmed = beside.errors == 0 and beside.p99 <= max(3 * before.p99, before.p99 + 10)
    criterion = "good p99 ≤ 3 × (or + 10 ms), 0 errors"
    measured = (
        f"{sent / 1e6:.1f} MB sent; {len(closed)} closed (90 % within {quantile(closed, 0.9):.1f} s), {left} left open; "
        f"+{grown / 1024:.1f} MiB at most, {ratio:.1f}:1, +{after / 1024:.1f} MiB afterwards; {used:.1f} s of CPU; "
        f"good p99 {before.p99:.1f} → {beside.p99:.1f} ms, {beside.errors} errors"
    )
    if name in HELD:
        each = grown / 1024 / connections
        passed = unharmed and each <= HELD_MOST
        criterion = f"≤ {HELD_MOST} MiB a connection, {criterion}"
        measured = f"{each:.1f} MiB a connection; {told.get('reset', 0)} of {connections * 100} requests reset by the proxy; {measured}"
    else:
        shut = name not in STRICT or (left == 0 and quantile(closed, 0.9) <= 2)
        passed = unharmed and shut and (grown <= SLACK or ratio <= RATIO)
        criterion = f"≤ {RATIO}:1 (or ≤ {SLACK // 1024} MiB), {criterion}"
        criterion = f"closed within 2 s, {criterion}" if name in STRICT else criterion
    return Row("floods", f"{name}; {connections} connections for {seconds} s", criterion, measured, passed).tell()


def quantile(values: list[float], part: float) -> float:
    return values[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def versions() -> list[str]:
    return [report.version("nginx", "-v")]
