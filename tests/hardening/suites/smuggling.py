"""Request smuggling: what an upstream reads as requests must be what the proxy sent it, and nobody gets another's answer.

A case sends bytes in which a second request is hidden for whoever reads them another way. A hit is one of these:
- what the proxy sends upstream can be read in two ways (a strict reader stands between them);
- an upstream read a request that the strict reader did not;
- the hidden request went upstream though its sender got one answer only;
- a good request afterwards, on the same pooled connections, was answered with something else than its own answer."""

import asyncio
import json
import re
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor

from kit import frames, paths, report, tools
from kit.http1 import exchange, final_answers
from kit.process import run as run_program
from kit.proxy import Proxy, certificate_and_key, sealing_key
from kit.report import Row
from kit.tap import Tap

from . import smuggling_cases as cases
from . import smuggling_guardian as guardian
from .smuggling_upstreams import ALL

AT_ONCE = 64
FIRST, QUIET = 4, 1
"""Seconds without a byte after which a connection counts as waiting for more: before an answer, and after one."""
MOST_TOLD = 4
"""Hits in the table; all of them, with the bytes, are in target/hardening/logs."""
SMUGGLEX_CHECKS = "cl-te,te-cl,te-te,h2c,h2,cl-edge,cl-0,0-cl,parser-discrepancy,h2-downgrade"


SCANNING = threading.Lock()
"""smugglex judges by times: one at a time."""


def run(scale: int) -> list[Row]:
    # What all of them need is made once.
    tools.smugglex(), tools.desync_guardian(), certificate_and_key(), sealing_key()
    # At the same time: most of it is waiting.
    with ThreadPoolExecutor(len(ALL)) as pool:
        trials = [pool.submit(asyncio.run, against(name, start, scale)) for name, start in ALL.items()]
        return [row for (name, _), trial in zip(ALL.items(), trials) for row in rows_of(name, trial)]


def rows_of(name: str, trial: Future) -> list[Row]:
    try:
        return trial.result()
    except Exception as error:
        return [report.broke_off("smuggling", f"upstream {name}", error)]


async def against(name: str, start, scale: int) -> list[Row]:
    with start() as upstream:
        tap = Tap(upstream.address)
        address = await tap.start()
        with await asyncio.to_thread(Proxy, f"smuggling-{name}", address) as proxy:
            trial = Trial(proxy, upstream, tap)
            over_http1 = [(title, as_bytes(case)) for title, case in cases.everything()][::scale]
            over_http2 = [(title, as_frames(*case)) for title, *case in cases.over_http2()][::scale]
            first = (await trial.go("h1", over_http1, final_answers)).row(name, f"{len(over_http1)} cases over HTTP/1")
            second = (await trial.go("h2", over_http2, answered_streams)).row(name, f"{len(over_http2)} cases over HTTP/2")
            foreign = [(title, as_bytes(case)) for title, case in guardian.cases()][::scale]
            third = (await trial.go("g", foreign, final_answers)).row(name, f"{len(foreign)} requests after http_desync_guardian", by_kind=True)
            fourth = (await asyncio.to_thread(scan, name, proxy, scale)).tell()
        await tap.stop()
        return [first, second, third, fourth]


def as_bytes(case: bytes):
    return lambda path, hidden: cases.bytes_of(case, path, hidden)


def as_frames(fields, pieces):
    def put(path: bytes, hidden: bytes) -> bytes:
        block = frames.fields([(cases.bytes_of(name, path, hidden), cases.bytes_of(value, path, hidden)) for name, value in fields])
        raw = frames.PREFACE + frames.settings() + frames.frame(frames.HEADERS, frames.END_HEADERS, 1, block)
        for number, piece in enumerate(pieces, start=1):
            last = frames.END_STREAM if number == len(pieces) else 0
            raw += frames.frame(frames.DATA, last, 1, cases.bytes_of(piece, path, hidden))
        return raw

    return put


