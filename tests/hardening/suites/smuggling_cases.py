"""Requests that two servers may read differently. In each, HIDDEN stands where a second request would begin for one of
them. The kinds are those of the `http_desync_guardian` corpus and of the published attacks; the bytes are our own."""

from collections.abc import Iterator

PATH, HIDDEN = b"@PATH@", b"@HIDDEN@"
HOST = b"Host: localhost\r\n"

# Octets that parsers skip, trim, keep or refuse.
ODD = [bytes([octet]) for octet in (*range(0x00, 0x0A), 0x0B, 0x0C, 0x0D, *range(0x0E, 0x21), 0x22, 0x2C, 0x3B, 0x7F, 0x85, 0xA0, 0xFF)]


def post(fields: bytes, body: bytes, line: bytes = b"POST " + PATH + b" HTTP/1.1") -> bytes:
    return line + b"\r\n" + HOST + fields + b"\r\n" + body


def length(body: bytes) -> bytes:
    # The real hidden request is put in later: its length is counted there.
    return b"Content-Length: @LENGTH:" + body + b":LENGTH@\r\n"


ENDED = b"0\r\n\r\n" + HIDDEN
"""Ends at once for who reads chunks; holds a second request for who does."""
CHUNK = b"@CHUNK@\r\n" + HIDDEN + b"\r\n0\r\n\r\n"
"""A chunk that holds a request: for who counts 4 octets it is the next one."""

LENGTHS = [
    b"4", b" 4", b"4 ", b"\t4", b"+4", b"-4", b"-1", b"04", b"0004", b"4.0", b"4,4", b"4, 4", b"4,5", b"4;5", b"4 5", b"0x4",
    b"4e0", b"4L", b"four", b"", b" ", b"\"4\"", b"'4'", b"4\x00", b"\x004", b"4\x0b", b"4\x0c", b"4\xa0", b"\xd9\xa4", b"\xef\xbc\x94",
    b"18446744073709551616", b"18446744073709551620", b"4294967300", b"9223372036854775808", b"99999999999999999999999",
    b"1000,1000", b"4\r", b"4\r\n 4", b"\r\n 4", b"4\n",
]

CODINGS = [
    b"chunked", b"Chunked", b"CHUNKED", b"chunked ", b" chunked", b"\tchunked", b"chunked\t", b"\x0bchunked", b"chunked\x0b",
    b"\x0cchunked", b"\x00chunked", b"chunked\x00", b"\x01chunked", b"chunked\x11", b"\xa0chunked", b"chunked\xa0", b"xchunked",
    b"chunkedx", b"chunke", b"chun ked", b"\"chunked\"", b"'chunked'", b"chunked;", b"chunked;q=1", b"chunked,", b",chunked",
    b"chunked, chunked", b"chunked, identity", b"identity, chunked", b"identity", b"gzip, chunked", b"chunked, gzip", b"gzip",
    b"deflate", b"cow", b"", b" ", b"\r\n chunked", b"x\r\n chunked", b"chunked\r\n x", b"\n chunked", b"chunked\r", b"chunKed",
    b"c\xc4\xa7unked", b"\xe2\x84\xaahunked", b"chunked-false", b"trailers", b"null", b"chunked\r\nTransfer-Encoding: cow",
    b"cow\r\nTransfer-Encoding: chunked", b"chunked\r\nTransfer-Encoding: chunked", b"identity\r\nTransfer-Encoding: chunked",
    b"chunked\r\nTransfer-Encoding: identity", b"chunked\r\nTransfer-Encoding:",
]

# Spellings of a field name that some server takes for the name itself; `@` stands for Transfer-Encoding or Content-Length.
NAMES = [
    b"@ :", b"@\t:", b" @:", b"\t@:", b"X: y\r\n @:", b"X: y\r @:", b"X: y\n@:", b"X: y\r@:", b"X: y\r\r\n@:", b"X: y\n\r@:", b"\r@:",
    b"\n@:", b"@\r:", b"@\n:", b"@\r\n:", b"@::", b":@:", b"@;:", b"@=:", b"X:@:", b"\"@\":", b"@\x00:", b"\x00@:", b"@\x0b:", b"@\xa0:",
    b"\xef\xbb\xbf@:", b"@\xc2\xa0:", b"\x01@:", b"@\x01:", b"\x7f@:", b"(@):", b"@/:", b"{@}:",
]

