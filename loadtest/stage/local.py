"""Everything that a scenario needs, on this machine: Redis, provider, upstream and load balancer (main.mjs), two replicas."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request

from kit import paths
from kit.process import Child, free_port, until
from kit.proxy import sealing_key

HERE = paths.ROOT / "loadtest" / "stage"

SETTINGS = """\
threads: 2
listeners: [{{ address: "127.0.0.1:{http}" }}]
admin: {{ address: "127.0.0.1:{admin}" }}
keys: [{{ id: loadtest, secret: {{ env: LOADTEST_KEY }} }}]
# A machine that does other things as well is late, and late is not away: the timeout is wide.
store: {{ kind: redis, url: {{ env: LOADTEST_REDIS }}, prefix: "cloakroom:", command_timeout: 2s }}
limits: {{ connections_per_address: 0 }}
session:
  # Plain HTTP: browsers would take a Secure cookie from localhost; the names are those of the demo.
  cookie: {{ name: session, secure: false }}
  csrf: {{ mode: {csrf} }}
  cache: {{ ttl: 1s }}
refresh: {{ ahead: 6s, minimum_lifetime: 2s }}
providers:
  - name: loadtest
    issuer: {issuer}
    client_id: loadtest
    client_auth: {{ method: client_secret_basic, secret: {{ env: LOADTEST_SECRET }} }}
upstreams:
  - {{ name: upstream, endpoints: ["127.0.0.1:{upstream}"] }}
sites:
  - hosts: [localhost]
    provider: loadtest
    routes:
      - {{ path: {api}, upstream: upstream, response_headers: {{ set: {{ X-Turn: "{turn}" }} }} }}
      - {{ path: /ws/, upstream: upstream }}
      - {{ path: /, upstream: upstream, access: optional, token: {{ kind: none }} }}
shutdown: {{ lame_duck: 2s, grace: 20s }}
"""


class Replica:
    """One `cloakroom run` that can be ended and started again with the same ports and settings."""

    def __init__(self, name: str, sabotage: str, **values):
        self.name, self.sabotage = name, sabotage
        self.http, self.admin = free_port(), free_port()
        self.values = {**values, "http": self.http, "admin": self.admin, "api": "/api/",
                       "csrf": "off" if sabotage in ("csrf", "smoke") else "enforce"}
        self.turn = 0
        self.file = paths.WORK / f"replica-{name}.yaml"
        self.child: Child | None = None

    def start(self, env: dict) -> None:
        self.env = env
        self.file.unlink(missing_ok=True)
        self.file.write_text(self.written())
        self.child = Child(f"replica-{self.name}", [paths.cloakroom(), "run", "-c", self.file], env=env)
        # At the end of the run: at once.
        self.child.ENDS_ON = signal.SIGINT
        self.child.ready(self.ready)

    def written(self, **changes) -> str:
        return SETTINGS.format(**{**self.values, "turn": self.turn, **changes})

    def ready(self) -> bool:
        return self.ask("/readyz")[0] == 200

    def ask(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        return sum(float(line.split()[-1]) for line in self.ask("/metrics")[1].splitlines() if line.split(" ")[0] == name)

    def rewrite(self, text: str) -> None:
        # Written beside and renamed: half a file is never read.
        beside = self.file.with_suffix(".next")
        beside.write_text(text)
        os.replace(beside, self.file)
        self.child.process.send_signal(signal.SIGHUP)

    def drain(self) -> None:
        """A rolling restart's step: told to end, waited for, started again."""
        self.child.signal(signal.SIGKILL if self.sabotage == "drain" else signal.SIGTERM)
        code = self.child.wait(60)
        if code != 0 and self.sabotage != "drain":
            raise RuntimeError(f"replica {self.name} ended with {code}")
        if self.sabotage == "drain":
            self.child.stop()
            time.sleep(1)
        self.start(self.env)


