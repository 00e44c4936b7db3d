"""The Kustomize folders say the same as the chart."""

import re

import yaml

import chart
import manifests
from kit import ALERTS, KUSTOMIZE, as_json, documents, expect, program, run, text

PAIRS = {"base": None, "overlays/staging": "staging", "overlays/production": "production"}
RULE = KUSTOMIZE / "components" / "monitoring" / "prometheusrule.yaml"
HEAD = """# Made from deploy/prometheus/alerts.yaml: `make deploy-check WRITE=1`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: cloakroom
spec:
"""


def check():
    rules = text(ALERTS)
    rules = rules[re.search(r"^groups:", rules, re.M).start():]
    chart.same(RULE, HEAD + "".join(f"  {line}" if line.strip() else line for line in rules.splitlines(True)))
    for folder, values in PAIRS.items():
        code, output = run(program("KUBECTL", "kubectl"), "kustomize", KUSTOMIZE / folder)
        if not expect(code == 0, folder, output):
            continue
        found = documents(output)
        manifests.check(f"kustomize, {folder}", found, chart.EXTERNAL)
        namespaces = [one["metadata"] for one in found if one["kind"] == "Namespace"]
        for one in namespaces:
            enforced = one["labels"].get("pod-security.kubernetes.io/enforce")
            expect(enforced == "restricted", folder, "the namespace does not enforce the restricted standard")
        in_step(folder, values, normal(found), normal(chart.rendered(values)))
    return len(PAIRS)


def in_step(folder, values, ours, theirs):
    place = f"kustomize, {folder}, against the chart with {values or 'default'} values"
    expect(set(ours) == set(theirs), place, f"not on both sides: {set(ours) ^ set(theirs)}")
    for key in sorted(set(ours) & set(theirs)):
        differ = list(differences(ours[key], theirs[key]))
        expect(not differ, place, f"{' '.join(key)}: " + "; ".join(differ))


def differences(ours, theirs, path=""):
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(set(ours) | set(theirs), key=str):
            yield from differences(ours.get(key), theirs.get(key), f"{path}.{key}")
    elif as_json(ours) != as_json(theirs):
        yield f"{path}: {as_json(ours)} here, {as_json(theirs)} there"


def normal(found):
    """Without what may differ: labels of Helm, the namespace, checksums, the order of volumes, the form of the YAML."""
    result = {}
    for one in found:
        if one["kind"] == "Namespace":
            continue
        meta = one["metadata"]
        meta.pop("namespace", None)
        plain(meta)
        if one["kind"] == "Deployment":
            pod = one["spec"]["template"]
            plain(pod["metadata"])
            pod["metadata"]["annotations"] = {
                key: value for key, value in pod["metadata"]["annotations"].items() if not key.startswith("checksum/")
            }
            pod["spec"]["volumes"].sort(key=lambda volume: volume["name"])
            for container in pod["spec"]["containers"]:
                container["volumeMounts"].sort(key=lambda mount: mount["name"])
        if one["kind"] == "ConfigMap":
            one["data"] = {key: yaml.safe_load(value) for key, value in one["data"].items()}
        result[one["kind"], meta["name"]] = one
    return result


def plain(meta):
    known = ("app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component")
    meta["labels"] = {key: value for key, value in meta.get("labels", {}).items() if key in known}