CHUNKED = [
    b"4\r\nbody\r\n0\r\n\r\n", b"4;a=b\r\nbody\r\n0\r\n\r\n", b"4 ;a=b\r\nbody\r\n0\r\n\r\n", b"4;\r\nbody\r\n0\r\n\r\n",
    b"4;a=\"b\r\n\"\r\nbody\r\n0\r\n\r\n", b"4;a=\nb\r\nbody\r\n0\r\n\r\n", b"4;a\rb\r\nbody\r\n0\r\n\r\n", b"4;\x00\r\nbody\r\n0\r\n\r\n",
    b"4\nbody\n0\n\n", b"4\r\nbody\n0\r\n\r\n", b"4\nbody\r\n0\r\n\r\n", b"4\r\nbody\r\n0\n\r\n", b"4\r\nbody\r\n0\r\n\n", b"4\r\nbody\r0\r\n\r\n",
    b"4\rbody\r\n0\r\n\r\n", b"4\r\nbodyXX0\r\n\r\n", b"4\r\nbody0\r\n\r\n", b"4\r\nbodyy\r\n0\r\n\r\n", b"4\r\nbod\r\n0\r\n\r\n",
    b"0x4\r\nbody\r\n0\r\n\r\n", b"4h\r\nbody\r\n0\r\n\r\n", b"+4\r\nbody\r\n0\r\n\r\n", b"-4\r\nbody\r\n0\r\n\r\n", b" 4\r\nbody\r\n0\r\n\r\n",
    b"4 \r\nbody\r\n0\r\n\r\n", b"\t4\r\nbody\r\n0\r\n\r\n", b"4\t\r\nbody\r\n0\r\n\r\n", b"4\x00\r\nbody\r\n0\r\n\r\n", b"4\xa0\r\nbody\r\n0\r\n\r\n",
    b"0004\r\nbody\r\n0\r\n\r\n", b"0000000000000000000000000004\r\nbody\r\n0\r\n\r\n", b"4_\r\nbody\r\n0\r\n\r\n", b"4,\r\nbody\r\n0\r\n\r\n",
    b"4.0\r\nbody\r\n0\r\n\r\n", b"\r\n4\r\nbody\r\n0\r\n\r\n", b"\r\nbody\r\n0\r\n\r\n", b"10000000000000004\r\nbody\r\n0\r\n\r\n",
    b"FFFFFFFFFFFFFFFF4\r\nbody\r\n0\r\n\r\n", b"100000004\r\nbody\r\n0\r\n\r\n", b"FFFFFFFFFFFFFFFF\r\nbody\r\n0\r\n\r\n",
    b"7FFFFFFFFFFFFFFF\r\nbody\r\n0\r\n\r\n", b"\xef\xbc\x94\r\nbody\r\n0\r\n\r\n", b"00\r\n\r\n", b"000000000000000000000\r\n\r\n", b"0;a\r\n\r\n",
    b"0 \r\n\r\n", b"0\r\n", b"0\n\n", b"0\r\n\n", b"0\n\r\n", b"0\r\r\n\r\n", b"0\r\n\r\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\nX: y\n\n",
    b"0\r\nContent-Length: 50\r\n\r\n", b"0\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\nHost: other\r\n\r\n", b"0\r\n X: y\r\n\r\n",
    b"0\r\nno colon\r\n\r\n", b"0\r\n: y\r\n\r\n", b"0\r\nX : y\r\n\r\n", b"0\r\nX: y\r\n z\r\n\r\n", b"0\r\nGET /x HTTP/1.1\r\n\r\n",
    b"-0\r\n\r\n", b"0x\r\n\r\n", b"x\r\n\r\n", b"\r\n\r\n", b"4\r\nbody\r\n4\r\nbody\r\n0\r\n\r\n",
]

