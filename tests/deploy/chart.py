"""The Helm chart: every combination of values in ci/ renders into sound manifests; bad values are refused with words."""

import json
import re

import yaml

import manifests
from kit import ALERTS, CHART, DASHBOARDS, ROOT, WRITE, documents, expect, load, program, run, text, version, wrong

EXTERNAL = {
    "cloakroom", "cloakroom-tls", "one-tls", "two-tls", "app-example-com-tls", "app-staging-tls", "cloakroom-secrets",
    "app-tls", "edge-settings", "edge-secrets", "default", "more", "ca",
}
# Values that must not pass, and a word of what is said.
REFUSED = {
    "a section that the chart writes": ("config: {admin: {address: '127.0.0.1:1'}}", "config.admin"),
    "sessions that replicas do not share": ("config: {providers: [{name: a}]}", "serves one replica"),
    "as many as the autoscaler may want": (
        "replicaCount: 1\nautoscaling: {enabled: true}\nconfig: {providers: [{name: a}]}", "serves one replica"),
    "a file that two processes would hold": ("replicaCount: 1\nconfig: {store: {kind: file}}", "Recreate"),
    "two sources of secrets": ("secret: {A: b}\nexistingSecret: c", "one of them"),
    "TLS without a certificate": ("listeners: {https: {certificates: []}}", "kubernetes.io/tls"),
    "an unknown value": ("replicaCuont: 3", "replicaCuont"),
    "an unknown value further down": ("service: {typ: NodePort}", "typ"),
    "a privileged port": ("listeners: {http: {port: 80}}", "minimum"),
    "a digest that is none": ("image: {digest: latest}", "digest"),
    "a number for a secret": ("secret: {A: 12345678901234567890}", "/secret/A"),
    "fewer at most than at least": ("autoscaling: {enabled: true, minReplicas: 5, maxReplicas: 4}", "minReplicas"),
    "two listeners on one port": ("listeners: {http: {port: 8443}}", "a port of its own"),
    "the admin listener on a public port": ("admin: {port: 8080}", "a port of its own"),
    "a key for all to read": ("config: {keys: [{id: '1', secret: MDEy}]}", "config.keys[0].secret"),
    "a seed for all to read": ("config: {proxy_token: {keys: [{id: '1', secret: MDEy}]}}", "config.proxy_token.keys[0].secret"),
    "a client's secret for all to read": (
        "config: {providers: [{name: a}, {client_auth: {secret: 1234}}], store: {kind: redis}}",
        "config.providers[1].client_auth.secret"),
    "a client's key for all to read": (
        "config: {providers: [{dpop: {key: PEM}}], store: {kind: redis}}", "config.providers[0].dpop.key"),
    "a password for all to read": ("config: {store: {kind: redis, url: 'rediss://:word@redis'}}", "config.store.url"),
    "a password further on": ("config: {store: {kind: postgres, url: 'postgres://a@db/c?password=word'}}", "config.store.url"),
}
# Values that look like those, and must pass.
TAKEN = {
    "a URL without a password": "config: {store: {kind: postgres, url: 'postgres://cloakroom@db.example.com:5432/cloakroom'}}",
    "secrets that are variables": (
        "config: {keys: [{id: '1', secret: '${KEY}'}], store: {kind: redis, url: 'redis://a:${WORD}@redis:6379'}}"),
    "a port that is not used": "listeners: {https: {enabled: false, port: 8080}}",
    "numbers of an autoscaler that is off": "autoscaling: {minReplicas: 5, maxReplicas: 4}",
}


def render(*more, stdin=None):
    helm = program("HELM", "helm")
    return run(helm, "template", "cloakroom", CHART, "--kube-version", "1.34.0", *more, input=stdin)


def rendered(values=None):
    code, output = render(*([] if values is None else ["--values", CHART / "ci" / f"{values}-values.yaml"]))
    if not expect(code == 0, f"chart, values {values}", output):
        return []
    return documents(output)


def check():
    copies()
    code, told = run(program("HELM", "helm"), "lint", "--strict", CHART)
    expect(code == 0, "helm lint", told)
    names = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
    for values in [None, *names]:
        found = rendered(values)
        manifests.check(f"chart, values {values or 'default'}", found, EXTERNAL)
        if values == "all":
            complete(found)
    for what, (values, word) in REFUSED.items():
        code, told = render("--values", "-", stdin=values)
        expect(code != 0 and word in told, f"chart: {what} is not refused with '{word}'", told[:400])
    for what, values in TAKEN.items():
        code, told = render("--values", "-", stdin=values)
        expect(code == 0, f"chart: {what} is refused", told[:400])
    pages()
    restarts()
    documented()
    chart = load(CHART / "Chart.yaml")
    expect(chart["appVersion"] == version(), "Chart.yaml", "appVersion is not the version in Cargo.toml")
    return len(names) + 1


