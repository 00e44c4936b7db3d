"""Autobahn: the WebSocket cases, at a server directly and through the proxy. What the server gets right or wrong is not
the point; that the proxy makes no difference is."""

import json
import shutil

from kit import paths, tools
from kit.process import Child, free_port
from kit.process import run as run_program
from kit.proxy import Proxy
from kit.report import Row

# All cases but most of compression: to the proxy it is octets like any others, and the 216 cases take hours.
KINDS = [("framing, fragments, pings, UTF-8, closing", ["*"], ["9.*", "12.*", "13.*"]), ("large messages", ["9.*"], []),
         ("compression, a selection", ["12.1.1", "12.1.6", "12.2.3", "12.3.4", "13.1.2", "13.3.3", "13.5.5", "13.7.1"], [])]
SAME = ("behavior", "behaviorClose", "remoteCloseCode")


def run(scale: int) -> list[Row]:
    command = tools.autobahn()
    if command is None:
        why = "autobahntestsuite needs Python 2.7 with pip (PYTHON2=… names one); there is none here"
        return [Row("autobahn", "WebSocket cases, direct and through the proxy", "same result", why, None).tell()]
    port = free_port()
    server = Child("autobahn-server", [*command, "-m", "testeeserver", "-w", f"ws://127.0.0.1:{port}"])
    # The server insists on its own port in `Host`, so the proxy has the same one at another address.
    with server.listening(port), Proxy("autobahn", f"127.0.0.1:{port}", host="127.0.0.2", http=port) as proxy:
        kinds = KINDS if scale == 1 else KINDS[:1]
        return [compare(command, port, proxy, *kind) for kind in kinds]


def compare(command, port: int, proxy: Proxy, what: str, cases: list[str], without: list[str]) -> Row:
    direct = results(command, "direct", f"ws://127.0.0.1:{port}", cases, without)
    proxied = results(command, "proxied", f"ws://{proxy.host}:{port}", cases, without)
    different = [case for case in direct if [direct[case][key] for key in SAME] != [proxied.get(case, {}).get(key) for key in SAME]]
    good = sum(1 for result in proxied.values() if result["behavior"] in ("OK", "INFORMATIONAL", "NON-STRICT"))
    measured = f"{len(direct)} cases, {len(different)} different; {good} good through the proxy"
    measured += "".join(f"; {case}: {direct[case]['behavior']} → {proxied.get(case, {}).get('behavior')}" for case in different[:8])
    passed = bool(direct) and not different and len(proxied) == len(direct)
    return Row("autobahn", f"WebSocket cases, direct and through the proxy: {what}", "same result in every case", measured, passed).tell()


def results(command, agent: str, url: str, cases: list[str], without: list[str]) -> dict:
    home = paths.WORK / "autobahn" / agent
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    spec = home / "spec.json"
    spec.write_text(json.dumps({"outdir": str(home), "servers": [{"agent": agent, "url": url}], "cases": cases,
                                "exclude-cases": without, "exclude-agent-cases": {}}))
    run_program([*command, "-m", "fuzzingclient", "-s", spec], seconds=2400, log=f"autobahn-{agent}")
    return json.loads((home / "index.json").read_text())[agent]


def versions() -> list[str]:
    return [f"autobahntestsuite {tools.AUTOBAHN}"]
