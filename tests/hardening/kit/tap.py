"""Stands between proxy and upstream and reads along, more strictly than any server: what goes upstream may be read in one
way only (RFC 9112)."""

import asyncio
import re

LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) HTTP/1\.1")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e\x80-\xff\t ]*)")


class Ambiguous(Exception):
    """Not to be read in one way."""


class Tap:
    """Forwards to an upstream; `requests` and `problems` are what it read since they were last taken."""

    def __init__(self, upstream: str):
        host, port = upstream.rsplit(":", 1)
        self.upstream = (host, int(port))
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.tasks: set[asyncio.Task] = set()
        self.lost = False
        """Something ambiguous has gone by: where requests begin on its connection is not known any more."""

    async def start(self) -> str:
        """The address to use in the upstream's place."""
        self.server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024)
        return "127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.server.close()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def take(self) -> tuple[list[str], list[str]]:
        taken = self.requests, self.problems
        self.requests, self.problems = [], []
        return taken

    async def _connection(self, reader, writer) -> None:
        task = asyncio.current_task()
        self.tasks.add(task)
        try:
            up_reader, up_writer = await asyncio.open_connection(*self.upstream)
        except OSError:
            writer.transport.abort()
            return
        reading = Reading(self)
        try:
            await asyncio.gather(self._pump(reader, up_writer, reading), self._pump(up_reader, writer, None))
        except asyncio.CancelledError:
            # `stop` cancelled us; asyncio would report it as an error of the server.
            pass
        finally:
            self.tasks.discard(task)
            for side in (writer, up_writer):
                side.transport.abort()

    @staticmethod
    async def _pump(reader, writer, reading: "Reading | None") -> None:
        try:
            while piece := await reader.read(65536):
                if reading:
                    reading.feed(piece)
                writer.write(piece)
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.transport.abort()


class Reading:
    """One connection's requests, as far as they have come."""

    def __init__(self, tap: Tap):
        self.tap, self.rest, self.lost = tap, b"", False
        self.body = None
        """What of a body is to come: octets, or True for chunks."""

    def feed(self, piece: bytes) -> None:
        self.rest += piece
        try:
            while not self.lost and self._step():
                pass
        except Ambiguous as problem:
            self.lost = self.tap.lost = True
            self.tap.problems.append(f"{problem} in {self.rest[:300]!r}")
        if self.lost:
            self.rest = b""

    def _step(self) -> bool:
        if self.body is True:
            return self._chunk()
        if self.body:
            taken = min(self.body, len(self.rest))
            self.rest, self.body = self.rest[taken:], self.body - taken
            return self.body == 0
        head, end, rest = self.rest.partition(b"\r\n\r\n")
        if not end:
            return False
        line, *lines = head.split(b"\r\n")
        request = LINE.fullmatch(line)
        if not request:
            raise Ambiguous("a request line")
        fields = [FIELD.fullmatch(line) for line in lines]
        if not all(fields):
            raise Ambiguous("a field")

        def values(name: bytes) -> list[bytes]:
            return [field[2].strip() for field in fields if field[1].lower() == name]

        lengths, codings = values(b"content-length"), values(b"transfer-encoding")
        if len(values(b"host")) != 1:
            raise Ambiguous("no single Host")
        if len(lengths) + len(codings) > 1 or not all(re.fullmatch(rb"\d{1,19}", one) for one in lengths):
            raise Ambiguous("no single framing")
        if codings and codings != [b"chunked"]:
            raise Ambiguous("a coding")
        self.tap.requests.append(f"{request[1].decode()} {request[2].decode()}")
        self.body = True if codings else int(lengths[0]) if lengths else None
        self.rest = rest
        return True

    def _chunk(self) -> bool:
        size, end, rest = self.rest.partition(b"\r\n")
        if not end:
            if len(size) > 32:
                raise Ambiguous("a chunk's size")
            return False
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", size):
            raise Ambiguous("a chunk's size")
        octets = int(size, 16)
        if octets == 0:
            trailers, end, after = self.rest.partition(b"\r\n\r\n")
            if not end:
                return False
            if trailers != size:
                raise Ambiguous("a trailer")
            self.rest, self.body = after, None
            return True
        if len(rest) < octets + 2:
            return False
        if rest[octets:octets + 2] != b"\r\n":
            raise Ambiguous("a chunk's end")
        self.rest = rest[octets + 2:]
        return True
