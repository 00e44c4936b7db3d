"""A started `cloakroom run`, with settings of its own."""

import http.client
import re
import signal
import subprocess
import urllib.request

from . import paths
from .process import Child, free_port

SETTINGS = """\
listeners:
  - address: {host}:{http}
  - address: {host}:{tls}
    tls: {{ certificates: [{{ certificate: {certificate}, key: {key} }}] }}
admin: {{ address: "127.0.0.1:{admin}" }}
keys: [{{ id: hardening, secret: {{ env: HARDENING_KEY }} }}]
store: {{ kind: memory }}
limits: {{ {limits} }}
upstreams:
  - {{ name: upstream, endpoints: ["{upstream}"]{upstream_more} }}
sites:
  - hosts: ["*"]
    routes:
      - {{ path: /, upstream: upstream, access: public, csrf: false, max_body: {max_body}{route_more} }}
"""

ANY_NUMBER = "connections_per_address: 0"
"""Everybody here comes from one address: without its limit each counts as one of many."""


class Proxy(Child):
    """Everything is public: what is tried here comes before sessions. `http` (HTTP/1 and h2c), `tls`, `admin` are ports."""

    # At once: on SIGTERM it would serve on for some seconds.
    ENDS_ON = signal.SIGINT

    def __init__(self, name: str, upstream: str, *, host: str = "127.0.0.1", http: int | None = None,
                 max_body: str = "10MiB", threads: int | None = None, limits: str = ANY_NUMBER):
        """`limits` is what stands in the section of this name."""
        self.host = host
        self.http = http or free_port()
        self.tls, self.admin = free_port(), free_port()
        certificate, key = certificate_and_key()
        self.settings = dict(host=host, http=self.http, tls=self.tls, admin=self.admin, certificate=certificate, key=key,
                             upstream=upstream, max_body=max_body, limits=limits, upstream_more="", route_more="")
        self.threads = threads
        self.file = paths.WORK / "settings" / f"{name}.yaml"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.unlink(missing_ok=True)
        self.file.write_text(self.written())
        super().__init__(f"proxy-{name}", [paths.cloakroom(), "run", "-c", self.file], env={"HARDENING_KEY": sealing_key()})
        self.ready(self.is_ready)

    def written(self, **changes: str) -> str:
        """Its settings file, with changes."""
        text = SETTINGS.format(**{**self.settings, **changes})
        return f"threads: {self.threads}\n{text}" if self.threads else text

    def is_ready(self) -> bool:
        return self.ask_admin("/readyz")[0] == 200

    def ask_admin(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all series of this name that have these labels."""
        total = 0.0
        for line in self.ask_admin("/metrics")[1].splitlines():
            found = re.fullmatch(r"([a-z0-9_]+)(?:\{(.*)\})? (\S+)", line)
            if found and found[1] == name:
                has = dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
                if all(has.get(key) == value for key, value in labels.items()):
                    total += float(found[3])
        return total

    def open_connections(self) -> int:
        return int(self.metric("cloakroom_connections_open"))

    def answers(self, path: str = "/") -> int:
        """The status of one good request."""
        with urllib.request.urlopen(f"http://{self.host}:{self.http}{path}", timeout=10) as answer:
            return answer.status


def certificate_and_key():
    """Self-made, for `localhost`; once."""
    certificate, key = paths.WORK / "localhost.crt", paths.WORK / "localhost.key"
    if not (certificate.exists() and key.exists()):
        paths.WORK.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out",
             certificate],
            check=True, capture_output=True,
        )
    return certificate, key


_key: list[str] = []


def sealing_key() -> str:
    if not _key:
        made = subprocess.run([paths.cloakroom(), "keygen"], check=True, capture_output=True, text=True)
        _key.append(made.stdout.strip())
    return _key[0]