class Trial:
    """Lists of cases against one upstream."""

    def __init__(self, proxy: Proxy, upstream, tap: Tap):
        self.proxy, self.upstream, self.tap = proxy, upstream, tap
        self.read_so_far = self.good = 0

    async def go(self, tag: str, everything, count) -> "Trial":
        """Sends all cases, some at once; `count` tells how many answers there are in what came back."""
        self.tag, self.hits, self.details, self.tally, self.good_here = tag, [], [], Counter(), 0
        self.kinds = Counter()
        for begin in range(0, len(everything), AT_ONCE):
            sent = []
            for number, (title, raw) in enumerate(everything[begin:begin + AT_ONCE], start=begin):
                # With an end: 1 is not the beginning of 10.
                path, hidden = f"/c/{tag}{number}.", f"/hidden/{tag}{number}"
                hidden_request = f"GET {hidden} HTTP/1.1\r\nHost: localhost\r\n\r\n"
                sent.append((title, path, hidden, raw(path.encode(), hidden_request.encode())))
            said = await asyncio.gather(*(exchange(self.proxy.host, self.proxy.http, raw, FIRST, QUIET) for *_, raw in sent))
            await self.good_requests()
            await self.judge([(*case[:3], count(answer), answer) for case, answer in zip(sent, said)])
        return self

    async def judge(self, batch) -> None:
        sent, problems = self.tap.take()
        lines = await self.new_lines()
        read = Counter(" ".join(line.split(" ")[1:3]) for line in lines if re.match(r"[23]\d\d |404 ", line))
        titles = {path: title for title, path, *_ in batch}
        for problem in problems:
            number = re.search(rf"/c/{self.tag}\d+\.", problem)
            self.hits.append(f"ambiguous: {titles.get(number and number[0], 'another')}")
            self.details.append(problem)
        if not self.tap.lost:
            # gunicorn reads `post` as POST.
            unsent = Counter(map(str.upper, read.elements())) - Counter(map(str.upper, sent))
            self.hits += [f"the upstream read what was not sent: {count} × {request}" for request, count in unsent.items()]
        hidden_sent = Counter(request.split(" ")[1] for request in sent)
        for title, path, hidden, answers, said in batch:
            whats = "forwarded" if any(path in request for request in sent) else "refused" if said else "no answer"
            self.tally[whats] += 1
            self.kinds[f"{title.partition(':')[0].lower()} {whats}"] += 1
            if hidden_sent[hidden] and answers < 2:
                self.hits.append(f"{title}: the hidden request went upstream, {answers} answered")

    async def good_requests(self) -> None:
        tokens = [f"/good/{self.good + number}." for number in range(16)]
        self.good += len(tokens)
        self.good_here += len(tokens)

        async def ask(token: str) -> None:
            raw = f"GET {token} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
            said = await exchange(self.proxy.host, self.proxy.http, raw, 15, 15)
            seen = re.search(rb"(?i)\r\nx-seen: ?(.*?)\r\n", said)
            if not seen or token.encode() not in seen[1] or final_answers(said) != 1:
                self.hits.append(f"{token} was answered with {said[:200]!r}")

        await asyncio.gather(*map(ask, tokens))

    async def new_lines(self) -> list[str]:
        """What the upstream wrote since. All good requests must be there; they were the last."""
        wanted = {f"/good/{number}." for number in range(self.good - 16, self.good)}
        for _ in range(200):
            with open(self.upstream.seen, "rb") as file:
                file.seek(self.read_so_far)
                said = file.read()
            text = said.decode(errors="replace")
            if all(token in text for token in wanted):
                break
            await asyncio.sleep(0.05)
        else:
            self.hits.append("the upstream has not read all good requests")
        self.read_so_far += len(said)
        return text.split("\n")

    def row(self, name: str, done: str, *, by_kind: bool = False) -> Row:
        """`by_kind`: what became of cases is told by what stands before the colon in their titles."""
        tally = ", ".join(f"{count} {what}" for what, count in sorted((self.kinds if by_kind else self.tally).items()))
        measured = f"{len(self.hits)} hits; {tally}; {self.good_here} good requests between"
        measured += "".join(f"; {hit[:200]}" for hit in self.hits[:MOST_TOLD])
        if len(self.hits) > MOST_TOLD:
            measured += "; …"
        log = paths.LOGS / f"smuggling-{name}-{self.tag}.hits"
        log.write_text("\n".join([*self.hits, "", *self.details]))
        return Row("smuggling", f"{done}, upstream {name}", "0 hits", measured, not self.hits).tell()


def answered_streams(said: bytes) -> int:
    return sum(1 for kind, _, stream, _ in frames.frames_in(said) if kind == frames.HEADERS and stream == 1)


def scan(name: str, proxy: Proxy, scale: int) -> Row:
    """smugglex judges by times and statuses from outside."""
    with SCANNING:
        return scan_alone(name, proxy, scale)


def scan_alone(name: str, proxy: Proxy, scale: int) -> Row:
    output = paths.WORK / f"smugglex-{name}.json"
    output.unlink(missing_ok=True)
    command = [tools.smugglex(), f"http://127.0.0.1:{proxy.http}/x", f"https://localhost:{proxy.tls}/x", "--insecure", "--format", "json",
               "--output", output, "--quiet", "--no-color", "--timeout", "3", "--checks", SMUGGLEX_CHECKS]
    if scale > 1:
        command += ["--max-payloads", max(2, 40 // scale)]
    run_program(command, seconds=1200, log=f"smugglex-{name}")
    found = json.loads(output.read_text())
    checks = [check for result in found["results"] for check in result["checks"]]
    hits = [f"{check['check_type']} (payload {check['payload_index']})" for check in checks if check["vulnerable"]]
    measured = f"{len(hits)} hits in {len(checks)} checks" + "".join(f"; {hit}" for hit in hits)
    return Row("smuggling", f"smugglex, all its checks, plain and TLS, upstream {name}", "0 hits", measured, not hits and bool(checks))


def versions() -> list[str]:
    return [report.version("nginx", "-v"), report.version("apache2", "-v"), "Node " + report.version("node", "--version"),
            report.version("gunicorn", "--version"), f"smugglex {tools.SMUGGLEX}",
            f"http_desync_guardian {tools.DESYNC_GUARDIAN}"]
