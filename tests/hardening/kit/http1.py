"""HTTP/1 by hand: bytes out, answers in, no opinion between."""

import asyncio
import re
import socket


def read_to_end(wire: socket.socket, seconds: float) -> tuple[bytes, bool]:
    """What comes until the other side closes, and whether it did in time. A reset is a close as well."""
    wire.settimeout(seconds)
    said = b""
    try:
        while piece := wire.recv(65536):
            said += piece
    except TimeoutError:
        return said, False
    except OSError:
        pass
    return said, True


async def exchange(host: str, port: int, request: bytes, first: float, quiet: float, most: float = 20) -> bytes:
    """Sends bytes and reads until the other side closes, says nothing for `first` seconds, or nothing more for `quiet`
    seconds; `most` in all."""
    said = b""
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), most)
    except OSError:
        return said
    try:
        async with asyncio.timeout(most):
            writer.write(request)
            await writer.drain()
            while piece := await asyncio.wait_for(reader.read(65536), quiet if said else first):
                said += piece
    except (TimeoutError, OSError):
        pass
    finally:
        writer.transport.abort()
    return said


def final_answers(said: bytes) -> int:
    """How many answers begin in these bytes, those of the 1xx class not counted."""
    return len(re.findall(rb"HTTP/1\.[01] [2-5]\d\d", said))
