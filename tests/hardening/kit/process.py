"""Child processes that never outlive the run. Each is the head of its own process group and is ended by its id."""

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from . import paths

_running: set["Child"] = set()


class Child:
    """A program whose output goes to a log file."""

    ENDS_ON = signal.SIGTERM

    def __init__(self, name: str, command: list, *, env: dict | None = None, cwd=None, nice: int = 0):
        self.name = name
        self.log = paths.LOGS / f"{name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if nice:
            command = ["nice", "-n", str(nice), *command]
        with open(self.log, "ab") as out:
            out.truncate(0)
            self.process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd,
                env={**os.environ, **(env or {})}, start_new_session=True,
            )
        _running.add(self)

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass

    def ended(self) -> bool:
        return self.process.poll() is not None

    def wait(self, seconds: float) -> int:
        """Its exit code."""
        code = self.process.wait(seconds)
        _running.discard(self)
        return code

    def stop(self, seconds: float = 10) -> None:
        if not self.ended():
            self.signal(self.ENDS_ON)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
        # What it started may still be there.
        self.signal(signal.SIGKILL)
        self.process.wait()
        _running.discard(self)

    def ready(self, probe, seconds: float = 30) -> "Child":
        """Polls until the probe holds; fails at once, with the end of the log, if the program ends before."""

        def check():
            if self.ended():
                raise Fatal(f"{self.name} ended with {self.process.returncode}")
            return probe()

        try:
            until(f"{self.name} is ready", check, seconds)
        except Exception as error:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{error}\n--- {self.log}\n{tail}") from error
        return self

    def listening(self, port: int, host: str = "127.0.0.1") -> "Child":
        return self.ready(lambda: accepts(host, port))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    # What it uses, from /proc.

    def memory(self) -> int:
        """Resident memory in KiB."""
        return status(self.pid, "VmRSS:")

    def peak(self) -> int:
        """Most resident memory since `forget_peak`, in KiB."""
        return status(self.pid, "VmHWM:")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def cpu(self) -> float:
        """Seconds of CPU used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def status(pid: int, key: str) -> int:
    """A number of the process's status in /proc."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise RuntimeError(f"process {pid} has no {key}")


class Fatal(RuntimeError):
    """Ends `until` at once: what was waited for can no longer come."""


def until(what: str, probe, seconds: float = 30, every: float = 0.05):
    """Calls the probe until it gives something true, and returns that."""
    deadline, last = time.monotonic() + seconds, None
    while True:
        try:
            value = probe()
            if value:
                return value
        except Fatal:
            raise
        except Exception as error:
            last = error
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain for: {what} ({last})")
        time.sleep(every)


def accepts(host: str, port: int) -> bool:
    with socket.create_connection((host, port), 1):
        return True


_given: set[int] = set()


def free_port() -> int:
    """A loopback port that was free a moment ago, each once a run."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


def run(command: list, *, seconds: float, log: str, env: dict | None = None, cwd=None, nice: int = 0) -> tuple[int, str]:
    """Runs a program to its end: its exit code and all it said."""
    child = Child(log, command, env=env, cwd=cwd, nice=nice)
    try:
        code = child.wait(seconds)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{log} was not done after {seconds:g} s; its output is in {child.log}") from None
    finally:
        child.stop()
    return code, child.log.read_text(errors="replace")


@atexit.register
def _end_all() -> None:
    for child in list(_running):
        child.stop(2)


def end_with_us() -> None:
    """A signal that ends us ends the children too."""

    def end(*_) -> None:
        # First the children: who waits for one of them ends as well.
        _end_all()
        sys.exit(1)

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, end)