LINES = [
    b"POST " + PATH + b" HTTP/1.0", b"POST " + PATH + b" HTTP/0.9", b"POST " + PATH, b"POST " + PATH + b" ", b"POST " + PATH + b" HTTP/1.2",
    b"POST " + PATH + b" HTTP/2.0", b"POST " + PATH + b" HTTP/3", b"POST " + PATH + b" HTTP/1", b"POST " + PATH + b" HTTP/01.1",
    b"POST " + PATH + b" HTTP/1.10", b"POST " + PATH + b" HTTP/ 1.1", b"POST " + PATH + b" http/1.1", b"POST " + PATH + b" XTTP/1.1",
    b"POST " + PATH + b"  HTTP/1.1", b"POST  " + PATH + b" HTTP/1.1", b"POST\t" + PATH + b"\tHTTP/1.1", b"POST\x0b" + PATH + b" HTTP/1.1",
    b" POST " + PATH + b" HTTP/1.1", b"\r\nPOST " + PATH + b" HTTP/1.1", b"\nPOST " + PATH + b" HTTP/1.1", b"\r\n\r\n\r\nPOST " + PATH + b" HTTP/1.1",
    b"POST " + PATH + b" HTTP/1.1 ", b"POST " + PATH + b" HTTP/1.1\t", b"POST " + PATH + b" HTTP/1.1\r", b"POST " + PATH + b" HTTP/1.1 x",
    b"POST " + PATH + b" x HTTP/1.1", b"POST " + PATH + b"\x00 HTTP/1.1", b"POST " + PATH + b"\x01 HTTP/1.1", b"POST " + PATH + b"\t HTTP/1.1",
    b"POST " + PATH + b"\r HTTP/1.1", b"POST " + PATH + b"\n HTTP/1.1", b"POST " + PATH + b"#x HTTP/1.1", b"POST " + PATH + b"\xff HTTP/1.1",
    b"POST " + PATH + b"%0d%0a HTTP/1.1", b"POST " + PATH + b"%00 HTTP/1.1", b"POST http://other" + PATH + b" HTTP/1.1",
    b"POST http://localhost" + PATH + b" HTTP/1.1", b"POST localhost" + PATH + b" HTTP/1.1", b"POST //localhost" + PATH + b" HTTP/1.1",
    b"POST * HTTP/1.1", b"OPTIONS * HTTP/1.1", b"CONNECT localhost:80 HTTP/1.1", b"CONNECT " + PATH + b" HTTP/1.1", b"TRACE " + PATH + b" HTTP/1.1",
    b"P(ST " + PATH + b" HTTP/1.1", b"P\x00ST " + PATH + b" HTTP/1.1", b"post " + PATH + b" HTTP/1.1", b"PRI * HTTP/2.0", b"",
    b"POST " + PATH + b" HTTP/1.1\r\nGET /x HTTP/1.1", b"POST " + PATH + b"?a=b HTTP/1.1\r\nX: HTTP/1.1",
]

FIELDS = [
    b"Connection: Content-Length\r\n", b"Connection: Transfer-Encoding\r\n", b"Connection: close, Content-Length\r\n", b"Connection: Host\r\n",
    b"Connection: keep-alive\r\n", b"Connection: close\r\n", b"Keep-Alive: timeout=9\r\n", b"Proxy-Connection: keep-alive\r\n", b"TE: trailers\r\n",
    b"TE: chunked\r\n", b"Trailer: Content-Length\r\n", b"Expect: 100-continue\r\n", b"Expect: 100-Continue\r\n", b"Expect: x\r\n",
    b"Expect: 100-continue, x\r\n", b"Expect:\r\n 100-continue\r\n", b"Expect: y 100-continue\r\n", b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n",
    b"Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n", b"X-HTTP-Method-Override: GET\r\n", b"Content-Encoding: chunked\r\n", b"Host: other\r\n",
    b"hOST: localhost\r\n", b"Content-Type: multipart/byteranges; boundary=x\r\n", b"Range: bytes=0-4\r\n", b": y\r\n", b"no colon\r\n", b"X\r\n",
    b"X: \x00\r\n", b"X: a\x00b\r\n", b"X: a\rb\r\n", b"X: a\nb\r\n", b"X\x00: y\r\n", b"\x00\r\n", b" \r\n", b"X: y\r\n\tz\r\n", b"X: y\r\n  z\r\n", b"X: \xff\r\n",
]


