// Redis, the certificate and the proxy itself.
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join, resolve } from 'node:path';
import { client } from './keycloak.mjs';
import { logs, root, work } from './paths.mjs';
import { freePort } from './net.mjs';
import { start } from './process.mjs';

function run(command, args, options = {}) {
  const done = spawnSync(command, args, { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8', ...options });
  if (done.error) throw new Error(`${command} could not be started: ${done.error.message}`);
  if (done.status !== 0) throw new Error(`${command} ended with ${done.status}\n${done.stderr ?? ''}`);
}

/** A fresh self-signed certificate for localhost. */
export function makeCertificate() {
  mkdirSync(work, { recursive: true });
  const key = join(work, 'localhost.key');
  const certificate = join(work, 'localhost.crt');
  run('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
    '-keyout', key, '-out', certificate, '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost',
  ]);
  return { certificate, key };
}

/** Redis on a free port, nothing on disk. */
export async function startRedis() {
  const port = await freePort();
  const server = start(
    'Redis',
    'redis-server',
    ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no',
      '--maxmemory-policy', 'noeviction'],
    { cwd: work, log: join(logs, 'redis.log') },
  );
  await server.ready(() => ping(port), 20);
  return { url: `redis://127.0.0.1:${port}/0`, port, stop: () => server.stop() };
}

function ping(port) {
  return new Promise((done, failed) => {
    const socket = net.connect(port, '127.0.0.1', () => socket.write('PING\r\n'));
    socket.setTimeout(2000, () => socket.destroy(new Error('Redis does not answer')));
    socket.once('error', failed);
    socket.once('data', (data) => {
      socket.destroy();
      done(data.toString().startsWith('+PONG'));
    });
  });
}

/** The program under test: `CLOAKROOM_BIN`, or a development build made now. */
export function cloakroomBinary() {
  if (process.env.CLOAKROOM_BIN) return resolve(process.env.CLOAKROOM_BIN);
  console.log('e2e: building cloakroom (development profile) …');
  run('cargo', ['build', '--locked', '--bin', 'cloakroom'], { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  const binary = resolve(root, process.env.CARGO_TARGET_DIR ?? 'target', 'debug', 'cloakroom');
  if (!existsSync(binary)) throw new Error(`cargo built no ${binary}`);
  return binary;
}

/** Settings of the proxy between `site` (its port) and the upstream. */
function settings({ port, adminPort, tls, redis, issuer, upstreamPort }) {
  const text = JSON.stringify;
  return `# Written by the end-to-end test.
listeners:
  - address: 127.0.0.1:${port}
    tls: { certificates: [{ certificate: ${text(tls.certificate)}, key: ${text(tls.key)} }] }
admin: { address: "127.0.0.1:${adminPort}", token: { env: CLOAKROOM_ADMIN_TOKEN } }
keys: [{ id: e2e, secret: { env: CLOAKROOM_KEY } }]
store: { kind: redis, url: ${text(redis)} }
refresh: { minimum_lifetime: 2s }
providers:
  - name: keycloak
    kind: oidc
    issuer: ${text(issuer)}
    client_id: ${client.id}
    client_auth: { method: client_secret_basic, secret: { env: CLOAKROOM_CLIENT_SECRET } }
    scopes: [openid, profile, email]
upstreams:
  - name: app
    endpoints: ["127.0.0.1:${upstreamPort}"]
sites:
  - hosts: [localhost]
    provider: keycloak
    routes:
      - path: /api/
        upstream: app
        access: required
        token: { kind: access }
        identity_headers: { X-User-Id: sub, X-User-Name: preferred_username }
      - path: /public/
        upstream: app
        access: public
      - path: /
        upstream: app
        access: required
        identity_headers: { X-User-Id: sub, X-User-Name: preferred_username }
`;
}

/** Prepares the proxy: ports, settings file, secrets. `start` starts it, and may do so again after `stop`. */
export async function prepareProxy({ binary, port, tls, redis, issuer, upstreamPort }) {
  const adminPort = await freePort();
  const file = join(work, 'cloakroom.yaml');
  writeFileSync(file, settings({ port, adminPort, tls, redis, issuer, upstreamPort }));
  const env = {
    CLOAKROOM_KEY: randomBytes(32).toString('base64'),
    CLOAKROOM_CLIENT_SECRET: client.secret,
    CLOAKROOM_ADMIN_TOKEN: randomBytes(16).toString('hex'),
  };
  let server;
  let count = 0;
  return {
    admin: `http://127.0.0.1:${adminPort}`,
    adminToken: env.CLOAKROOM_ADMIN_TOKEN,
    get log() {
      return server?.log;
    },
    async start() {
      count += 1;
      server = start('cloakroom', binary, ['run', '-c', file], { env, log: join(logs, `cloakroom-${count}.log`) });
      await server.ready(async () => {
        const answer = await fetch(`http://127.0.0.1:${adminPort}/readyz`, { signal: AbortSignal.timeout(2000) });
        return answer.status === 200;
      }, 60);
    },
    stop: () => server?.stop(90),
  };
}
