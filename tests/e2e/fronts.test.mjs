// Envoy, Traefik and Caddy in front, which ask Cloakroom about each request and pass it on themselves; each as the
// documentation has it, before conf/forward-auth.yaml.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { call, fillForm, shoot } from './lib/browser.mjs';
import { fronts } from './lib/fronts.mjs';
import { client, useKeycloak } from './lib/keycloak.mjs';
import { ask, freePort, until } from './lib/net.mjs';
import { example } from './lib/servers.mjs';
import { SESSION, XSRF, openStage } from './lib/stage.mjs';
import { claimsOf } from './lib/upstream.mjs';

/** What clients may say of themselves or of their request, and what nobody believes. */
const lies = {
  'X-User-Id': 'root', 'X-User-Context': 'e30', Authorization: 'Bearer forged', 'X-Original-URL': 'https://localhost/public/x',
  'X-Original-Method': 'OPTIONS', 'X-Forwarded-Uri': '/public/x', 'X-Forwarded-Method': 'OPTIONS', 'X-Forwarded-Host': 'evil.example',
  'X-Forwarded-Proto': 'http', 'X-Forwarded-For': '192.0.2.1', 'X-Envoy-Original-Path': '/public/x',
};

describe('behind another proxy', { concurrency: false }, () => {
  let stage, keycloak, upstream, ca;
  const running = {};

  before(async () => {
    stage = await openStage('fronts');
    ({ upstream } = stage);
    ca = readFileSync(stage.tls.certificate);
    keycloak = await stage.keep(useKeycloak(stage.tls.certificate));
    const [browsers, forwarded, envoys] = [await freePort(), await freePort(), await freePort()];
    const ports = { traefik: await freePort(), caddy: await freePort(), envoy: await freePort() };
    const sites = Object.values(ports).map((port) => `https://localhost:${port}`);
    const settings = example('forward-auth.yaml', [
      ['0.0.0.0:8080', `127.0.0.1:${browsers}`],
      ['127.0.0.1:8081', `127.0.0.1:${forwarded}`],
      ['forward_auth: x_original', `forward_auth: x_forwarded\n  - { address: "127.0.0.1:${envoys}", forward_auth: ext_authz }`],
      ['https://id.example.com/realms/main', keycloak.issuer],
      ['app.internal:3000', `127.0.0.1:${upstream.port}`],
      ['https://app.example.com', sites.join(', ')],
      ['app.example.com', 'localhost'],
      ['    routes:\n', '    routes:\n      - { path: /told, upstream: app, context: read }\n'],
    ]);
    const more = `store: ${stage.store.settings}\nsession: { rotate_every: 3s, rotation_grace: 2s }\n`;
    await stage.raiseWith(`${settings}\n${more}`, { CLIENT_SECRET: client.secret });
    for (const [name, startFront] of Object.entries(fronts)) {
      const questions = name === 'envoy' ? envoys : forwarded;
      const places = { port: ports[name], app: upstream.port, browsers, questions, tls: stage.tls };
      running[name] = await stage.keep(startFront(places));
    }
  });

  after(() => stage?.close());

  for (const name of Object.keys(fronts)) {
    describe(name, { concurrency: false }, () => {
      let site;

      before(async () => {
        ({ site } = running[name]);
        await keycloak.moveClient(client.id, site);
      });

      /** A user at the front, with a tab. */
      async function anybody() {
        const it = await stage.user({}, site);
        return { ...it, page: await it.tab() };
      }

      async function loggedIn(user, path = '/') {
        const it = await anybody();
        await it.page.goto(`${site}${path}`);
        await fillForm(it.page, user);
        await it.page.waitForURL(`${site}${path}`);
        return it;
      }

      /** What a client without a session gets; it must not come to the application. */
      async function keptOut(path, options, statuses) {
        const before = upstream.seen.length;
        const answer = await ask(site, path, { ca, ...options });
        assert.ok(statuses.includes(answer.status), `${path}: ${answer.status} ${answer.text}`);
        assert.equal(upstream.seen.length, before, `${path} came to the application`);
        assert.equal(answer.headers.authorization, undefined);
        return answer;
      }

      test('without a session a page leads to the login, and a script gets 401', async () => {
        const { page } = await anybody();
        await page.goto(`${site}/public/start`);
        const before = upstream.seen.length;
        const answer = await call(page, '/api/me');
        assert.equal(answer.status, 401, answer.text);
        assert.equal(answer.headers['cloakroom-error'], 'session_missing');
        assert.equal(JSON.parse(answer.text).code, 'session_missing');
        await page.goto(`${site}/shop?item=7`);
        assert.ok(page.url().startsWith(keycloak.issuer), page.url());
        assert.equal(upstream.seen.length, before, 'the application was asked nothing');
      });

      test('with one the application gets the user’s token, and no ticket of ours', async () => {
        const { page, cookie } = await loggedIn('alice', '/shop?item=7');
        await shoot(page, `front-${name}`);
        assert.equal((await cookie(SESSION)).httpOnly, true);
        await page.evaluate(() => {
          document.cookie = 'theme=dark; path=/; secure';
        });
        const answer = await call(page, '/api/me?x=1');
        assert.equal(answer.status, 200, answer.text);
        assert.equal(answer.headers.authorization, undefined);
        const { headers, path } = stage.last('/api/me');
        assert.equal(path, '/api/me?x=1');
        assert.equal(claimsOf(headers).preferred_username, 'alice');
        assert.equal(headers['x-user-id'], claimsOf(headers).sub);
        assert.equal(headers.cookie, 'theme=dark');
        assert.equal((await call(page, '/admin/users')).status, 200);
        // A new ticket comes to the browser, and not to the application.
        const { value: old } = await cookie(SESSION);
        const ticket = await until('another ticket', async () => {
          assert.equal((await call(page, '/api/me')).status, 200);
          const { value, httpOnly, sameSite } = await cookie(SESSION);
          assert.deepEqual([httpOnly, sameSite], [true, 'Strict']);
          return value !== old && value;
        }, { seconds: 20, every: 500 });
        assert.equal((await call(page, '/api/me')).status, 200);
        for (const seen of upstream.seen) assert.ok(!JSON.stringify(seen.headers).includes(ticket));
      });

      test('nobody can say who they are, or what they ask for', async () => {
        const { page } = await loggedIn('bob');
        const sub = claimsOf(stage.last('/').headers).sub;
        for (const [header, value] of Object.entries(lies)) {
          await call(page, '/api/me', { headers: { [header]: value } });
          const { headers } = stage.last('/api/me');
          assert.deepEqual([claimsOf(headers).sub, headers['x-user-id'], headers['x-user-context']], [sub, sub, undefined], header);
          await keptOut('/api/me', { headers: { [header]: value } }, [401]);
        }
        for (const header of ['X_User_Id', 'X-User_Id', 'X_Forwarded_Uri']) {
          await keptOut('/api/me', { headers: { [header]: '/public/x' } }, [400, 401, 403]);
          const answer = await ask(site, '/public/x', { ca, headers: { [header]: '/public/x' } });
          assert.ok(answer.status !== 200 || stage.last('/public/x').headers[header.toLowerCase()] === undefined, `${header} came to the application`);
        }
        await call(page, '/told', { headers: { 'X-User-Context': lies['X-User-Context'] } });
        const context = stage.last('/told').headers['x-user-context'];
        assert.equal(JSON.parse(Buffer.from(context, 'base64url')).sub, sub);
        const answer = await ask(site, '/public/x', { ca, headers: lies });
        assert.equal(answer.status, 200, answer.text);
        const { headers } = stage.last('/public/x');
        assert.deepEqual([headers.authorization, headers['x-user-id'], headers['x-user-context']], [undefined, undefined, undefined]);
      });

      test('no spelling of a path opens another one', async () => {
        for (const path of ['/public/../api/me', '/public/..%2fapi/me', '//public/../api/me', '/public/%2e%2e/api/me', '/%61dmin/x', '/auth/../api/me', '/auth/..%2fapi/me', '/auth/check']) {
          await keptOut(path, { headers: { 'X-Original-URL': `${site}/public/x`, 'X-Original-Method': 'GET' } }, [301, 303, 307, 308, 400, 401, 403, 404]);
        }
      });

      test('no CONNECT over HTTP/1 is passed on as the handshake that it is judged as', async () => {
        const { cookie } = await loggedIn('bob');
        const { value } = await cookie(SESSION);
        const headers = {
          Cookie: `${SESSION}=${value}`, Origin: site, Upgrade: 'websocket', 'Sec-WebSocket-Version': '13',
          'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
        };
        await keptOut('/api/me', { method: 'CONNECT', headers }, [400, 403, 404, 405, 501]);
      });

      test('an unsafe method needs the CSRF token, and who lacks a role is kept out', async () => {
        const { page, cookie } = await loggedIn('bob');
        const before = upstream.seen.length;
        const refused = await call(page, '/api/orders', { method: 'POST', body: 'coat' });
        assert.equal(refused.status, 403, refused.text);
        assert.equal(refused.headers['cloakroom-error'], 'csrf_failed');
        const admin = await call(page, '/admin/users');
        assert.deepEqual([admin.status, admin.headers['cloakroom-error']], [403, 'rule_failed'], admin.text);
        assert.equal(upstream.seen.length, before, 'the application was asked nothing');
        const headers = { 'X-XSRF-TOKEN': decodeURIComponent((await cookie(XSRF)).value) };
        const good = await call(page, '/api/orders', { method: 'POST', headers, body: 'coat' });
        assert.equal(good.status, 200, good.text);
        assert.equal(stage.last('/api/orders').body, 'coat');
      });

      test('a logout ends it', async () => {
        const { page } = await loggedIn('alice');
        const redirect = await stage.logOut(page);
        assert.ok(redirect.startsWith(keycloak.issuer), redirect);
        await page.goto(redirect);
        await page.waitForURL((url) => url.origin === site && url.pathname === '/auth/logged-out');
        await page.goto(`${site}/public/start`);
        assert.equal((await call(page, '/api/me')).status, 401);
      });
    });
  }

  test('no browser was ever shown a token', () => stage.noTokenShown(upstream.tokens(), 60));

  test('nor did one get into the proxy’s log or metrics', () => stage.noneWritten(upstream.tokens()));
});
