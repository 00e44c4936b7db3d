"""Good clients: a steady rate of requests on a few kept connections, in a process of its own. What they wait is counted from
the moment a request was due, so that a stall counts for all who stood behind it."""

import asyncio
import json
import sys
import time
from dataclasses import dataclass

from . import paths
from .process import Child

RATE, CONNECTIONS = 200, 16


@dataclass
class Told:
    requests: int
    errors: int
    p50: float
    p99: float
    """Milliseconds."""

    def __str__(self) -> str:
        return f"p50 {self.p50:.1f} ms, p99 {self.p99:.1f} ms, {self.errors} errors in {self.requests}"


class Good:
    """Runs for `seconds` from its making, from the address `source` if there is one; `told` waits for its end."""

    def __init__(self, name: str, host: str, port: int, seconds: float, source: str | None = None):
        self.seconds = seconds
        command = [sys.executable, "-m", "kit.pacing", host, port, seconds, source or ""]
        self.child = Child(f"good-{name}", command, cwd=paths.SUITE)

    def told(self) -> Told:
        self.child.wait(self.seconds + 60)
        return Told(**json.loads(self.child.log.read_text()))


def alone(name: str, host: str, port: int, seconds: float, source: str | None = None) -> Told:
    return Good(f"{name}-alone", host, port, seconds, source).told()


async def _connection(host: str, port: int, source: str, number: int, begin: float, end: float, waits: list, errors: list) -> None:
    reader = writer = None
    due = begin + number / RATE
    while due < end:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        try:
            async with asyncio.timeout(20):
                if writer is None:
                    reader, writer = await asyncio.open_connection(host, port, local_addr=(source, 0) if source else None)
                writer.write(b"GET /good HTTP/1.1\r\nHost: localhost\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                if not head.startswith(b"HTTP/1.1 200"):
                    raise OSError(head.split(b"\r\n")[0].decode())
                if b"connection: close" in head.lower():
                    writer.close()
                    writer = None
            waits.append(time.monotonic() - due)
        except (OSError, ValueError, EOFError, TimeoutError) as error:
            errors.append(repr(error))
            if writer is not None:
                writer.transport.abort()
                writer = None
        due += CONNECTIONS / RATE


async def _main(host: str, port: int, seconds: float, source: str) -> None:
    waits, errors, begin = [], [], time.monotonic() + 0.2
    everybody = (_connection(host, port, source, number, begin, begin + seconds, waits, errors) for number in range(CONNECTIONS))
    await asyncio.gather(*everybody)
    waits.sort()

    def at(part: float) -> float:
        return round(waits[min(len(waits) - 1, int(len(waits) * part))] * 1000, 2) if waits else float("inf")

    print(json.dumps({"requests": len(waits) + len(errors), "errors": len(errors), "p50": at(0.5), "p99": at(0.99)}))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
