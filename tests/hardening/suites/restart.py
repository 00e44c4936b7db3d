"""Rolling restart: two processes behind one port, under load; each in turn is told to end (SIGTERM) and started again. Nobody
may notice.

The one port is a small forwarder of TCP connections: it does what a Service of Kubernetes or a load balancer does. It takes
a process out when its `/readyz` fails, and tries the other one where a connection is refused. The proxy does not share its
port (SO_REUSEPORT): connections in the accept queue of a socket that closes would be lost with it.

Three kinds of clients. Some keep their connections, honour `Connection: close`, and do what every browser does (RFC 9112
§9.3.1): where a kept connection was closed before a single octet of the answer came, a GET is sent again, once, on a new
connection. Nobody should have to: it counts as failed, and is told apart. Some open a connection for each request, and send nothing twice. And k6 speaks HTTP/2."""

import asyncio
import signal
import time
from collections import Counter

from kit import k6, tools
from kit.process import free_port
from kit.proxy import Proxy
from kit.report import Row
from kit.servers import Answering

ROUNDS = 20
KEEPING, OPENING, HTTP2 = 32, 8, 4
"""Clients of each kind."""
PAUSE = 0.01
"""Seconds that a client waits between two requests."""
ROUND_SECONDS = 8
"""About how long a round takes: lame duck, end, start, a pause."""
MOST = 60
"""Seconds a process may take to end."""
REQUEST = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"