def pages():
    """The values in the how-to pages."""
    for page in ("kubernetes", "replace-ingress-nginx"):
        blocks = re.findall(r"^```yaml\n(.*?)^```", text(ROOT / "docs" / "how-to" / f"{page}.md"), re.M | re.S)
        expect(blocks, page, "no values to try")
        for number, values in enumerate(blocks, 1):
            code, output = render("--values", "-", stdin=values)
            if expect(code == 0, f"{page}.md, block {number}", output):
                manifests.check(f"{page}.md, block {number}", documents(output), EXTERNAL)
                guarded(f"{page}.md, block {number}", yaml.safe_load(values))


def guarded(place, values):
    """Rules hold for their route alone: one below a route with rules, with the same application, has them too."""
    for site in values.get("config", {}).get("sites", []):
        for upper in site["routes"]:
            for lower in site["routes"]:
                below = f"{lower['path']}/".startswith(f"{upper['path'].rstrip('/')}/")
                same_place = lower.get("upstream") == upper.get("upstream") and lower.get("access") != "public"
                if "allow" in upper and below and same_place:
                    expect("allow" in lower, place, f"the route {lower['path']} is a way around `allow` of {upper['path']}")


def complete(found):
    kinds = {one["kind"] for one in found}
    wanted = {
        "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget", "PrometheusRule",
        "Secret", "Service", "ServiceAccount", "ServiceMonitor",
    }
    expect(wanted <= kinds, "chart, values all", f"no {wanted - kinds}")
    rule = next(one for one in found if one["kind"] == "PrometheusRule")
    expect(rule["spec"] == load(ALERTS), "chart, values all", "the PrometheusRule has not the alert rules")
    boards = {key for one in found if one["kind"] == "ConfigMap" for key in one["data"] if key.endswith(".json")}
    expect(boards == {path.name for path in DASHBOARDS.glob("*.json")}, "chart, values all", f"dashboards {boards}")
    for one in found:
        if one["kind"] == "ConfigMap":
            [json.loads(value) for key, value in one["data"].items() if key.endswith(".json")]


def restarts():
    """Pods are replaced for what holds after a restart, and not for what is read again while they run."""

    def checksum(values):
        code, output = render("--values", "-", stdin=values)
        expect(code == 0, "chart: checksum", output)
        return re.search(r"checksum/settings: (\w+)", output).group(1)

    plain = checksum("{}")
    live = "config: {trusted_proxies: [10.0.0.0/8], sites: [{hosts: ['*'], routes: [{path: /a, access: public, respond: {}}]}]}"
    expect(checksum(live) == plain, "chart", "new sites roll the pods, which read them by themselves")
    for section in ("config: {limits: {uri_length: 4KiB}}", "drain: {grace: 61}", "admin: {port: 9191}"):
        expect(checksum(section) != plain, "chart", f"{section}: no new pods, which would go on with the old settings")


def keys(values, path=""):
    for name, value in values.items():
        yield f"{path}{name}"
        # What stands deeper belongs to Kubernetes or to Cloakroom.
        if isinstance(value, dict) and value and f"{path}{name}" not in FREE:
            yield from keys(value, f"{path}{name}.")


FREE = {
    "config", "resources", "strategy", "podSecurityContext", "securityContext", "autoscaling.behavior",
    "metrics.dashboards.labels",
}


def documented():
    """Each value is known to the schema and to the README."""
    schema = json.loads(text(CHART / "values.schema.json"))
    readme = text(CHART / "README.md")
    told = set(re.findall(r"`([A-Za-z.]+)`", readme))
    for key in keys(load(CHART / "values.yaml")):
        node = schema
        for part in key.split("."):
            node = node.get("properties", {}).get(part)
            if not expect(node is not None, "values.schema.json", f"{key} is missing"):
                break
        parents = {key.rsplit(".", depth)[0] for depth in range(1, key.count(".") + 1)}
        children = any(one.startswith(f"{key}.") for one in told)
        expect(key in told or children or parents & told, "README.md of the chart", f"{key} is missing")


def copies():
    """A chart cannot reach out of its folder, so alert rules and dashboards lie there once more."""
    wanted = {CHART / "files" / "alerts.yaml": text(ALERTS)}
    for board in DASHBOARDS.glob("*.json"):
        wanted[CHART / "files" / "dashboards" / board.name] = text(board)
    there = [path for path in (CHART / "files").rglob("*") if path.is_file()]
    for path in there:
        if path not in wanted:
            path.unlink() if WRITE else wrong(path.name, "in files/ of the chart and nowhere else: make deploy-check WRITE=1")
    for path, content in wanted.items():
        same(path, content)


def same(path, content):
    if path.is_file() and text(path) == content:
        return
    if WRITE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    else:
        wrong(path, "not up to date: make deploy-check WRITE=1")
