#!/usr/bin/env bash
# deploy/compose/setup.sh - makes what nobody else should have: .env with fresh secrets, and generated/ with certificates
# of an authority of this folder's own. What is there already stays.
set -euo pipefail
cd "$(dirname "$0")"
umask 077

if ! [ -e .env ]; then
  random() { openssl rand -hex 24; }
  cat >.env <<END
HOST_USER=$(id -u):$(id -g)
CLOAKROOM_KEY=$(openssl rand -base64 32)
CLOAKROOM_ADMIN_TOKEN=$(random)
CLIENT_SECRET=$(random)
REDIS_PASSWORD=$(random)
KEYCLOAK_ADMIN_PASSWORD=$(random)
END
fi

mkdir -p generated/tls generated/keycloak
sed -n 's/^CLOAKROOM_ADMIN_TOKEN=//p' .env | tr -d '\n' >generated/admin-token

if ! [ -e generated/ca.crt ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 365 -subj '/CN=Cloakroom example authority' \
    -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
    -keyout generated/ca.key -out generated/ca.crt 2>/dev/null
  # issue NAME HOST FOLDER
  issue() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "/CN=$2" -keyout "$3/$1.key" 2>/dev/null |
      openssl x509 -req -days 365 -CA generated/ca.crt -CAkey generated/ca.key -CAcreateserial -out "$3/$1.crt" \
        -extfile <(printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth\n' "$2") 2>/dev/null
  }
  issue cloakroom localhost generated/tls
  issue keycloak keycloak.localhost generated/keycloak
  cp generated/ca.crt generated/tls/ca.crt
fi
# Keycloak runs as a user of its own image.
chmod 755 generated/keycloak
chmod 644 generated/keycloak/*
echo "ready: docker compose up --build --detach, then https://localhost:8443/ (alice, password alice)"
