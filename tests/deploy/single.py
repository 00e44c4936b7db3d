"""What runs without Kubernetes: the image, the Compose example, the systemd units, the alert rules."""

import re
import shutil
import tempfile
from pathlib import Path

import compose_spec
import yaml

import settings
from kit import ALERTS, DASHBOARDS, DEPLOY, ROOT, expect, load, program, run, seconds, text, version, wrong

# 0 to 100; 14 on 2026-11-29.
EXPOSURE = 15


def image():
    file = DEPLOY / "docker" / "Dockerfile"
    code, told = run(program("HADOLINT", "hadolint"), "--no-color", file)
    expect(code == 0, "Dockerfile", told)
    last = text(file).split("\nFROM ")[-1]
    expect(re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.M), "Dockerfile", "the image must end as a user by number")
    expect(":nonroot" in last.splitlines()[0], "Dockerfile", "the last stage is not the one for nobody in particular")
    expect("HEALTHCHECK" in last and '"healthcheck"' in last, "Dockerfile", "no HEALTHCHECK by the program itself")
    expect("\nRUN " not in last, "Dockerfile", "there is no shell in the last stage")
    rust = re.search(r"^ARG RUST=([\d.]+)", text(file), re.M).group(1)
    oldest = re.search(r'^rust-version = "(.*)"', text(ROOT / "Cargo.toml"), re.M).group(1)
    expect(number(rust) >= number(oldest), "Dockerfile", f"Rust {rust} is older than {oldest}")
    # Whatever the package needs to be built is let through.
    through = set(re.findall(r"^!(\S+)", text(ROOT / ".dockerignore"), re.M))
    wanted = {"Cargo.toml", "Cargo.lock", "src", "askama.toml", "LICENSE"}
    wanted |= {path.split("/")[0] for path in re.findall(r'^path = "(.*)"', text(ROOT / "Cargo.toml"), re.M)}
    wanted |= {"benches"} if "[[bench]]" in text(ROOT / "Cargo.toml") else set()
    expect(wanted <= through, ".dockerignore", f"keeps {wanted - through} from the build")


def number(words):
    return [int(part) for part in words.split(".")]


def compose():
    folder = DEPLOY / "compose"
    source = text(folder / "compose.yaml")
    found = yaml.safe_load(source)
    try:
        strict = {key: value for key, value in found.items() if not key.startswith("x-")}
        compose_spec.ComposeSpecification.model_validate(strict, extra="forbid")
    except ValueError as error:
        wrong("compose.yaml", str(error))
    for name, service in found["services"].items():
        expect(re.search(r":v?\d", service["image"]), "compose.yaml", f"{name}: image without a version")
        for mount in service.get("volumes", []):
            path = mount.split(":")[0]
            if path.startswith(".") and "generated" not in path:
                expect((folder / path).exists(), "compose.yaml", f"{name}: there is no {path}")
        for published in service.get("ports", []):
            expect(published.startswith("127.0.0.1:"), "compose.yaml", f"{name}: {published} is open to the network")
        for other in service.get("depends_on", {}):
            expect(other in found["services"], "compose.yaml", f"{name} depends on {other}")
    edge = found["services"]["cloakroom"]
    expect(edge["image"] == f"cloakroom:{version()}", "compose.yaml", "not the version in Cargo.toml")
    expect(edge["deploy"]["replicas"] == 2, "compose.yaml", "two replicas")
    expect(seconds(edge["stop_grace_period"]) >= drain(), "compose.yaml", "stop_grace_period is shorter than the drain")
    made = set(re.findall(r"^([A-Z_]+)=", text(folder / "setup.sh"), re.M))
    used = set(re.findall(r"\$\{([A-Z_]+)", source))
    expect(used <= made, "compose.yaml", f"setup.sh makes no {used - made}")
    file = text(folder / "cloakroom.yaml")
    settings.check("compose/cloakroom.yaml", file)
    balancer = found["services"]["balancer"]["networks"]["edge"]["ipv4_address"]
    expect(yaml.safe_load(file)["trusted_proxies"] == [balancer], "compose/cloakroom.yaml", "trusts another balancer")
    realm = load(folder / "keycloak" / "realm.json")
    provider = yaml.safe_load(file)["providers"][0]
    expect(provider["issuer"].endswith(f"/realms/{realm['realm']}"), "compose", "issuer and realm differ")
    expect(provider["client_id"] == realm["clients"][0]["clientId"], "compose", "client_id and realm differ")
    expect(provider["issuer"].startswith(found["services"]["keycloak"]["environment"]["KC_HOSTNAME"]), "compose", "issuer")
    with tempfile.TemporaryDirectory() as copy:
        copy = Path(copy)
        shutil.copy(ALERTS, copy)
        (copy / "admin-token").write_text("x")
        scrape = text(folder / "prometheus.yml").replace("/etc/prometheus", str(copy))
        (copy / "prometheus.yml").write_text(scrape)
        code, told = run(program("PROMTOOL", "promtool"), "check", "config", copy / "prometheus.yml")
    expect(code == 0, "compose/prometheus.yml", told)


def drain():
    """lame_duck and grace by default, as the reference has them, and five seconds."""
    reference = text(ROOT / "docs" / "reference" / "settings.md")
    times = [re.search(rf"^\| `{key}` \| [^|]* \| `(\w+)` \|", reference, re.M).group(1) for key in ("lame_duck", "grace")]
    return sum(map(seconds, times)) + 5


def systemd():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name in ("cloakroom.service", "cloakroom.socket"):
            # The program need not be installed here.
            (folder / name).write_text(text(DEPLOY / "systemd" / name).replace("/usr/bin/cloakroom", "/bin/true"))
        service = folder / "cloakroom.service"
        code, told = run("systemd-analyze", "verify", service, folder / "cloakroom.socket")
        ours = [line for line in told.splitlines() if "cloakroom" in line]
        expect(code == 0 and not ours, "systemd-analyze verify", told)
        code, told = run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", service)
        expect(code == 0, "systemd-analyze security", told[-200:])
    unit = text(DEPLOY / "systemd" / "cloakroom.service")
    stop = re.search(r"^TimeoutStopSec=(.*)$", unit, re.M).group(1)
    expect(seconds(stop) >= drain(), "cloakroom.service", "TimeoutStopSec is shorter than the drain")


def alerts():
    code, told = run(program("PROMTOOL", "promtool"), "check", "rules", ALERTS)
    expect(code == 0, "alerts.yaml", told)
    for tests in ALERTS.parent.glob("*test*.yaml"):
        code, told = run(program("PROMTOOL", "promtool"), "test", "rules", tests)
        expect(code == 0, tests.name, told)
    known = set(re.findall(r"`(cloakroom_\w+)`", text(ROOT / "docs" / "reference" / "metrics.md")))
    known |= {f"{name}_{part}" for name in known for part in ("bucket", "sum", "count")}
    for path in [ALERTS, *DASHBOARDS.glob("*.json")]:
        used = set(re.findall(r"\bcloakroom_[a-z0-9_]+", text(path)))
        expect(used <= known, path.name, f"no such metric: {sorted(used - known)}")
    for group in load(ALERTS)["groups"]:
        for rule in group["rules"]:
            for page in re.findall(r"docs/[\w/.-]+\.md", str(rule.get("annotations", {}))):
                expect((ROOT / page).is_file(), "alerts.yaml", f"there is no {page}")
