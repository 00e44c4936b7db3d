// Who may do what: rules on the roles of a user, and programs that bring an access token of their own.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { call, logIn, shoot } from './lib/browser.mjs';
import { tokenRequest } from './lib/form-login.mjs';
import { client, useKeycloak } from './lib/keycloak.mjs';
import { fetchTrusting } from './lib/net.mjs';
import { quote } from './lib/servers.mjs';
import { XSRF, openStage } from './lib/stage.mjs';
import { claimsOf, tokenOf } from './lib/upstream.mjs';

const settings = (issuer) => `
providers:
  - name: keycloak
    issuer: ${quote(issuer)}
    client_id: ${client.id}
    client_auth: { method: client_secret_basic, secret: { env: CLOAKROOM_CLIENT_SECRET } }
sites:
  - hosts: [localhost]
    provider: keycloak
    bearer: { audiences: ["https://api.example.com"], types: [jwt] }
    routes:
      - path: /admin/
        upstream: app
        allow: [{ name: administrators, claim: realm_access.roles, any_of: [admin] }]
        identity_headers: { X-User-Name: preferred_username }
      - { path: /machines/, upstream: app, accept: [bearer] }
      - { path: /machines/orders/, upstream: app, accept: [bearer], scopes: [orders] }
      - { path: /, upstream: app, identity_headers: { X-User-Name: preferred_username } }
`;