class Redis:
    """Keeps what it holds over a stop."""

    def __init__(self, sabotage: str):
        self.sabotage = sabotage
        self.port = free_port()
        self.home = paths.WORK / "redis"
        shutil.rmtree(self.home, ignore_errors=True)
        self.child: Child | None = None

    def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.child = Child("redis", ["redis-server", "--bind", "127.0.0.1", "--port", self.port, "--save", "", "--appendonly", "yes",
                                     "--dir", self.home, "--maxmemory-policy", "noeviction"])
        self.child.ready(lambda: self.say("PING") == "PONG")

    def stop(self) -> None:
        self.child.stop()
        if self.sabotage == "store_outage":
            shutil.rmtree(self.home)

    def say(self, *words) -> str:
        done = subprocess.run(["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True, timeout=30)
        return done.stdout.strip()

    def flush(self) -> None:
        if self.sabotage == "session_flush":
            self.stop()
        else:
            self.say("FLUSHALL")

    def keys(self) -> dict:
        """How many keys there are, and how many without an end: those would stay for ever."""
        script = """
            local count, endless, cursor = 0, {}, '0'
            repeat
                local page = redis.call('SCAN', cursor, 'COUNT', 1000)
                cursor = page[1]
                for _, key in ipairs(page[2]) do
                    count = count + 1
                    if redis.call('TTL', key) == -1 then endless[#endless + 1] = key end
                end
            until cursor == '0'
            return cjson.encode({count, #endless, endless[1] or ''})"""
        if self.sabotage == "soak":
            self.say("SET", "cloakroom:orphan", "1")
        count, endless, example = json.loads(self.say("EVAL", script, "0"))
        return {"keys": count, "endless": endless, "example": example}


class Stage:
    """Started as a whole and ended as a whole. `SABOTAGE` names the scenario that shall fail."""

    def __init__(self, sabotage: str = ""):
        self.sabotage = sabotage
        self.redis = Redis(sabotage)
        self.replicas: list[Replica] = []
        self.world: Child | None = None
        try:
            self.start(sabotage)
        except BaseException:
            self.stop()
            raise

    def start(self, sabotage: str) -> None:
        ports = {name: free_port() for name in ("PROVIDER_PORT", "UPSTREAM_PORT", "FRONT_PORT", "STAGE_PORT")}
        self.site = f"http://localhost:{ports['FRONT_PORT']}"
        self.stage = f"http://127.0.0.1:{ports['STAGE_PORT']}"
        self.direct = f"http://127.0.0.1:{ports['UPSTREAM_PORT']}"
        self.redis.start()
        issuer = f"http://127.0.0.1:{ports['PROVIDER_PORT']}"
        self.replicas = [Replica(name, sabotage, issuer=issuer, upstream=ports["UPSTREAM_PORT"]) for name in "ab"]
        replicas = [{"port": replica.http, "admin": replica.admin} for replica in self.replicas]
        env = {name: str(port) for name, port in ports.items()}
        self.world = Child("stage", ["node", HERE / "main.mjs"],
                           env={**env, "REPLICAS": json.dumps(replicas), "SABOTAGE": sabotage})
        self.world.ready(lambda: urllib.request.urlopen(f"{self.stage}/counters", timeout=5).status == 200)
        # The same key: they share sessions.
        env = {"LOADTEST_KEY": sealing_key(), "LOADTEST_SECRET": "loadtest-secret-for-this-machine-only",
               "LOADTEST_REDIS": f"redis://127.0.0.1:{self.redis.port}"}
        for replica in self.replicas:
            replica.start(env)
        until("the provider is known", lambda: urllib.request.urlopen(f"{self.site}/", timeout=5).status == 200)

    def variables(self, control: str) -> dict:
        """What the scripts are told."""
        targets = ",".join(f"http://localhost:{replica.http}" for replica in self.replicas)
        return {"BASE_URL": self.site, "TARGETS": targets, "DIRECT_URL": self.direct, "STAGE_URL": self.stage, "CONTROL_URL": control}

    def memory(self) -> list[int]:
        """KiB of each replica."""
        return [replica.child.memory() for replica in self.replicas]

    def reload(self) -> dict:
        """The next settings, on all replicas."""
        turn = max(replica.turn for replica in self.replicas) + 1
        for replica in self.replicas:
            replica.turn = turn
            replica.rewrite(replica.written(**({"api": "/elsewhere/"} if self.sabotage == "reload" else {})))
        return {"turn": turn}

    def break_settings(self) -> dict:
        """Settings with a mistake; returns when both have said that they do not take them."""
        for replica in self.replicas:
            replica.rewrite(replica.written(csrf="perhaps"))
        for replica in self.replicas:
            until("the mistake is told", lambda: replica.metric("cloakroom_config_last_reload_successful") == 0, 20)
        return {}

    def stop(self) -> None:
        for replica in self.replicas:
            if replica.child:
                replica.child.stop()
        for child in (self.world, self.redis.child):
            if child:
                child.stop()