def everything() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each case."""
    for value in LENGTHS:
        yield f"Content-Length: {value!r}", post(b"Content-Length: " + value + b"\r\n", b"body" + HIDDEN)
        yield f"Content-Length: 4 and {value!r}", post(b"Content-Length: 4\r\nContent-Length: " + value + b"\r\n", b"body" + HIDDEN)
        yield f"Content-Length: {value!r} and 0", post(b"Content-Length: " + value + b"\r\nContent-Length: 0\r\n", HIDDEN)
    for value in CODINGS:
        coding = b"Transfer-Encoding: " + value + b"\r\n"
        yield f"Transfer-Encoding: {value!r}", post(coding, ENDED)
        yield f"Transfer-Encoding: {value!r}, then a length", post(coding + length(ENDED), ENDED)
        yield f"a length, then Transfer-Encoding: {value!r}", post(length(ENDED) + coding, ENDED)
        yield f"Content-Length: 4 and Transfer-Encoding: {value!r}", post(b"Content-Length: 4\r\n" + coding, CHUNK)
        yield f"Transfer-Encoding: {value!r} in HTTP/1.0", post(b"Connection: keep-alive\r\n" + coding, ENDED, b"POST " + PATH + b" HTTP/1.0")
    for spelling in [*NAMES, b"Transfer_Encoding:", b"TransferEncoding:", b"Transfer-Encod\xc4\xb1ng:", b"Tran\xc5\xbfer-Encoding:", b"Transfer--Encoding:", b"Transfer Encoding:"]:
        coding = spelling.replace(b"@", b"Transfer-Encoding") + b" chunked\r\n"
        yield f"{coding!r}", post(coding, ENDED)
        yield f"{coding!r} and a length", post(length(ENDED) + coding, ENDED)
        yield f"{coding!r} and Content-Length: 4", post(coding + b"Content-Length: 4\r\n", CHUNK)
    for spelling in [*NAMES, b"Content_Length:", b"ContentLength:", b"Content Length:", b"Content--Length:"]:
        field = spelling.replace(b"@", b"Content-Length")
        yield f"{field!r}", post(field + b" 4\r\n", b"body" + HIDDEN)
        yield f"{field!r} and Content-Length: 0", post(field + b" 4\r\nContent-Length: 0\r\n", HIDDEN)
        yield f"{field!r} and chunks", post(field + b" 4\r\nTransfer-Encoding: chunked\r\n", CHUNK)
    for octet in ODD:
        yield f"{octet!r} before a coding's name", post(octet + b"Transfer-Encoding: chunked\r\n" + length(ENDED), ENDED)
        yield f"{octet!r} after a coding's name", post(b"Transfer-Encoding" + octet + b": chunked\r\n" + length(ENDED), ENDED)
        yield f"{octet!r} before a coding", post(b"Transfer-Encoding:" + octet + b"chunked\r\n" + length(ENDED), ENDED)
        yield f"{octet!r} after a coding", post(b"Transfer-Encoding: chunked" + octet + b"\r\n" + length(ENDED), ENDED)
        yield f"{octet!r} after a length", post(b"Content-Length: 4" + octet + b"\r\n", b"body" + HIDDEN)
        yield f"{octet!r} for the line end before a coding", post(b"X: y" + octet + b"Transfer-Encoding: chunked\r\n" + length(ENDED), ENDED)
    for body in CHUNKED:
        yield f"chunks {body!r}", post(b"Transfer-Encoding: chunked\r\n", body + HIDDEN)
    for line in LINES:
        yield f"line {line!r}, a length", post(length(HIDDEN), HIDDEN, line)
        yield f"line {line!r}, chunks", post(b"Transfer-Encoding: chunked\r\n", ENDED, line)
        yield f"line {line!r}, no body", post(b"", HIDDEN, line)
    for field in FIELDS:
        yield f"{field!r} and a length", post(field + length(HIDDEN), HIDDEN)
        yield f"{field!r} and chunks", post(field + b"Transfer-Encoding: chunked\r\n", ENDED)
        yield f"{field!r}, GET", post(field, HIDDEN, b"GET " + PATH + b" HTTP/1.1")
    for method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"PUT", b"PATCH", b"PROPFIND", b"X"):
        line = method + b" " + PATH + b" HTTP/1.1"
        yield f"{method!r} with a length", post(length(HIDDEN), HIDDEN, line)
        yield f"{method!r} with chunks", post(b"Transfer-Encoding: chunked\r\n", ENDED, line)
        yield f"{method!r} with a request in a chunk", post(b"Transfer-Encoding: chunked\r\n", CHUNK, line)
        yield f"{method!r} with Content-Length: 0", post(b"Content-Length: 0\r\n", HIDDEN, line)
    for end in (b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r"):
        lines = [b"POST " + PATH + b" HTTP/1.1", b"Host: localhost", b"Content-Length: 4", b"Transfer-Encoding: chunked"]
        yield f"lines end with {end!r}, a length", end.join([*lines[:3], b"", b"body" + HIDDEN])
        yield f"lines end with {end!r}, chunks", end.join([*lines[:2], lines[3], b"", ENDED])
        yield f"lines end with {end!r}, both", end.join([*lines, b"", ENDED])
        yield f"the header ends with {end!r}", b"\r\n".join(lines[:3]) + b"\r\n" + end + b"body" + HIDDEN


def bytes_of(case: bytes, path: bytes, hidden: bytes) -> bytes:
    """The case as it goes out."""
    case = case.replace(PATH, path).replace(b"@CHUNK@", b"%x" % len(hidden)).replace(HIDDEN, hidden)
    while b"@LENGTH:" in case:
        before, _, rest = case.partition(b"@LENGTH:")
        body, _, after = rest.partition(b":LENGTH@")
        case = before + b"%d" % len(body) + after
    return case


# Over HTTP/2: fields after the pseudo fields, pieces of the body, pseudo fields that differ.
def over_http2() -> Iterator[tuple[str, list[tuple[bytes, bytes]], list[bytes]]]:
    """Name, all fields, DATA frames of each case; PATH and HIDDEN as above."""

    def fields(*more: tuple[bytes, bytes], method=b"POST", path=PATH, scheme=b"http", authority=b"localhost"):
        return [(b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", path), *more]

    inject = b" HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN
    for value in LENGTHS:
        yield f"h2 content-length: {value!r}", fields((b"content-length", value)), [b"body" + HIDDEN]
    yield "h2 content-length: 0 with a body", fields((b"content-length", b"0")), [HIDDEN]
    yield "h2 two lengths", fields((b"content-length", b"0"), (b"content-length", b"4")), [b"body" + HIDDEN]
    for value in CODINGS:
        yield f"h2 transfer-encoding: {value!r}", fields((b"transfer-encoding", value)), [ENDED]
        yield f"h2 Transfer-Encoding: {value!r}", fields((b"Transfer-Encoding", value)), [ENDED]
    for name in (b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"te", b"host", b"expect", b"http2-settings"):
        for value in (b"transfer-encoding", b"chunked", b"h2c", b"close", b"100-continue"):
            yield f"h2 {name!r}: {value!r}", fields((name, value)), [ENDED]
    for end in (b"\r\n", b"\n", b"\r", b"\x00"):
        bad = end + b"transfer-encoding: chunked" + end + end + HIDDEN
        yield f"h2 {end!r} in a value", fields((b"x", b"y" + bad)), [ENDED]
        yield f"h2 {end!r} in a name", fields((b"x: y" + bad, b"z")), [ENDED]
        yield f"h2 {end!r} in the path", fields(path=PATH + end + b"x: y" + bad), [ENDED]
        yield f"h2 {end!r} in the method", fields(method=b"GET " + PATH + b" HTTP/1.1" + bad), [ENDED]
        yield f"h2 {end!r} in the authority", fields(authority=b"localhost" + bad), [ENDED]
        yield f"h2 {end!r} in the scheme", fields(scheme=b"http" + bad), [ENDED]
    for octet in ODD:
        yield f"h2 {octet!r} in a name", fields((b"transfer-encoding" + octet, b"chunked")), [ENDED]
        yield f"h2 {octet!r} in the path", fields(path=PATH + octet + b"x"), [ENDED]
    yield "h2 a whole request in the path", fields(path=PATH + inject), [b""]
    yield "h2 a space in the path", fields(path=PATH + b" HTTP/1.1"), [b""]
    yield "h2 a space in the method", fields(method=b"GET /hidden"), [b""]
    yield "h2 a colon in a name", fields((b"transfer-encoding:chunked", b"x")), [ENDED]
    yield "h2 two paths", fields((b":path", b"/hidden/two")), [b""]
    yield "h2 two methods", fields((b":method", b"GET")), [b""]
    yield "h2 a pseudo field late", [*fields((b"x", b"y")), (b":path", b"/hidden/late")], [b""]
    yield "h2 an empty path", fields(path=b""), [b""]
    yield "h2 a star for a path", fields(path=b"*"), [b""]
    yield "h2 an absolute path", fields(path=b"http://localhost" + PATH), [b""]
    yield "h2 CONNECT with a path", fields(method=b"CONNECT"), [HIDDEN]
    yield "h2 a body of many frames", fields((b"content-length", b"4")), [b"b", b"o", b"d", b"y", HIDDEN]
    yield "h2 GET with a body", fields(method=b"GET"), [HIDDEN]
    yield "h2 HEAD with a body", fields(method=b"HEAD"), [HIDDEN]
    yield "h2 an empty last frame", fields(), [HIDDEN, b""]
    yield "h2 only an empty frame", fields(), [b""]
