"""Real servers that write down each request as they read it: `200 METHOD TARGET VERSION`, or `400 …` for what they could
not read. Each answers with the target in `X-Seen`."""

import os
from pathlib import Path

from kit import paths
from kit.process import Child, free_port
from kit.servers import Nginx

HERE = Path(__file__).resolve().parent / "upstreams"

APACHE = """\
ServerRoot {home}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so
{user}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {home}/apache.pid
ErrorLog {home}/error.log
LogFormat "%>s %r" seen
CustomLog {seen} seen
DocumentRoot {home}/empty
KeepAliveTimeout 300
MaxKeepAliveRequests 0
Header always set X-Seen expr=%{{THE_REQUEST}}
"""


def _fresh(name: str) -> Path:
    seen = paths.WORK / "seen" / f"{name}.log"
    seen.parent.mkdir(parents=True, exist_ok=True)
    seen.write_text("")
    return seen


def nginx() -> Child:
    seen = _fresh("nginx")
    server = Nginx("seen", 'add_header X-Seen "$request_uri" always; location / { return 200 "hello\\n"; }', seen=seen)
    server.seen = seen
    return server


def apache() -> Child:
    seen, port = _fresh("apache"), free_port()
    home = paths.WORK / "apache"
    (home / "empty").mkdir(parents=True, exist_ok=True)
    # As root it insists on another user for its workers, and they must be able to read the folder.
    user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    file = home / "apache.conf"
    file.write_text(APACHE.format(home=home, port=port, seen=seen, user=user))
    return _serving(Child("apache", ["apache2", "-f", file, "-D", "FOREGROUND"]), port, seen)


def node() -> Child:
    seen, port = _fresh("node"), free_port()
    return _serving(Child("node", ["node", HERE / "node.mjs", port, seen]), port, seen)


def gunicorn() -> Child:
    seen, port = _fresh("gunicorn"), free_port()
    command = ["gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "64", "--keep-alive", "300",
               "--chdir", HERE, "wsgi:application"]
    return _serving(Child("gunicorn", command, env={"SEEN": str(seen)}), port, seen)


def http_server() -> Child:
    seen, port = _fresh("http.server"), free_port()
    return _serving(Child("http.server", ["python3", HERE / "plain.py", port, seen]), port, seen)


def _serving(server: Child, port: int, seen: Path) -> Child:
    server.seen, server.address = seen, f"127.0.0.1:{port}"
    return server.listening(port)


ALL = {"nginx": nginx, "Apache": apache, "Node": node, "gunicorn": gunicorn, "http.server": http_server}
