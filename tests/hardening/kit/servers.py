"""Servers to stand behind the proxy."""

import os
from pathlib import Path

from . import paths
from .process import Child, free_port, status

NGINX = """\
daemon off;
{user}
worker_processes {workers};
worker_rlimit_nofile 20000;
pid {home}/nginx.pid;
error_log {home}/error.log;
events {{ worker_connections 16000; }}
http {{
  client_body_temp_path {home}; proxy_temp_path {home}; fastcgi_temp_path {home}; uwsgi_temp_path {home}; scgi_temp_path {home};
  log_format seen '$status $request';
  access_log {log};
  keepalive_requests 1000000;
  keepalive_timeout 300s;
  client_max_body_size 0;
  default_type text/plain;
  {http}
  server {{
    listen 127.0.0.1:{port} backlog=4096{listen};
    {server}
  }}
}}
"""


class Nginx(Child):
    """`server` is what stands in the server block. With `seen` each request is written there."""

    def __init__(self, name: str, server: str, *, http: str = "", listen: str = "", seen=None, workers: int = 1):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        home = paths.WORK / "nginx" / name
        home.mkdir(parents=True, exist_ok=True)
        user = "user root;" if os.geteuid() == 0 else ""
        file = home / "nginx.conf"
        file.write_text(NGINX.format(user=user, workers=workers, home=home, port=self.port, http=http, listen=listen, server=server,
                                     log=f"{seen} seen" if seen else "off"))
        super().__init__(f"nginx-{name}", ["nginx", "-p", home, "-e", home / "error.log", "-c", file])
        self.listening(self.port)


class Answering(Nginx):
    """Answers whatever comes with a few bytes; below `/big` with 1 MiB, below `/read` not before the whole body is there."""

    def __init__(self, name: str):
        big = paths.WORK / "nginx" / "big"
        big.parent.mkdir(parents=True, exist_ok=True)
        big.write_bytes(b"x" * 1024 * 1024)
        read = "location /read { proxy_pass http://127.0.0.1:$server_port/; }"
        super().__init__(name, f'location / {{ return 200 "hello\\n"; }} location /big {{ alias {big}; }} {read}')


class Passing(Nginx):
    """A proxy to compare with, as bare as it can be: what comes is passed on as it comes, by as many workers as there are cores."""

    def __init__(self, name: str, upstream: str, *, http2: bool = False):
        """With `http2` that alone, in the clear."""
        server = "location / { proxy_pass http://upstream; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_request_buffering off; proxy_max_temp_file_size 0; }"
        http = f"upstream upstream {{ server {upstream}; keepalive 64; }}"
        super().__init__(name, server, http=http, listen=" http2" if http2 else "", workers=os.cpu_count() or 1)
        self.host, self.http = "127.0.0.1", self.port

    def peak(self) -> int:
        """Most resident memory of its workers, in KiB."""
        return sum(status(int(worker), "VmHWM:") for worker in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())
