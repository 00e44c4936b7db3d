"""The cases that the crate `http_desync_guardian` tests itself with. They come with the crate and are read from there when
the suite runs. Each names a request line, fields, and how bad it thinks this request is; bodies are ours."""

import codecs
import re
from collections.abc import Iterator

from kit import tools

from .smuggling_cases import CHUNK, ENDED, HIDDEN, HOST, PATH

FILES = ["severe", "ambiguous", "acceptable", "rfc-compliant", "bad-header-characters", "edge-cases", "more-compliant-tests",
         "real-life-test-cases", "uri-specific-test-cases", "single-case"]


def cases() -> Iterator[tuple[str, bytes]]:
    """Name, beginning with what the corpus thinks of it, and bytes of each case."""
    folder = tools.desync_guardian()
    for file in FILES:
        for case in read((folder / f"{file}.yaml").read_text()):
            # The case's own path stays behind ours, by which it is known again.
            target = case["uri"].encode() if case["uri"].startswith("/") else b"/" + case["uri"].encode()
            line = case["method"].encode() + b" " + PATH + target + (b" " + case["version"].encode() if case["version"] else b"")
            fields = b"".join(octets(name) + b": " + octets(value) + b"\r\n" for name, value in case["fields"])
            if not any(name.strip().lower() == "host" for name, _ in case["fields"]):
                fields = HOST + fields
            for what, body in ("none", HIDDEN), ("chunks", ENDED), ("a chunk", CHUNK):
                yield f"{case['tier']}: {case['name']}, body: {what}", line + b"\r\n" + fields + b"\r\n" + body


def octets(text: str) -> bytes:
    """`\\xA0` means the octet."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def read(text: str) -> Iterator[dict]:
    """What there is of YAML in these files: a list of cases, each a few keys with a scalar, and a list of fields."""
    case = None
    for line in text.splitlines():
        found = re.fullmatch(r"( *)(- )?([a-z_]+): *(.*)", line)
        if not found:
            continue
        depth, item, key, value = len(found[1]), found[2], found[3], scalar(found[4])
        if depth == 0 and item:
            if case:
                yield case
            case = {"name": value, "fields": [], "tier": "?"}
        elif key == "name":
            case["fields"].append((value, ""))
        elif key == "value":
            case["fields"][-1] = (case["fields"][-1][0], value)
        elif depth == 2 or key == "tier" and "expected" in case and not item:
            case[key] = value
    if case:
        yield case


def scalar(text: str) -> str:
    text = text.strip()
    if text.startswith('"'):
        inner = text[1:text.rindex('"')]
        return re.sub(r"\\x[0-9A-Fa-f]{2}|\\.", lambda found: codecs.decode(found[0], "unicode_escape"), inner)
    if text.startswith("'"):
        return text[1:text.rindex("'")].replace("''", "'")
    return re.sub(r" #.*", "", text).strip()