describe('roles and programs', { concurrency: false }, () => {
  let stage, site, keycloak, upstream, fetch;

  before(async () => {
    stage = await openStage('roles');
    ({ site, upstream } = stage);
    fetch = fetchTrusting(readFileSync(stage.tls.certificate));
    keycloak = await stage.keep(useKeycloak(stage.tls.certificate));
    await keycloak.moveClient(client.id, site);
    await stage.raise(settings(keycloak.issuer), { CLOAKROOM_CLIENT_SECRET: client.secret });
  });

  after(() => stage?.close());

  async function loggedIn(name, path = '/') {
    const it = await stage.user();
    const page = await it.tab();
    await logIn(page, `${site}${path}`, name);
    return { ...it, page };
  }

  /** An access token that the program `id` fetches for itself. */
  async function programToken(id) {
    const answer = await tokenRequest(keycloak.issuer, { id, secret: `${id}-secret` }, { grant_type: 'client_credentials' });
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    return answer.body.access_token;
  }

  const bring = (path, token) =>
    fetch(`${site}${path}`, { headers: token ? { authorization: `Bearer ${token}` } : {}, signal: AbortSignal.timeout(10_000) });

  /** Brings `token` to `path` and is refused with `status` and `code`; the application hears nothing. */
  async function refused(path, token, status, code) {
    const before = upstream.seen.length;
    const answer = await bring(path, token);
    const text = await answer.text();
    assert.equal(answer.status, status, text);
    assert.match(answer.headers.get('content-type'), /^application\/problem\+json/);
    assert.equal(JSON.parse(text).code, code);
    assert.match(answer.headers.get('www-authenticate'), /^Bearer/);
    assert.equal(answer.headers.get('location'), null);
    assert.equal(upstream.seen.length, before, 'the application was asked nothing');
    return answer;
  }

  test('who has the role passes, by page and by script', async () => {
    const { page } = await loggedIn('alice', '/admin/users');
    assert.equal(await page.locator('#user').textContent(), 'alice');
    const answer = await call(page, '/admin/api');
    assert.equal(answer.status, 200, answer.text);
    assert.deepEqual(claimsOf(stage.last('/admin/api').headers).realm_access.roles.filter((role) => role === 'admin'), ['admin']);
  });

  test('who lacks it gets 403 with the rule’s name, and the application hears nothing', async () => {
    const { page, cookie } = await loggedIn('bob');
    const before = upstream.seen.length;
    const answer = await call(page, '/admin/api');
    assert.equal(answer.status, 403, answer.text);
    assert.match(answer.headers['content-type'], /^application\/problem\+json/);
    const problem = JSON.parse(answer.text);
    assert.equal(problem.status, 403);
    assert.equal(problem.code, 'rule_failed');
    assert.match(problem.detail, /administrators/);
    // Nothing that a client can say opens the route: no header, no other spelling of the path.
    const headers = { 'X-User-Name': 'alice', 'X-XSRF-TOKEN': decodeURIComponent((await cookie(XSRF)).value) };
    for (const [path, method] of [['/admin/api', 'POST'], ['/%61dmin/api', 'GET'], ['/x/..%2fadmin/api', 'GET'], ['//admin/api', 'GET']]) {
      const other = await call(page, `${site}${path}`, { method, headers });
      assert.ok([400, 403].includes(other.status), `${method} ${path}: ${other.status}`);
    }
    const shown = await page.goto(`${site}/admin/users`);
    assert.equal(shown.status(), 403);
    assert.match(await page.textContent('body'), /administrators/);
    await shoot(page, 'roles-kept-out');
    assert.equal(upstream.seen.length, before, 'the application was asked nothing');
    assert.equal((await page.goto(`${site}/`)).status(), 200, 'the rest of the site is open to bob');
  });

  test('a role that is taken away is gone with the next token', async () => {
    const [{ id }] = await keycloak.administer('GET', '/users?username=alice&exact=true');
    const admin = await keycloak.administer('GET', '/roles/admin');
    const { page } = await loggedIn('alice', '/admin/users');
    assert.equal((await call(page, '/api/me')).status, 200);
    const token = tokenOf(stage.last('/api/me').headers);
    await keycloak.administer('DELETE', `/users/${id}/role-mappings/realm`, [admin]);
    try {
      await stage.tokenChanges(page, '/api/me', token);
      const answer = await call(page, '/admin/api');
      assert.equal(answer.status, 403, answer.text);
      assert.equal(JSON.parse(answer.text).code, 'rule_failed');
    } finally {
      await keycloak.administer('POST', `/users/${id}/role-mappings/realm`, [admin]);
    }
  });

  test('a program passes with an access token of its own, and no session begins', async () => {
    const token = await programToken('machine');
    const answer = await bring('/machines/list', token);
    assert.equal(answer.status, 200, await answer.text());
    assert.deepEqual(answer.headers.getSetCookie(), []);
    const { headers } = stage.last('/machines/list');
    assert.equal(tokenOf(headers), token);
    assert.equal(claimsOf(headers).azp, 'machine');
  });

  test('a token for another API is refused', async () => {
    const answer = await refused('/machines/list', await programToken('stranger'), 401, 'token_invalid');
    assert.match(answer.headers.get('www-authenticate'), /error="invalid_token"/);
  });

  test('no token, a changed one, and one that is bare of the asked scope are refused', async () => {
    const token = await programToken('machine');
    await refused('/machines/list', undefined, 401, 'token_missing');
    const [head, body, signature] = token.split('.');
    const claims = JSON.parse(Buffer.from(body, 'base64url'));
    const forged = Buffer.from(JSON.stringify({ ...claims, sub: 'root' })).toString('base64url');
    await refused('/machines/list', `${head}.${forged}.${signature}`, 401, 'token_invalid');
    await refused('/machines/orders/1', token, 403, 'insufficient_scope');
  });

  test('the token of a user’s session is none that a client may bring', async () => {
    const { page } = await loggedIn('alice');
    assert.equal((await call(page, '/api/me')).status, 200);
    await refused('/machines/list', tokenOf(stage.last('/api/me').headers), 401, 'token_invalid');
    // Nor does the session's cookie open a route for programs.
    const answer = await call(page, '/machines/list');
    assert.equal(answer.status, 401);
    assert.equal(JSON.parse(answer.text).code, 'token_missing');
  });

  test('no browser was ever shown a token', () => stage.noTokenShown(upstream.tokens(), 30));

  test('nor did one get into the proxy’s log or metrics', () => stage.noneWritten(upstream.tokens()));
});
