"""New settings under load: every second the settings file is written anew and the process told (SIGHUP); once it is broken,
and twice a symbolic link is turned under it, as Kubernetes does with a ConfigMap. Nobody may notice but by what the
settings say."""

import asyncio
import os
import re
import signal
import time

from kit import k6, report, tools
from kit.http1 import exchange
from kit.process import Child, until
from kit.proxy import Proxy
from kit.report import Row
from kit.servers import Answering

SECONDS = 60
CONNECTIONS, HTTP2 = 16, 4
PAUSE = 1.0
GROWTH = 4
"""MiB that memory may grow from a third of the time on to its end."""


def run(scale: int) -> list[Row]:
    seconds = max(12, SECONDS // scale)
    with Answering("reload") as upstream, Proxy("reload", upstream.address) as proxy:
        return Changing(proxy, seconds).go()


class Changing:
    def __init__(self, proxy: Proxy, seconds: int):
        self.proxy, self.seconds = proxy, seconds
        self.good = self.bad = self.turn = 0
        self.problems: list[str] = []

    def go(self) -> list[Row]:
        proxy, most = self.proxy, self.seconds + 15
        wrk = Child("wrk-reload", ["wrk", "-t", 1, "-c", CONNECTIONS, "-d", most, "--timeout", "20s", f"http://{proxy.host}:{proxy.http}/x"],
                    nice=5)
        http2 = k6.Load("reload", f"https://localhost:{proxy.tls}/x", HTTP2, most)
        begun, early = time.monotonic(), 0
        while (gone := time.monotonic() - begun) < self.seconds:
            step = time.monotonic()
            self.change()
            if not early and gone > self.seconds / 3:
                early = proxy.memory()
                self.break_it()
            time.sleep(max(0.0, step + PAUSE - time.monotonic()))
        late = proxy.memory()
        self.turn_link()
        self.turn_link()
        wrk.wait(60)
        requests, failed = http2.told()
        good, bad = (int(proxy.metric("cloakroom_config_reloads_total", result=result)) for result in ("ok", "error"))
        if (good, bad) != (self.good, self.bad):
            self.problems.append(f"{good} reloads and {bad} failures were counted")
        if late - early > GROWTH * 1024:
            self.problems.append("memory grew")
        told = (f"{self.good} changes that each held at once, {self.bad} mistake that changed nothing; metrics count {good} and {bad}; "
                f"memory {early / 1024:.1f} → {late / 1024:.1f} MiB")
        told += "".join(f"; {problem}" for problem in self.problems[:4])
        what = f"settings changed every second for {self.seconds} s"
        criterion = f"all counted, each holds, ≤ {GROWTH} MiB more memory"
        rows = [Row("reload", f"{what}: a route's header, an upstream's time limits, a mistake, two turns of a link", criterion, told,
                    not self.problems).tell()]
        answered, wrong = wrk_said(wrk.log.read_text())
        rows.append(Row("reload", f"meanwhile {CONNECTIONS} kept connections (wrk)", "0 failed requests",
                        f"{len(wrong)} failed of {answered} requests" + "".join(f"; {one}" for one in wrong),
                        answered > 0 and not wrong).tell())
        rows.append(Row("reload", f"meanwhile {HTTP2} clients over HTTP/2 (k6)", "0 failed requests",
                        f"{len(failed)} failed of {requests} requests" + "".join(f"; {one}" for one in failed[:4]),
                        requests > 0 and not failed).tell())
        return rows

    def next(self) -> str:
        """The settings of the next turn."""
        self.turn += 1
        # Connections to an upstream that was another one before are closed when they have been idle: not after the usual minute.
        header = f", response_headers: {{ set: {{ X-Turn: '{self.turn}' }} }}"
        limits = f", timeouts: {{ read: {60 + self.turn // 2}s, connect: {1 + self.turn // 2 % 4}s, idle: 3s }}"
        return self.proxy.written(route_more=header, upstream_more=limits)

    def change(self) -> None:
        # Written beside and renamed: half a file is never read.
        beside = self.proxy.file.with_suffix(".next")
        beside.write_text(self.next())
        os.replace(beside, self.proxy.file)
        self.proxy.process.send_signal(signal.SIGHUP)
        self.good += 1
        self.holds(3)

    def break_it(self) -> None:
        before = self.proxy.file.read_text()
        self.proxy.file.write_text(before.replace("access: public", "access: everybody"))
        self.proxy.process.send_signal(signal.SIGHUP)
        self.bad += 1
        try:
            until("the mistake is told", lambda: self.proxy.metric("cloakroom_config_last_reload_successful") == 0, 5)
        except TimeoutError as error:
            self.problems.append(str(error))
        self.holds(1)

    def turn_link(self) -> None:
        """As a ConfigMap changes: the file is a link, and the link gets another target. No signal."""
        self.good += 1
        target = self.proxy.file.with_name(f"reload-{self.good}.target")
        target.write_text(self.next())
        link = self.proxy.file.with_suffix(".link")
        link.unlink(missing_ok=True)
        link.symlink_to(target.name)
        os.replace(link, self.proxy.file)
        self.holds(6)

    def holds(self, seconds: float) -> None:
        """Answers say what the settings of this turn say."""
        raw = b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        wanted = b"x-turn: %d\r\n" % self.turn
        try:
            until(f"the settings of turn {self.turn} hold",
                  lambda: wanted in asyncio.run(exchange(self.proxy.host, self.proxy.http, raw, 5, 5)).lower(), seconds, 0.02)
        except TimeoutError as error:
            self.problems.append(str(error))


def wrk_said(text: str) -> tuple[int, list[str]]:
    """How many requests were answered, and wrk's lines about what went wrong."""
    answered = re.search(r"(\d+) requests in", text)
    wrong = re.findall(r"Non-2xx or 3xx responses: \d+|Socket errors: .*", text)
    return int(answered[1]) if answered else 0, wrong


def versions() -> list[str]:
    return [report.version("wrk", "-v").split(" Copyright")[0], f"k6 {tools.K6}"]