def run(scale: int) -> list[Row]:
    with Answering("restart") as upstream:
        return asyncio.run(Rolling(upstream.address).go(max(2, ROUNDS // scale)))


class Closed(Exception):
    """The connection ended without an octet of the answer."""


class Rolling:
    def __init__(self, upstream: str):
        self.upstream = upstream
        self.proxies: list[Proxy | None] = [None, None]
        self.ready = [False, False]
        self.turn = 0
        self.tally = Counter()
        self.failures: dict[str, list[str]] = {"kept": [], "new": [], "process": []}
        self.stop = False

    async def begin(self, place: int) -> None:
        self.proxies[place] = await asyncio.to_thread(Proxy, f"restart-{place}", self.upstream)
        self.ready[place] = True

    async def go(self, rounds: int) -> list[Row]:
        await asyncio.gather(self.begin(0), self.begin(1))
        plain, secure = free_port(), free_port()
        fronts = [await asyncio.start_server(lambda *ends: self.forward(*ends, "http"), "127.0.0.1", plain),
                  await asyncio.start_server(lambda *ends: self.forward(*ends, "tls"), "127.0.0.1", secure)]
        watching = asyncio.create_task(self.watch())
        # It ends a little before or after the restarts do; the processes are up until it has.
        http2 = await asyncio.to_thread(k6.Load, "restart", f"https://localhost:{secure}/x", HTTP2, rounds * ROUND_SECONDS)
        clients = [asyncio.create_task(self.keeping(plain)) for _ in range(KEEPING)]
        clients += [asyncio.create_task(self.opening(plain)) for _ in range(OPENING)]
        longest = 0.0
        try:
            for number in range(rounds):
                place, begun = number % 2, time.monotonic()
                proxy = self.proxies[place]
                proxy.process.send_signal(signal.SIGTERM)
                code = await asyncio.to_thread(proxy.wait, MOST)
                self.ready[place] = False
                longest = max(longest, time.monotonic() - begun)
                if code != 0:
                    self.failures["process"].append(f"a process ended with {code}")
                await self.begin(place)
                await asyncio.sleep(1)
            requests, failed = await asyncio.to_thread(http2.told)
        finally:
            self.stop = True
            await asyncio.gather(*clients)
            watching.cancel()
            for front in fronts:
                front.close()
            http2.child.stop()
            for proxy in self.proxies:
                await asyncio.to_thread(proxy.stop)
        of = f"{rounds} restarts of one of two processes behind one port that follows /readyz"
        tally = self.tally
        kept, new, process = self.failures.values()
        return [
            row(f"{of}, {KEEPING} clients with kept connections", tally["kept"], kept + process + ["sent again"] * tally["again"],
                f" on {tally['connections']} connections; {tally['told']} times told to close; {tally['again']} sent again because a kept "
                f"connection was closed as it was used; the longest end took {longest:.1f} s"),
            row(f"the same, {OPENING} clients with a connection a request, nothing sent twice", tally["new"], new, ""),
            row(f"the same, {HTTP2} clients over HTTP/2 (k6)", requests, failed, ""),
        ]

    async def watch(self) -> None:
        """What a load balancer does: it asks again and again who is ready."""
        while True:
            for place, proxy in enumerate(self.proxies):
                try:
                    fine = not proxy.ended() and await asyncio.to_thread(proxy.is_ready)
                except OSError:
                    fine = False
                # It may have been started anew meanwhile.
                if proxy is self.proxies[place]:
                    self.ready[place] = fine
            await asyncio.sleep(0.1)

    async def forward(self, reader, writer, listener: str) -> None:
        self.turn += 1
        places = [(self.turn + more) % 2 for more in (0, 1)]
        for place in places:
            if not self.ready[place]:
                continue
            try:
                up_reader, up_writer = await asyncio.open_connection("127.0.0.1", getattr(self.proxies[place], listener))
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

    async def keeping(self, port: int) -> None:
        wire = None
        while not self.stop:
            self.tally["kept"] += 1
            try:
                async with asyncio.timeout(20):
                    if wire is not None and wire[0].at_eof():
                        # Closed while nothing was asked: no request is lost over it.
                        wire[1].close()
                        wire = None
                    used = wire is not None
                    try:
                        wire = wire or await self.connect(port)
                        head = await ask(wire)
                    except Closed:
                        if not used:
                            raise
                        self.tally["again"] += 1
                        wire[1].close()
                        wire = await self.connect(port)
                        head = await ask(wire)
                if b"connection: close" in head.lower():
                    self.tally["told"] += 1
                    wire[1].close()
                    wire = None
            except (OSError, EOFError, TimeoutError, Closed) as error:
                self.failures["kept"].append(str(error) or type(error).__name__)
                if wire is not None:
                    wire[1].transport.abort()
                    wire = None
            await asyncio.sleep(PAUSE)

    async def opening(self, port: int) -> None:
        while not self.stop:
            self.tally["new"] += 1
            wire = None
            try:
                async with asyncio.timeout(20):
                    wire = await asyncio.open_connection("127.0.0.1", port)
                    await ask(wire)
            except (OSError, EOFError, TimeoutError, Closed) as error:
                self.failures["new"].append(str(error) or type(error).__name__)
            finally:
                if wire is not None:
                    wire[1].close()
            await asyncio.sleep(PAUSE * 5)

    async def connect(self, port: int):
        self.tally["connections"] += 1
        return await asyncio.open_connection("127.0.0.1", port)


async def ask(wire) -> bytes:
    """The head of the answer; everything but a whole 200 is an error."""
    reader, writer = wire
    try:
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as cut:
        raise OSError("cut off within a head") if cut.partial else Closed("closed without an answer") from cut
    except ConnectionError as error:
        raise Closed("closed without an answer") from error
    await reader.readexactly(6)
    if not head.startswith(b"HTTP/1.1 200"):
        raise OSError(head.split(b"\r\n")[0].decode())
    return head


def row(done: str, requests: int, failures: list[str], more: str) -> Row:
    measured = f"{len(failures)} failed of {requests} requests{more}"
    measured += "".join(f"; {what}: {count}" for what, count in Counter(failures).most_common(4))
    return Row("restart", done, "0 failed requests", measured, requests > 0 and not failures).tell()


def versions() -> list[str]:
    return [f"k6 {tools.K6}"]
