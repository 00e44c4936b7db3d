"""Idle crowds: what one that only waits costs, and that all of it is given back."""

import asyncio
import ssl
import sys
import time
from contextlib import asynccontextmanager

from kit import frames, paths
from kit.process import Child, free_port, until
from kit.proxy import Proxy
from kit.report import Row

CROWD = 1000
GROWTH = 1.1
"""Memory while they wait, second look against first."""


def run(scale: int) -> list[Row]:
    rows = []
    port = free_port()
    with Child("crowd-upstream", [sys.executable, "-m", "suites.crowds", port], cwd=paths.SUITE).listening(port):
        for name, (kind, most) in KINDS.items():
            with Proxy("crowds", f"127.0.0.1:{port}") as proxy:
                rows.append(asyncio.run(one(name, kind, most, proxy, max(100, CROWD // scale))))
    return rows


async def one(name: str, kind, most: int, proxy: Proxy, crowd: int) -> Row:
    # Buffers and pools that the first ones make are not theirs alone.
    async with crowd_of(kind, proxy, 50):
        pass
    await gone(proxy)
    empty = proxy.memory()
    async with crowd_of(kind, proxy, crowd) as people:
        await asyncio.sleep(2)
        first = proxy.memory()
        descriptors = proxy.descriptors()
        cpu = proxy.cpu()
        await asyncio.sleep(8)
        cpu = proxy.cpu() - cpu
        second = proxy.memory()
        alive = sum([await person.alive() for person in people])
    begun = time.monotonic()
    await gone(proxy)
    seconds = time.monotonic() - begun
    after = proxy.memory()
    each = (second - empty) / crowd
    measured = (f"{each:.1f} KiB each; {empty / 1024:.0f} → {first / 1024:.0f} → {second / 1024:.0f} MiB, {after / 1024:.0f} MiB afterwards; "
                f"{descriptors} descriptors; {cpu:.2f} s of CPU in 8 s; {alive} of {crowd} alive in the end; all gone after {seconds:.1f} s")
    passed = alive == crowd and second <= first * GROWTH and each <= most and seconds < 10
    return Row("crowds", f"{crowd} {name}", f"all alive, memory flat, ≤ {most} KiB each, gone ≤ 10 s after", measured, passed).tell()


async def gone(proxy: Proxy) -> None:
    await asyncio.to_thread(until, "the crowd is gone", lambda: proxy.open_connections() <= 1, 30)


@asynccontextmanager
async def crowd_of(kind, proxy: Proxy, count: int):
    people = []
    try:
        for begin in range(0, count, 50):
            people += await asyncio.gather(*(kind.come(proxy) for _ in range(begin, min(begin + 50, count))))
        yield people
    finally:
        for person in people:
            person.writer.transport.abort()
        await asyncio.sleep(0)


class Person:
    """Somebody who is connected, has been answered, and waits."""

    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    tls: ssl.SSLContext | None = None

    @classmethod
    async def come(cls, proxy: Proxy) -> "Person":
        self = cls()
        port = proxy.tls if cls.tls else proxy.http
        named = {"ssl": cls.tls, "server_hostname": "localhost"} if cls.tls else {}
        self.reader, self.writer = await asyncio.wait_for(asyncio.open_connection(proxy.host, port, limit=4096, **named), 30)
        self.writer.write(cls.request)
        await asyncio.wait_for(self.answered(), 30)
        return self

    async def answered(self) -> None:
        head = await self.reader.readuntil(b"\r\n\r\n")
        if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 101")):
            raise RuntimeError(f"answered with {head[:100]!r}")
        if b"content-length: 6" in head.lower():
            await self.reader.readexactly(6)

    async def alive(self) -> bool:
        """Another request is answered."""
        self.writer.write(self.request)
        await asyncio.wait_for(self.answered(), 10)
        return True


def _context(*protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols))
    return context


class OverTls(Person):
    tls = _context("http/1.1")


class Http2(Person):
    stream = 1
    request = frames.PREFACE + frames.settings() + frames.frame(frames.HEADERS, frames.END_STREAM | frames.END_HEADERS, 1, frames.request())

    async def answered(self) -> None:
        while True:
            head = await self.reader.readexactly(9)
            await self.reader.readexactly(int.from_bytes(head[:3], "big"))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:9], "big")
            if kind == frames.GOAWAY or kind == frames.RST_STREAM:
                raise RuntimeError("reset or told to go away")
            if kind == frames.SETTINGS and not flags & frames.ACK:
                self.writer.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
            if stream == self.stream and flags & frames.END_STREAM:
                return

    async def alive(self) -> bool:
        self.stream = 3
        self.writer.write(frames.frame(frames.HEADERS, frames.END_STREAM | frames.END_HEADERS, 3, frames.request()))
        await asyncio.wait_for(self.answered(), 10)
        return True


class Http2OverTls(Http2):
    tls = _context("h2")


class WebSocket(Person):
    request = (b"GET /socket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
               b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")

    async def alive(self) -> bool:
        # A masked ping with three octets, mask zero; the upstream gives back what it gets.
        self.writer.write(b"\x89\x83\0\0\0\0abc")
        return await asyncio.wait_for(self.reader.readexactly(9), 10) == b"\x89\x83\0\0\0\0abc"


class Events(Person):
    request = b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"

    async def answered(self) -> None:
        await super().answered()
        await self.reader.readuntil(b"data: hello\n\n")

    async def alive(self) -> bool:
        """An event every five seconds."""
        return bool(await asyncio.wait_for(self.reader.readuntil(b"data: tick\n\n"), 10))


# Who waits, and how many KiB one may cost.
KINDS = {
    "kept connections, HTTP/1.1": (Person, 64),
    "kept connections, HTTP/1.1 over TLS": (OverTls, 96),
    "kept connections, h2c": (Http2, 96),
    "kept connections, HTTP/2 over TLS": (Http2OverTls, 128),
    "WebSockets": (WebSocket, 256),
    "event streams": (Events, 256),
}


async def upstream(port: int) -> None:
    """Says hello, switches protocols and echoes, or sends an event every five seconds."""

    async def serve(reader, writer) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"GET /socket "):
                    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                                 b"Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n")
                    while piece := await reader.read(4096):
                        writer.write(piece)
                elif head.startswith(b"GET /events "):
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: hello\n\n")
                    while not reader.at_eof():
                        await writer.drain()
                        await asyncio.sleep(5)
                        writer.write(b"data: tick\n\n")
                else:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")
        except (OSError, EOFError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=4096, limit=16384)
    async with server:
        await server.serve_forever()


def versions() -> list[str]:
    return []


if __name__ == "__main__":
    asyncio.run(upstream(int(sys.argv[1])))
