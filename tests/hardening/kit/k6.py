"""Load over HTTP/2 from clients that keep their connections as browsers do: k6."""

import json

from . import paths, tools
from .process import Child

SCRIPT = """\
import http from 'k6/http';
import { check, sleep } from 'k6';

export const options = {
  vus: VUS, duration: 'SECONDSs', insecureSkipTLSVerify: true, discardResponseBodies: true, summaryTrendStats: ['p(99)'],
};

export default function () {
  const answer = http.get('URL', { timeout: '20s' });
  const good = check(answer, { '200 over HTTP/2': ({ status, proto }) => status === 200 && proto === 'HTTP/2.0' });
  if (!good) console.error(`FAILED ${answer.status} ${answer.proto} ${answer.error_code} ${answer.error}`);
  sleep(PAUSE);
}
"""


class Load:
    """`users` who each ask again and again for `seconds`, with a pause between."""

    def __init__(self, name: str, url: str, users: int, seconds: int, pause: float = 0.01):
        self.seconds = seconds
        script, self.summary = paths.WORK / f"k6-{name}.js", paths.WORK / f"k6-{name}.json"
        script.parent.mkdir(parents=True, exist_ok=True)
        text = SCRIPT
        for word, value in {"VUS": users, "SECONDS": seconds, "URL": url, "PAUSE": pause}.items():
            text = text.replace(word, str(value))
        script.write_text(text)
        self.summary.unlink(missing_ok=True)
        command = [tools.k6(), "run", "--no-usage-report", "--quiet", "--no-color", "--summary-export", self.summary, script]
        self.child = Child(f"k6-{name}", command, nice=5)

    def told(self) -> tuple[int, list[str]]:
        """How many requests, and why those failed that did."""
        self.child.wait(self.seconds + 60)
        if not self.summary.exists():
            raise RuntimeError(f"k6 wrote no summary; its output is in {self.child.log}")
        checks = json.loads(self.summary.read_text())["metrics"]["checks"]
        lines = [line for line in self.child.log.read_text(errors="replace").splitlines() if "FAILED" in line]
        failed = [line.partition("FAILED ")[2].rstrip('"').partition('" source')[0][:120] for line in lines]
        failed += ["not told why"] * (checks["fails"] - len(failed))
        return checks["passes"] + checks["fails"], failed
