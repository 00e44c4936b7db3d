// A real Keycloak on loopback: fetched once from Maven's repository, started in development mode with our realm.
//
//   node lib/keycloak.mjs fetch             only fetch it
//   node lib/keycloak.mjs [SITE-ORIGIN]     start it, log in once to prove it, keep it until Ctrl-C
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { logs, suite, work } from './paths.mjs';
import { start } from './process.mjs';
import { freePort, until } from './net.mjs';
import { logIn } from './form-login.mjs';

export const version = '26.7.4';
const home = join(work, `keycloak-${version}`);
const unpackPlugin = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1:unpack';

/** The client as `realm.json` has it. */
export const client = { id: 'cloakroom', secret: 'cloakroom-secret' };

/** Where the clients of `realm.json` are, until a test moves one. */
const nowhere = 'https://localhost:8443';

/** Fetches and unpacks the distribution unless it lies there already. */
export function fetchKeycloak() {
  if (existsSync(join(home, 'bin', 'kc.sh'))) return;
  console.log(`e2e: fetching Keycloak ${version} with Maven (about 180 MB, once) …`);
  const fresh = join(work, 'unpack');
  rmSync(fresh, { recursive: true, force: true });
  mkdirSync(fresh, { recursive: true });
  const maven = spawnSync(
    'mvn',
    [
      '--batch-mode', '-Dstyle.color=never', '--no-transfer-progress', '--quiet', unpackPlugin,
      `-Dartifact=org.keycloak:keycloak-quarkus-dist:${version}:zip`, `-DoutputDirectory=${fresh}`,
    ],
    // Outside the project, so that Maven's marker files land in the folder that is thrown away.
    { cwd: fresh, stdio: ['ignore', 'inherit', 'inherit'] },
  );
  if (maven.error) throw new Error(`mvn could not be started: ${maven.error.message}`);
  if (maven.status !== 0) throw new Error(`mvn ended with ${maven.status}`);
  // The rename comes last: a fetch that was cut off is never taken for a whole one.
  renameSync(join(fresh, `keycloak-${version}`), home);
  rmSync(fresh, { recursive: true, force: true });
}

/** The administrator of a Keycloak that lives as long as a test. */
const admin = { name: 'admin', password: 'admin' };

/** A call of Keycloak's administration, below the realm: what its console does. */
async function administer(origin, method, path, body) {
  const form = { grant_type: 'password', client_id: 'admin-cli', username: admin.name, password: admin.password };
  const signal = () => AbortSignal.timeout(10_000);
  const login = await fetch(`${origin}/realms/master/protocol/openid-connect/token`, {
    method: 'POST', body: new URLSearchParams(form), signal: signal(),
  });
  const { access_token: token } = await login.json();
  const answer = await fetch(`${origin}/admin/realms/cloakroom${path}`, {
    method,
    headers: { Authorization: `Bearer ${token}`, ...(body && { 'Content-Type': 'application/json' }) },
    body: body && JSON.stringify(body),
    signal: signal(),
  });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  const text = await answer.text();
  return text && JSON.parse(text);
}

/** Keycloak as tests see it, at `origin`. */
function handle(origin) {
  const call = (method, path, body) => administer(origin, method, path, body);
  return {
    origin,
    issuer: `${origin}/realms/cloakroom`,
    administer: call,
    /** Moves all URLs of a client of `realm.json` to `site`, the origin under test. */
    async moveClient(id, site) {
      const [found] = await call('GET', `/clients?clientId=${id}`);
      const moved = JSON.parse(JSON.stringify(found).replaceAll(/https:\/\/localhost:\d+/g, site));
      await call('PUT', `/clients/${found.id}`, moved);
    },
  };
}

/** The Keycloak that `run.mjs` starts for all files, or one of this file's own; it is ready. */
export async function useKeycloak(certificate) {
  const origin = process.env.E2E_KEYCLOAK;
  if (origin) {
    const it = handle(origin);
    // `run.mjs` watches over the start, and ends the tests if it fails.
    await until('Keycloak is ready', () => isReady(it), { seconds: 300, every: 200 });
    return { ...it, stop: async () => {} };
  }
  const keycloak = await startKeycloak(certificate);
  await keycloak.ready;
  return keycloak;
}

async function isReady({ issuer }) {
  const answer = await fetch(`${issuer}/.well-known/openid-configuration`, { signal: AbortSignal.timeout(5000) });
  return answer.ok && (await answer.json()).issuer === issuer;
}

/**
 * Starts Keycloak with the realm of `realm.json`; `ready` says when it answers. It trusts `certificate`, or it could not tell
 * sites of logouts.
 */
export async function startKeycloak(certificate) {
  fetchKeycloak();
  const port = await freePort();
  const origin = `http://127.0.0.1:${port}`;
  const imports = join(home, 'data', 'import');
  mkdirSync(imports, { recursive: true });
  copyFileSync(join(suite, 'realm.json'), join(imports, 'cloakroom-realm.json'));
  const begun = Date.now();
  const args = [
    'start-dev', '--import-realm', '--db=dev-mem', '--http-host=127.0.0.1', `--http-port=${port}`,
    `--hostname=${origin}`, ...(certificate ? [`--truststore-paths=${certificate}`] : []),
  ];
  const server = start('Keycloak', join(home, 'bin', 'kc.sh'), args, {
    log: join(logs, 'keycloak.log'),
    // The first compiler only: it starts sooner, and nobody measures this Keycloak's speed.
    env: {
      JAVA_OPTS_KC_HEAP: '-Xms64m -Xmx768m', JAVA_OPTS_APPEND: '-XX:TieredStopAtLevel=1',
      KC_BOOTSTRAP_ADMIN_USERNAME: admin.name, KC_BOOTSTRAP_ADMIN_PASSWORD: admin.password,
    },
  });
  const it = handle(origin);
  const ready = server.ready(() => isReady(it), 240).then(() => {
    console.log(`e2e: Keycloak was ready after ${((Date.now() - begun) / 1000).toFixed(1)} s`);
  });
  return { ...it, ready, stop: () => server.stop() };
}

/** Logs the user of `page` out on Keycloak's own page, in another tab. */
export async function logOutThere(page, issuer) {
  const tab = await page.context().newPage();
  await tab.goto(`${issuer}/protocol/openid-connect/logout`);
  await tab.locator('#kc-logout').click();
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const argument = process.argv[2];
  if (argument === 'fetch') {
    fetchKeycloak();
  } else {
    const site = argument ?? nowhere;
    const keycloak = await startKeycloak();
    await keycloak.ready;
    if (site !== nowhere) await keycloak.moveClient(client.id, site);
    const { code } = await logIn(keycloak.issuer, client, `${site}/auth/callback`, 'alice', 'alice');
    console.log(`e2e: at ${keycloak.issuer} alice's login through the form gave a code of ${code.length} characters; Ctrl-C ends it`);
  }
}
