"""Settings inside manifests are looked over by `cloakroom check` itself."""

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

from kit import expect, program, run, wrong

VARIABLES = {
    "CLOAKROOM_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    "CLOAKROOM_ADMIN_TOKEN": "a-token-for-tests",
    "CLIENT_SECRET": "a-secret-for-tests",
    "REDIS_URL": "redis://redis.redis.svc.cluster.local:6379",
    "POSTGRES_URL": "postgres://cloakroom@db.example.com/cloakroom",
}
# The admin listener without a token, where the values ask for that.
HARMLESS = {"W0007"}


def check(place, settings, allowed=()):
    """`settings` is the text of a file. Certificates that it names are made for the occasion."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        settings = re.sub(r"/var/lib/cloakroom", str(folder), settings)
        for name in set(re.findall(r"/etc/cloakroom/tls/([\w.-]+)/tls\.crt", settings)):
            certificate(folder / name / "tls.crt", folder / name / "tls.key")
        settings = settings.replace("/etc/cloakroom/tls", str(folder))
        for name in set(re.findall(r"certificate: tls/([\w-]+)\.crt", settings)):
            certificate(folder / "tls" / f"{name}.crt", folder / "tls" / f"{name}.key")
        if "ca: tls/ca.crt" in settings:
            certificate(folder / "tls" / "ca.crt", folder / "tls" / "ca.key")
        file = folder / "cloakroom.yaml"
        file.write_text(settings)
        code, told = run(
            program("CLOAKROOM_BIN", "cloakroom"), "check", "-c", file, "--format", "json", env=os.environ | VARIABLES
        )
    try:
        found = json.loads(told)
    except ValueError:
        wrong(place, f"cloakroom check, exit code {code}: {told}")
        return
    told = [one for one in found["diagnostics"] if one["code"] not in HARMLESS.intersection(allowed)]
    expect(not told and code == 0, place, f"cloakroom check: {json.dumps(told, indent=1)}")


def certificate(path, key):
    path.parent.mkdir(parents=True, exist_ok=True)
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    made += ["-days", "30", "-subj", "/CN=app.example.com", "-addext", "subjectAltName=DNS:app.example.com"]
    subprocess.run([*made, "-keyout", key, "-out", path], check=True, stderr=subprocess.DEVNULL)
    key.chmod(0o600)
