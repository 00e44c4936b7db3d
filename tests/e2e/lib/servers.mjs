// Redis, the certificate and the proxy itself.
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join, resolve } from 'node:path';
import { logs, root, work } from './paths.mjs';
import { freePort } from './net.mjs';
import { start } from './process.mjs';

function run(command, args, options = {}) {
  const done = spawnSync(command, args, { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8', ...options });
  if (done.error) throw new Error(`${command} could not be started: ${done.error.message}`);
  if (done.status !== 0) throw new Error(`${command} ended with ${done.status}\n${done.stderr ?? ''}`);
}

/** A self-signed certificate for localhost: the one that `run.mjs` has made for all files, or a fresh one. */
export function siteCertificate() {
  mkdirSync(work, { recursive: true });
  const key = join(work, 'localhost.key');
  const certificate = join(work, 'localhost.crt');
  if (process.env.E2E_KEYCLOAK) return { certificate, key };
  run('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
    '-keyout', key, '-out', certificate, '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost',
  ]);
  return { certificate, key };
}

/** Redis on a free port, nothing on disk. */
export async function startRedis(name) {
  const port = await freePort();
  const server = start(
    'Redis',
    'redis-server',
    ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no',
      '--maxmemory-policy', 'noeviction'],
    { cwd: work, log: join(logs, `${name}-redis.log`) },
  );
  await server.ready(() => ping(port), 20);
  const url = `redis://127.0.0.1:${port}/0`;
  return { settings: `{ kind: redis, url: ${quote(url)}, command_timeout: 2s }`, port, stop: () => server.stop() };
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

/** A fresh private key for a client that proves itself with one, EC P-256 in PEM; in the place of one that was there. */
export function makeClientKey(name) {
  const file = join(work, `${name}.pem`);
  const fresh = `${file}.new`;
  run('openssl', ['genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', fresh]);
  // Cloakroom refuses keys that everybody may read.
  chmodSync(fresh, 0o600);
  renameSync(fresh, file);
  return file;
}

/**
 * What all settings files of the tests have in common. On a busy machine a store may take its time: hence `command_timeout` in
 * `store`.
 */
const common = (adminPort) => `
admin: { address: "127.0.0.1:${adminPort}", token: { env: CLOAKROOM_ADMIN_TOKEN } }
refresh: { minimum_lifetime: 2s }
shutdown: { lame_duck: 0s }
`;

/** The listener of a test's site, as an entry of `listeners`. */
export const listener = (port, tls) =>
  `{ address: "127.0.0.1:${port}", tls: { certificates: [{ certificate: ${quote(tls.certificate)}, key: ${quote(tls.key)} }] } }`;

/** Settings with one listener and one upstream; `rest` are the providers and sites. */
export const settings = ({ port, tls, store, upstreamPort, rest }) => `# Written by the end-to-end test.
listeners:
  - ${listener(port, tls)}
keys: [{ id: e2e, secret: { env: CLOAKROOM_KEY } }]
store: ${store}
upstreams:
  - name: app
    endpoints: ["127.0.0.1:${upstreamPort}"]
${rest}`;

/** A file of `conf`, with other words in some places. Each has to be there, or the test would run something else. */
export function example(file, swaps) {
  let text = readFileSync(join(root, 'conf', file), 'utf8');
  for (const [placeholder, value] of swaps) {
    if (!text.includes(placeholder)) throw new Error(`conf/${file} has no ${placeholder}`);
    text = text.replaceAll(placeholder, value);
  }
  return text;
}

/** The first block of `mark` in a page of the documentation. */
export function block(page, mark) {
  const found = readFileSync(join(root, 'docs', page), 'utf8').split(`\`\`\`${mark}\n`)[1]?.split('```')[0];
  if (!found) throw new Error(`docs/${page} has no block of ${mark}`);
  return found;
}

/** `text` as YAML has it. */
export const quote = (text) => JSON.stringify(text);

/**
 * Prepares the proxy: settings file, secrets. `start` starts it, and may do so again after `stop`. `name` tells its files from
 * those of other tests, `secrets` are environment variables that its settings name.
 */
export async function prepareProxy({ name, binary, settings, secrets }) {
  const adminPort = await freePort();
  const file = join(work, `${name}.yaml`);
  writeFileSync(file, settings + common(adminPort));
  const env = {
    CLOAKROOM_KEY: randomBytes(32).toString('base64'),
    CLOAKROOM_ADMIN_TOKEN: randomBytes(16).toString('hex'),
    ...secrets,
  };
  const written = [];
  let server;
  return {
    admin: `http://127.0.0.1:${adminPort}`,
    adminToken: env.CLOAKROOM_ADMIN_TOKEN,
    secrets: Object.values(env),
    /** The files of everything it has logged, one a start. */
    logs: written,
    /** The text of its metrics. */
    async metrics() {
      const answer = await fetch(`http://127.0.0.1:${adminPort}/metrics`, {
        headers: { authorization: `Bearer ${env.CLOAKROOM_ADMIN_TOKEN}` },
      });
      if (!answer.ok) throw new Error(`metrics: ${answer.status}`);
      return answer.text();
    },
    async start() {
      const log = join(logs, `${name}-${written.length + 1}.log`);
      written.push(log);
      server = start('cloakroom', binary, ['run', '-c', file], { env, log });
      await server.ready(async () => {
        const answer = await fetch(`http://127.0.0.1:${adminPort}/readyz`, { signal: AbortSignal.timeout(2000) });
        return answer.status === 200;
      }, 60);
    },
    stop: () => server?.stop(90),
  };
}
