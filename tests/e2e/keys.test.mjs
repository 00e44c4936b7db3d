// A client without a secret: Cloakroom proves itself to Keycloak with a key whose public half Keycloak fetches from the site,
// and pushes its login requests there. Keycloak takes nothing else from this client.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { call, fillForm, logIn, shoot } from './lib/browser.mjs';
import { tokenRequest } from './lib/form-login.mjs';
import { logOutThere, useKeycloak } from './lib/keycloak.mjs';
import { until } from './lib/net.mjs';
import { makeClientKey, quote } from './lib/servers.mjs';
import { SESSION, expiryOf, openStage } from './lib/stage.mjs';
import { claimsOf, tokenOf } from './lib/upstream.mjs';

const CLIENT = 'cloakroom-keys';

const settings = (issuer, key) => `
providers:
  - name: keycloak
    issuer: ${quote(issuer)}
    client_id: ${CLIENT}
    client_auth: { method: private_key_jwt, keys: [{ key: ${quote(key)} }] }
    pushed_authorization: require
sites:
  - hosts: [localhost]
    provider: keycloak
    routes:
      - { path: /public/, upstream: app, access: public }
      - { path: /, upstream: app, identity_headers: { X-User-Name: preferred_username } }
`;

describe('with a key in place of a secret', { concurrency: false }, () => {
  let stage, site, keycloak, upstream;

  before(async () => {
    stage = await openStage('keys');
    ({ site, upstream } = stage);
    keycloak = await stage.keep(useKeycloak(stage.tls.certificate));
    await keycloak.moveClient(CLIENT, site);
    await stage.raise(settings(keycloak.issuer, makeClientKey('client')));
  });

  after(() => stage?.close());

  async function loggedIn(name, path = '/') {
    const it = await stage.user();
    const page = await it.tab();
    await logIn(page, `${site}${path}`, name);
    return { ...it, page };
  }

  test('the provider takes no secret from this client', async () => {
    const form = { grant_type: 'authorization_code', code: 'x', redirect_uri: `${site}/auth/callback` };
    const answer = await tokenRequest(keycloak.issuer, { id: CLIENT, secret: 'cloakroom-secret' }, form);
    assert.ok(answer.status === 400 || answer.status === 401, `status ${answer.status}`);
    assert.match(answer.body.error, /^(invalid|unauthorized)_client$/);
  });

  test('nor a login request that was not pushed', async () => {
    const query = new URLSearchParams({
      client_id: CLIENT, redirect_uri: `${site}/auth/callback`, response_type: 'code', scope: 'openid', state: 's',
      code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM', code_challenge_method: 'S256',
    });
    const answer = await fetch(`${keycloak.issuer}/protocol/openid-connect/auth?${query}`, { redirect: 'manual' });
    const location = new URL(answer.headers.get('location'));
    assert.equal(location.origin, site);
    assert.equal(location.searchParams.get('error'), 'invalid_request');
    assert.equal(location.searchParams.get('code'), null);
  });

  /** What is published of the client's keys. */
  async function published(page) {
    const answer = await call(page, '/auth/client-jwks.json');
    assert.equal(answer.status, 200, answer.text);
    return JSON.parse(answer.text).keys;
  }

  test('the public key is there to be fetched, and nothing of the private one', async () => {
    const page = await (await stage.user()).tab();
    await page.goto(`${site}/public/start`);
    const keys = await published(page);
    assert.equal(keys.length, 1);
    assert.equal(keys[0].kty, 'EC');
    assert.equal(keys[0].alg, 'ES256');
    assert.ok(keys[0].kid && keys[0].x && keys[0].y);
    assert.equal(keys[0].d, undefined);
  });

  test('a login shows the browser a reference in place of what is asked', async () => {
    const alice = await stage.user();
    const page = await alice.tab();
    const asked = [];
    page.on('request', (request) => asked.push(new URL(request.url())));
    const deep = `${site}/shop/cart?item=7`;
    await page.goto(deep);
    await shoot(page, 'keys-login-form');
    await fillForm(page, 'alice');
    await page.waitForURL(deep);
    assert.equal(await page.locator('#user').textContent(), 'alice');
    const begun = asked.filter(({ origin, pathname }) => origin === keycloak.origin && pathname.endsWith('/auth'));
    assert.equal(begun.length, 1);
    const { searchParams } = begun[0];
    assert.deepEqual([...searchParams.keys()].sort(), ['client_id', 'request_uri']);
    assert.match(searchParams.get('request_uri'), /^urn:ietf:params:oauth:request_uri:/);
    assert.match(
      await stage.proxy.metrics(),
      /cloakroom_idp_requests_total\{endpoint="pushed_authorization",provider="keycloak",result="ok"\} [1-9]/,
    );
  });

  test('a refresh is proved with the key', async () => {
    const { page, cookie } = await loggedIn('alice');
    await call(page, '/api/tick');
    const ticket = (await cookie(SESSION)).value;
    await stage.tokenChanges(page, '/api/tick', tokenOf(stage.last('/api/tick').headers));
    const claims = claimsOf(stage.last('/api/tick').headers);
    assert.equal(claims.preferred_username, 'alice');
    assert.equal(claims.azp, CLIENT);
    assert.equal((await cookie(SESSION)).value, ticket);
  });

  test('logout ends the session here and at the provider', async () => {
    const { page, cookie } = await loggedIn('alice');
    await call(page, '/api/me');
    const redirect = await stage.logOut(page);
    assert.ok(redirect.startsWith(keycloak.issuer), redirect);
    await page.goto(redirect);
    await page.waitForURL((url) => url.origin === site && url.pathname === '/auth/logged-out');
    assert.match(await page.textContent('body'), /You are logged out/);
    assert.equal(await cookie(SESSION), undefined);
    await page.goto(`${site}/`);
    await page.locator('#kc-login').waitFor();
    assert.ok(page.url().startsWith(keycloak.issuer), 'the provider asks for the password again');
  });

  test('a logout at the provider ends the session here at once', async () => {
    const { page } = await loggedIn('alice');
    const bystander = await loggedIn('bob');
    const token = await stage.freshToken(page);
    await logOutThere(page, keycloak.issuer);
    await stage.endsAtOnce(page, expiryOf(token));
    assert.equal((await call(bystander.page, '/api/me')).status, 200, 'and nobody else’s');
  });

  test('another key in the file is taken up without a restart, and the provider fetches it', async () => {
    const { page } = await loggedIn('bob');
    await call(page, '/api/me');
    const token = tokenOf(stage.last('/api/me').headers);
    const [{ kid }] = await published(page);
    makeClientKey('client');
    await until('the new key is published', async () => (await published(page))[0].kid !== kid);
    // The next refresh is proved with it; Keycloak knows nothing of it until then.
    await stage.tokenChanges(page, '/api/me', token);
    assert.equal((await published(page)).length, 1);
    await loggedIn('alice');
  });

  test('no browser was ever shown a token', () => stage.noTokenShown(upstream.tokens(), 30));

  test('nor did one get into the proxy’s log or metrics', () => stage.noneWritten(upstream.tokens()));
});
