"""Rules for rendered manifests, whoever rendered them: the schemas of Kubernetes, the restricted Pod Security Standard,
and that everything that names something else names what is there."""

import kubernetes_validate
import yaml

import settings
from kit import expect, seconds, wrong

KUBERNETES = "1.34"
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
OPERATOR = "monitoring.coreos.com/v1"


def check(place, manifests, external=()):
    """`external`: names of ConfigMaps, Secrets and service accounts that others make."""
    for manifest in manifests:
        schema(place, manifest)
    by_kind = {}
    for manifest in manifests:
        by_kind.setdefault(manifest["kind"], []).append(manifest)
    for deployment in by_kind.get("Deployment", []):
        pod = deployment["spec"]["template"]
        at = f"{place}: Deployment {deployment['metadata']['name']}"
        restricted(at, pod["spec"])
        sound(at, deployment)
        refers(at, pod, by_kind, external)
        selectors(place, pod["metadata"]["labels"], by_kind)
        text = file_of(pod["spec"], by_kind)
        if text is not None:
            fits(at, pod["spec"], yaml.safe_load(text))
            settings.check(at, text, allowed={"W0007"} if "token:" not in text else ())
    expect(len(by_kind.get("Deployment", [])) == 1, place, "one Deployment")


def schema(place, manifest):
    # Of the Prometheus operator there are no schemas here.
    if manifest["apiVersion"] == OPERATOR:
        expect(set(manifest) == {"apiVersion", "kind", "metadata", "spec"}, place, f"{manifest['kind']}: unknown fields")
        return
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        path = ".".join(str(part) for part in error.path)
        wrong(place, f"{manifest['kind']} {manifest['metadata']['name']}: {path}: {error.message}")


