#!/usr/bin/env bash
# scripts/testssl.sh [PROGRAM] - runs testssl.sh against a TLS listener of Cloakroom on loopback.
#
# Prints what is graded above INFO and fails if anything is above LOW. Left out is what comes from the throwaway authority
# that signs the certificate here, and what is about answers and not about TLS. PROGRAM is the binary; default: the one that `cargo build` makes.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/need.sh testssl openssl jq

program=${1:-}
if [ -z "$program" ]; then
  cargo build --locked
  program=target/debug/cloakroom
fi
folder=$(mktemp -d)
server=
finish() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$folder"
}
trap finish EXIT

for name in ca app; do
  openssl ecparam -name prime256v1 -genkey -noout -out "$folder/$name.key"
done
openssl req -x509 -new -key "$folder/ca.key" -days 90 -subj /CN=hardening-ca -out "$folder/ca.crt"
openssl req -new -key "$folder/app.key" -subj /CN=localhost -out "$folder/app.csr"
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\nkeyUsage=digitalSignature\n' >"$folder/ext"
openssl x509 -req -in "$folder/app.csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -CAcreateserial -days 90 \
  -extfile "$folder/ext" -out "$folder/app.crt" 2>/dev/null
chmod 600 "$folder"/*.key

port=${PORT:-18443}
cat >"$folder/cloakroom.yaml" <<YAML
listeners:
  - address: 127.0.0.1:$port
    tls: { certificates: [{ certificate: app.crt, key: app.key }] }
keys: [{ id: hardening, secret: { env: CLOAKROOM_KEY } }]
upstreams: [{ name: none, endpoints: ["127.0.0.1:9"] }]
sites: [{ hosts: [localhost, 127.0.0.1], routes: [{ path: /, upstream: none, access: public }] }]
YAML
CLOAKROOM_KEY=$("$program" keygen) "$program" run -c "$folder/cloakroom.yaml" >"$folder/log" &
server=$!
for _ in $(seq 100); do
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
  sleep 0.1
done

testssl --quiet --color 0 --warnings off --ip 127.0.0.1 --sneaky --jsonfile "$folder/found.json" --add-ca "$folder/ca.crt" \
  "localhost:$port" >"$folder/report" || true
[ -s "$folder/found.json" ] || { cat "$folder/report" "$folder/log" >&2; exit 1; }

# What an authority of its own cannot have, what an application says, and an OpenSSL here without GOST.
left_out='^(engine_problem|cert_crlDistributionPoints|cert_ocspURL|cert_revocation|cert_notRevoked|DNS_CAArecord|HTTP_.*|HSTS.*|security_headers|.*[Bb]anner.*)'
jq -r --arg left_out "$left_out" \
  '.[] | select(.severity | IN("OK", "INFO", "DEBUG") | not) | select(.id | test($left_out) | not) | "\(.severity)\t\(.id)\t\(.finding)"' \
  "$folder/found.json" | sort -u | tee "$folder/open"
if grep -qE '^(MEDIUM|HIGH|CRITICAL|FATAL|WARN)' "$folder/open"; then
  echo "testssl: findings above LOW" >&2
  exit 1
fi
echo "testssl: nothing above LOW"
