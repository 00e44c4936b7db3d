"""Rolling restart: two processes behind one port, under load; each in turn is told to end (SIGTERM) and started again. Nobody
may notice.

The one port is a small forwarder of TCP connections. As a load balancer would, it takes a process out when its `/readyz`
fails, and tries the other one where a connection is refused. The clients are ordinary: connections are kept, `Connection:
close` is honoured, and nothing is ever sent twice."""

import asyncio
import signal
import time
from collections import Counter

from kit.process import free_port
from kit.proxy import Proxy
from kit.report import Row
from kit.servers import Answering

ROUNDS = 20
CLIENTS = 32
PAUSE = 0.01
"""Seconds that a client waits between two requests."""
MOST = 60
"""Seconds a process may take to end."""


def run(scale: int) -> list[Row]:
    with Answering("restart") as upstream:
        row = asyncio.run(Rolling(upstream.address).go(max(2, ROUNDS // scale)))
    reload = Row("restart", "settings reloaded every second under load", "0 failed requests", "settings cannot be reloaded yet", None)
    return [row, reload.tell()]


class Rolling:
    def __init__(self, upstream: str):
        self.upstream = upstream
        self.proxies: list[Proxy | None] = [None, None]
        self.ready: list[int | None] = [None, None]
        self.turn = 0
        self.tally = Counter()
        self.failures: list[str] = []
        self.stop = False

    async def begin(self, place: int) -> None:
        self.proxies[place] = await asyncio.to_thread(Proxy, f"restart-{place}", self.upstream)
        self.ready[place] = self.proxies[place].http

    async def go(self, rounds: int) -> Row:
        await asyncio.gather(self.begin(0), self.begin(1))
        port = free_port()
        server = await asyncio.start_server(self.forward, "127.0.0.1", port)
        watching = asyncio.create_task(self.watch())
        clients = [asyncio.create_task(self.client(port)) for _ in range(CLIENTS)]
        longest = 0.0
        try:
            for number in range(rounds):
                place, begun = number % 2, time.monotonic()
                proxy = self.proxies[place]
                proxy.process.send_signal(signal.SIGTERM)
                code = await asyncio.to_thread(proxy.wait, MOST)
                self.ready[place] = None
                longest = max(longest, time.monotonic() - begun)
                if code != 0:
                    self.failures.append(f"a process ended with {code}")
                await self.begin(place)
                await asyncio.sleep(1)
        finally:
            self.stop = True
            await asyncio.gather(*clients)
            watching.cancel()
            server.close()
            for proxy in self.proxies:
                await asyncio.to_thread(proxy.stop)
        measured = (f"{len(self.failures)} failed of {self.tally['requests']} requests on {self.tally['connections']} connections; "
                    f"{self.tally['told']} times told to close; the longest end took {longest:.1f} s")
        measured += "".join(f"; {what}: {count}" for what, count in Counter(self.failures).most_common(4))
        done = f"{rounds} restarts of one of two processes behind one port, {CLIENTS} clients with kept connections"
        return Row("restart", done, "0 failed requests", measured, not self.failures).tell()

    async def watch(self) -> None:
        """What a load balancer does: it asks again and again who is ready."""
        while True:
            for place, proxy in enumerate(self.proxies):
                try:
                    fine = not proxy.ended() and await asyncio.to_thread(proxy.is_ready)
                except OSError:
                    fine = False
                self.ready[place] = proxy.http if fine else None
            await asyncio.sleep(0.1)

    async def forward(self, reader, writer) -> None:
        self.turn += 1
        ports = [self.ready[(self.turn + more) % 2] for more in (0, 1)]
        for port in filter(None, ports):
            try:
                up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:
                continue
        else:
            writer.transport.abort()
            return

        async def pump(source, sink) -> None:
            try:
                while piece := await source.read(65536):
                    sink.write(piece)
                    await sink.drain()
            except OSError:
                pass
            sink.close()

        await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))

    async def client(self, port: int) -> None:
        writer = None
        while not self.stop:
            try:
                async with asyncio.timeout(20):
                    if writer is not None and reader.at_eof():
                        # Closed while nothing was asked: no request is lost over it.
                        writer.close()
                        writer = None
                    if writer is None:
                        reader, writer = await asyncio.open_connection("127.0.0.1", port)
                        self.tally["connections"] += 1
                    self.tally["requests"] += 1
                    writer.write(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    head = await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(6)
                if not head.startswith(b"HTTP/1.1 200"):
                    self.failures.append(head.split(b"\r\n")[0].decode())
                if b"connection: close" in head.lower():
                    self.tally["told"] += 1
                    writer.close()
                    writer = None
            except (OSError, EOFError, TimeoutError) as error:
                self.failures.append(type(error).__name__)
                if writer is not None:
                    writer.transport.abort()
                    writer = None
            await asyncio.sleep(PAUSE)


def versions() -> list[str]:
    return []
