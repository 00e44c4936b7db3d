"""HTTP/2 by hand (RFC 9113, RFC 7541), so that what no library would send can be sent."""

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL = 8


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def window_update(stream: int, octets: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", octets))


def reset(stream: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """RFC 7541 §5.1."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    out = [first | most]
    value -= most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def text(value: bytes) -> bytes:
    return integer(len(value), 7) + value


def literal(name: bytes, value: bytes, *, indexed: bool = False) -> bytes:
    """A field with a new name; `indexed` puts it into the dynamic table."""
    return (b"\x40" if indexed else b"\x00") + text(name) + text(value)


def fields(pairs) -> bytes:
    return b"".join(literal(name, value) for name, value in pairs)


def request(method: bytes = b"GET", path: bytes = b"/", authority: bytes = b"localhost", more: bytes = b"") -> bytes:
    """The field block of a plain request; `more` is appended."""
    return fields([(b":method", method), (b":scheme", b"http"), (b":authority", authority), (b":path", path)]) + more


def frames_in(said: bytes):
    """Kind, flags, stream and payload of each whole frame."""
    while len(said) >= 9:
        size = int.from_bytes(said[:3], "big")
        if len(said) < 9 + size:
            return
        yield said[3], said[4], int.from_bytes(said[5:9], "big") & 0x7FFFFFFF, said[9:9 + size]
        said = said[9 + size:]
