"""Large uploads and downloads: every octet arrives, and the proxy's memory does not grow with them."""

import hashlib
import socket
import subprocess
import threading

from kit import paths, report
from kit.proxy import Proxy
from kit.report import Row

GIB = 1024**3
PIECE = bytes(range(256)) * 4096
MOST = 64
"""MiB that memory may grow: buffers, not content."""


def run(scale: int) -> list[Row]:
    octets = 2 * GIB // scale // len(PIECE) * len(PIECE)
    source = paths.WORK / "large"
    with open(source, "wb") as file:
        for _ in range(octets // len(PIECE)):
            file.write(PIECE)
    try:
        with Sink(octets) as sink, Proxy("transfers", sink.address, max_body="3GiB") as proxy:
            kinds = [("HTTP/1.1", f"http://{proxy.host}:{proxy.http}", ["--http1.1"]),
                     ("HTTP/2 over TLS", f"https://localhost:{proxy.tls}", ["--http2"])]
            return [row for kind in kinds for row in both(*kind, proxy, sink, source, octets)]
    finally:
        source.unlink()


def both(name: str, base: str, protocol: list[str], proxy: Proxy, sink: "Sink", source, octets: int) -> list[Row]:
    wanted = hashlib.sha256()
    for _ in range(octets // len(PIECE)):
        wanted.update(PIECE)
    rows = []
    for direction in ("upload", "download"):
        idle, cpu = proxy.memory(), proxy.cpu()
        proxy.forget_peak()
        sink.digest = None
        command = ["curl", "--silent", "--show-error", "--fail", "--insecure", "--max-time", "600", *protocol]
        if direction == "upload":
            command += ["--upload-file", str(source), f"{base}/up"]
            done = subprocess.run(command, capture_output=True)
            arrived = sink.digest
        else:
            with subprocess.Popen([*command, f"{base}/down"], stdout=subprocess.PIPE) as done:
                digest = hashlib.sha256()
                while piece := done.stdout.read(1024 * 1024):
                    digest.update(piece)
            arrived = digest.hexdigest()
        grown = (proxy.peak() - idle) / 1024
        whole = done.returncode == 0 and arrived == wanted.hexdigest()
        measured = (f"{'every octet' if whole else f'NOT whole (curl ended with {done.returncode})'}; +{grown:.1f} MiB at most; "
                    f"{(proxy.cpu() - cpu) / octets * GIB:.2f} s of CPU a GiB")
        done = f"{octets / GIB:.2g} GiB {direction} over {name}"
        rows.append(Row("transfers", done, f"every octet, ≤ {MOST} MiB of memory", measured, whole and grown <= MOST).tell())
    return rows


class Sink:
    """An upstream that takes uploads of any framing, remembers their hash, and gives downloads."""

    def __init__(self, octets: int):
        self.octets, self.digest = octets, None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                wire, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(wire,), daemon=True).start()

    def _serve(self, wire: socket.socket) -> None:
        with wire, wire.makefile("rb", 1024 * 1024) as reader:
            while line := reader.readline():
                fields = {}
                while (field := reader.readline()) not in (b"\r\n", b""):
                    name, _, value = field.partition(b":")
                    fields[name.strip().lower()] = value.strip()
                if line.startswith(b"PUT"):
                    self.digest = self._body(reader, fields)
                    wire.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                elif b" /down " in line:
                    wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.octets)
                    for _ in range(self.octets // len(PIECE)):
                        wire.sendall(PIECE)
                else:
                    wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    @staticmethod
    def _body(reader, fields) -> str:
        digest = hashlib.sha256()
        if b"content-length" in fields:
            left = int(fields[b"content-length"])
            while left and (piece := reader.read(min(left, 1024 * 1024))):
                digest.update(piece)
                left -= len(piece)
        else:
            while size := int(reader.readline().split(b";")[0], 16):
                digest.update(reader.read(size))
                reader.read(2)
            reader.readline()
        return digest.hexdigest()


def versions() -> list[str]:
    return [report.version("curl", "--version").split(" (")[0]]