def restricted(place, pod):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        expect(not pod.get(field), place, f"{field} is set")
    for volume in pod.get("volumes", []):
        kinds = set(volume) - {"name"}
        expect(kinds <= VOLUMES, place, f"volume {volume['name']}: {kinds} is not allowed")
    shared = pod.get("securityContext", {})
    for container in pod.get("initContainers", []) + pod["containers"]:
        at = f"{place}: container {container['name']}"
        own = container.get("securityContext", {})
        both = shared | own
        expect(both.get("runAsNonRoot") is True, at, "runAsNonRoot is not set")
        expect(both.get("runAsUser") not in (0, None), at, "runAsUser is root, or left to the image")
        expect(both.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"), at, "no seccompProfile")
        expect(own.get("allowPrivilegeEscalation") is False, at, "allowPrivilegeEscalation is not false")
        expect(not own.get("privileged"), at, "privileged")
        expect(own.get("capabilities", {}).get("drop") == ["ALL"], at, "not all capabilities are dropped")
        expect(not own.get("capabilities", {}).get("add"), at, "capabilities are added")
        # Beyond the standard.
        expect(own.get("readOnlyRootFilesystem") is True, at, "the root filesystem can be written")
        for port in container.get("ports", []):
            expect("hostPort" not in port, at, "hostPort")
            expect(port["containerPort"] >= 1024, at, f"port {port['containerPort']} needs a capability")


def sound(place, deployment):
    pod = deployment["spec"]["template"]["spec"]
    expect(pod.get("automountServiceAccountToken") is False, place, "the pod gets a token of the API server")
    expect(pod.get("topologySpreadConstraints"), place, "no topologySpreadConstraints")
    for container in pod["containers"]:
        resources = container["resources"]
        expect({"cpu", "memory"} <= set(resources.get("requests", {})), place, "no requests for CPU and memory")
        expect("memory" in resources.get("limits", {}), place, "no limit on memory: the overload guard needs one")
        tag = container["image"].rsplit("/", 1)[-1]
        expect("@sha256:" in tag or (":" in tag and not tag.endswith(":latest")), place, f"image {tag} names no version")
        for probe, path in {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}.items():
            expect(container.get(probe, {}).get("httpGet") == {"path": path, "port": "admin"}, place, probe)
        mounts = [mount["name"] for mount in container["volumeMounts"]]
        volumes = [volume["name"] for volume in pod["volumes"]]
        expect(sorted(mounts) == sorted(volumes), place, f"mounts {mounts} of volumes {volumes}")
        expect(all("subPath" not in mount for mount in container["volumeMounts"]), place, "subPath hides changes")
        for volume in pod["volumes"]:
            mode = volume.get("secret", {}).get("defaultMode", 0o440)
            expect(mode & 0o007 == 0, place, f"secret {volume['name']}: everyone may read it, which Cloakroom refuses")
            if "secret" in volume:
                expect("defaultMode" in volume["secret"], place, f"secret {volume['name']}: 0644 unless said otherwise")
                expect(pod["securityContext"].get("fsGroup"), place, "no fsGroup for files of secrets")


def refers(place, pod, by_kind, external):
    """ConfigMaps, Secrets and the service account that the pod names."""
    spec = pod["spec"]
    there = {
        kind: {one["metadata"]["name"] for one in by_kind.get(kind, [])} | set(external)
        for kind in ("ConfigMap", "Secret", "ServiceAccount")
    }
    wanted = [("ServiceAccount", spec["serviceAccountName"])]
    for volume in spec["volumes"]:
        if "configMap" in volume:
            wanted.append(("ConfigMap", volume["configMap"]["name"]))
        if "secret" in volume:
            wanted.append(("Secret", volume["secret"]["secretName"]))
    for container in spec["containers"]:
        for source in container.get("envFrom", []):
            for field, kind in {"secretRef": "Secret", "configMapRef": "ConfigMap"}.items():
                if field in source:
                    wanted.append((kind, source[field]["name"]))
    for kind, name in wanted:
        expect(name in there[kind], place, f"{kind} {name} is neither here nor known to be made by others")


def covers(selector, labels):
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def selectors(place, labels, by_kind):
    """Each selector finds the pods, or the Service."""
    deployment = by_kind["Deployment"][0]
    ports = {port["name"] for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]}
    found = [("Deployment", deployment["spec"]["selector"]["matchLabels"])]
    for service in by_kind.get("Service", []):
        found.append((f"Service {service['metadata']['name']}", service["spec"]["selector"]))
        for port in service["spec"]["ports"]:
            expect(port["targetPort"] in ports, place, f"Service: no port {port['targetPort']} in the pods")
        inside = service["spec"]["type"] == "ClusterIP"
        admin = any(port["targetPort"] == "admin" for port in service["spec"]["ports"])
        expect(inside or not admin, place, f"Service {service['metadata']['name']} shows the admin port to the world")
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        for one in by_kind.get(kind, []):
            field = "selector" if kind == "PodDisruptionBudget" else "podSelector"
            found.append((kind, one["spec"][field].get("matchLabels")))
    for policy in by_kind.get("NetworkPolicy", []):
        for rule in policy["spec"]["ingress"]:
            names = {port["port"] for port in rule["ports"]}
            expect(names <= ports, place, f"NetworkPolicy: ports {names - ports}")
            expect("admin" not in names or rule.get("from"), place, "NetworkPolicy: the admin port is open to all pods")
    for who, selector in found:
        expect(covers(selector, labels), place, f"{who} does not select the pods: {selector}")
    for monitor in by_kind.get("ServiceMonitor", []):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        hit = [one for one in by_kind["Service"] if covers(wanted, one["metadata"]["labels"])]
        names = [port["name"] for one in hit for port in one["spec"]["ports"]]
        expect(names == ["admin"], place, f"ServiceMonitor finds the ports {names}")
    for scaler in by_kind.get("HorizontalPodAutoscaler", []):
        target = scaler["spec"]["scaleTargetRef"]["name"]
        expect(target == deployment["metadata"]["name"], place, f"autoscaler of {target}")
        expect("replicas" not in deployment["spec"], place, "replicas would undo what the autoscaler does")


def file_of(pod, by_kind):
    """The settings in the ConfigMap that the pod mounts, if it is here."""
    name = next(one["configMap"]["name"] for one in pod["volumes"] if one["name"] == "settings")
    maps = {one["metadata"]["name"]: one for one in by_kind.get("ConfigMap", [])}
    return maps[name]["data"]["cloakroom.yaml"] if name in maps else None


def fits(place, pod, found):
    """Ports, files and times of the settings are those of the pod."""
    container = pod["containers"][0]
    ports = {port["containerPort"] for port in container["ports"]}
    addresses = [one["address"] for one in found["listeners"]] + [found["admin"]["address"]]
    expect(ports == {int(one.rsplit(":", 1)[1]) for one in addresses}, place, f"ports {ports}, settings {addresses}")
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    for listener in found["listeners"]:
        for certificate in listener.get("tls", {}).get("certificates", []):
            for path in certificate.values():
                expect(path.rsplit("/", 1)[0] in mounts, place, f"{path} is mounted nowhere")
    # Readiness may fail for the first time right after SIGTERM.
    probe = container["readinessProbe"]
    lasts = (probe["failureThreshold"] - 1) * probe["periodSeconds"]
    lame_duck = seconds(found["shutdown"]["lame_duck"])
    expect(lasts >= lame_duck, place, f"not ready {lasts} s after SIGTERM, and so without traffic, but serving for {lame_duck:g} s")
    sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    least = sleep + lame_duck + seconds(found["shutdown"]["grace"]) + 5
    given = pod["terminationGracePeriodSeconds"]
    expect(given == least, place, f"terminationGracePeriodSeconds {given}, the drain takes {least:g}")
