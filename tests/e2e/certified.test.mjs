// Another provider than Keycloak, with other habits: oidc-provider gives opaque access tokens, says who the user is at
// UserInfo alone, and ends a whole login when a refresh token is shown again. The client has a key, must push its requests, and
// has answers to logins posted.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { call, shoot } from './lib/browser.mjs';
import { askForTokens, fillCertified, lifetime, logInByHand, startCertified } from './lib/certified.mjs';
import { fetchTrusting, until } from './lib/net.mjs';
import { makeClientKey, quote } from './lib/servers.mjs';
import { SESSION, openStage } from './lib/stage.mjs';
import { tokenOf } from './lib/upstream.mjs';

const settings = (issuer, key) => `
providers:
  - name: certified
    issuer: ${quote(issuer)}
    client_id: cloakroom
    client_auth: { method: private_key_jwt, keys: [{ key: ${quote(key)} }] }
    pushed_authorization: require
    response_mode: form_post
    userinfo: merge
sites:
  - hosts: [localhost]
    provider: certified
    routes:
      - { path: /public/, upstream: app, access: public }
      - { path: /, upstream: app, identity_headers: { X-User-Id: sub, X-User-Name: preferred_username } }
`;

describe('at a certified provider', { concurrency: false }, () => {
  let stage, site, provider, upstream;
  const probe = { id: 'probe', secret: 'probe-secret', redirect: 'http://127.0.0.1:9/probe' };

  before(async () => {
    stage = await openStage('certified');
    ({ site, upstream } = stage);
    const cloakroom = {
      client_id: 'cloakroom',
      token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_signing_alg: 'ES256',
      jwks_uri: `${site}/auth/client-jwks.json`,
      require_pushed_authorization_requests: true,
      grant_types: ['authorization_code', 'refresh_token'],
      redirect_uris: [`${site}/auth/callback`],
      post_logout_redirect_uris: [`${site}/auth/logged-out`],
      backchannel_logout_uri: `${site}/auth/backchannel-logout`,
      backchannel_logout_session_required: true,
    };
    const other = {
      client_id: probe.id, client_secret: probe.secret, redirect_uris: [probe.redirect],
      grant_types: ['authorization_code', 'refresh_token'],
    };
    provider = await stage.keep(startCertified([cloakroom, other], fetchTrusting(readFileSync(stage.tls.certificate))));
    await stage.raise(settings(provider.issuer, makeClientKey('certified')));
  });

  after(() => stage?.close());

  async function loggedIn(name, path = '/') {
    const it = await stage.user();
    const page = await it.tab();
    await page.goto(`${site}${path}`);
    await fillCertified(page, name);
    await page.waitForURL(`${site}${path}`);
    return { ...it, page };
  }

  test('the provider rotates strictly: a refresh token that is shown again ends the login', async () => {
    const page = await (await stage.user()).tab();
    const refresh = (token) =>
      askForTokens(provider.issuer, probe, { grant_type: 'refresh_token', refresh_token: token });
    const first = await logInByHand(page, provider.issuer, probe, 'bob');
    assert.equal(first.status, 200, JSON.stringify(first.body));
    const second = await refresh(first.body.refresh_token);
    assert.equal(second.status, 200, JSON.stringify(second.body));
    assert.notEqual(second.body.refresh_token, first.body.refresh_token);
    assert.equal((await refresh(first.body.refresh_token)).body.error, 'invalid_grant');
    assert.equal((await refresh(second.body.refresh_token)).body.error, 'invalid_grant', 'the newer one is dead, too');
    // From here on nothing goes wrong any more.
    provider.events.length = 0;
  });

  test('a login pushes its request and learns who the user is from UserInfo', async () => {
    const alice = await stage.user();
    const page = await alice.tab();
    const asked = [];
    page.on('request', (request) => asked.push(new URL(request.url())));
    const deep = `${site}/shop/cart?item=7`;
    await page.goto(deep);
    assert.ok(page.url().startsWith(provider.issuer), page.url());
    await shoot(page, 'certified-login-form');
    await fillCertified(page, 'alice');
    await page.waitForURL(deep);
    assert.equal(await page.locator('#user').textContent(), 'alice');
    const begun = asked.filter(({ origin, pathname }) => origin === provider.issuer && pathname === '/auth');
    assert.equal(begun.length, 1);
    assert.deepEqual([...begun[0].searchParams.keys()].sort(), ['client_id', 'request_uri']);
    const { headers } = stage.last('/shop/cart');
    assert.equal(headers['x-user-id'], 'account-alice');
    assert.equal(tokenOf(headers).split('.').length, 1, 'the access token is opaque');
    const userinfo = JSON.parse((await call(page, '/auth/userinfo')).text);
    assert.equal(userinfo.email, 'alice@example.com');
    assert.deepEqual(provider.errors(), []);
  });

  test('an answer that is posted finds its login, and no code stands in an address', async () => {
    const { tab, cookies } = await stage.user();
    const page = await tab();
    const asked = [];
    page.on('request', (request) => asked.push({ method: request.method(), url: request.url() }));
    await page.goto(`${site}/`);
    // A post from another site brings no other cookie along.
    assert.equal((await cookies()).find(({ name }) => name === '__Host-login').sameSite, 'None');
    await fillCertified(page, 'bob');
    await page.waitForURL(`${site}/`);
    assert.equal(await page.locator('#user').textContent(), 'bob');
    const answers = asked.filter(({ url }) => url.startsWith(`${site}/auth/callback`));
    assert.deepEqual(answers, [{ method: 'POST', url: `${site}/auth/callback` }]);
    for (const { url } of asked) assert.doesNotMatch(url, /[?&]code=/);
    assert.equal((await cookies()).find(({ name }) => name === SESSION).sameSite, 'Strict');
  });

  test('tokens are refreshed again and again, and no refresh token is shown twice', async () => {
    const before = provider.of('refresh_token.consumed').length;
    const { page, cookie } = await loggedIn('alice');
    await call(page, '/api/tick');
    const ticket = (await cookie(SESSION)).value;
    const tokens = [tokenOf(stage.last('/api/tick').headers)];
    for (let n = 0; n < 2; n += 1) tokens.push(await stage.tokenChanges(page, '/api/tick', tokens.at(-1)));
    assert.equal(new Set(tokens).size, 3);
    const { headers } = stage.last('/api/tick');
    assert.equal(headers['x-user-name'], 'alice', 'the user is known after a refresh as before');
    const consumed = provider.of('refresh_token.consumed').slice(before);
    assert.ok(consumed.length >= 2);
    assert.equal(new Set(consumed).size, consumed.length);
    assert.deepEqual(provider.errors(), []);
    assert.equal((await cookie(SESSION)).value, ticket);
  });

  test('twenty calls at once on an expired token are all served by one refresh', async () => {
    const { page } = await loggedIn('bob');
    await call(page, '/api/burst');
    const old = tokenOf(stage.last('/api/burst').headers);
    const end = Date.now() + lifetime * 1000;
    await until('the access token has expired', () => Date.now() > end, { seconds: 40, every: 250 });
    const count = upstream.at('/api/burst').length;
    const answers = await page.evaluate(() =>
      Promise.all(Array.from({ length: 20 }, async (_, n) => (await fetch(`/api/burst?n=${n}`)).status)),
    );
    assert.deepEqual(answers, Array(20).fill(200));
    const tokens = new Set(upstream.at('/api/burst').slice(count).map(({ headers }) => tokenOf(headers)));
    // Two if a refresh ahead of time fell into the burst: those before it have a token that is good still.
    assert.ok(tokens.size <= 2, `${tokens.size} tokens`);
    assert.ok(!tokens.has(old));
    assert.deepEqual(provider.errors(), [], 'nothing was shown twice');
  });

  test('logout takes the refresh token back at once and ends the session at the provider', async () => {
    const { page, cookie } = await loggedIn('alice');
    await call(page, '/api/me');
    const revoked = provider.of('grant.revoked').length;
    const redirect = await stage.logOut(page);
    assert.ok(redirect.startsWith(provider.issuer), redirect);
    await until('the provider has the refresh token back', () => provider.of('grant.revoked').length > revoked);
    await page.goto(redirect);
    await page.locator('button[name=logout]').click();
    await page.waitForURL((url) => url.origin === site && url.pathname === '/auth/logged-out');
    assert.match(await page.textContent('body'), /You are logged out/);
    assert.equal(await cookie(SESSION), undefined);
    await page.goto(`${site}/`);
    await page.locator('#certified-login').waitFor();
    assert.deepEqual(provider.errors(), []);
  });

  test('a logout at the provider ends the session here at once', async () => {
    const { page } = await loggedIn('alice');
    const bystander = await loggedIn('bob');
    await stage.freshToken(page);
    const end = Date.now() + (lifetime - 1) * 1000;
    const told = provider.of('backchannel.success').length;
    const tab = await page.context().newPage();
    await tab.goto(`${provider.issuer}/session/end`);
    await tab.locator('button[name=logout]').click();
    await until('the provider has told', () => provider.of('backchannel.success').length === told + 1, { seconds: 10 });
    await stage.endsAtOnce(page, end);
    assert.equal((await call(bystander.page, '/api/me')).status, 200, 'and nobody else’s');
    assert.deepEqual(provider.errors(), []);
  });

  test('no browser was ever shown a token', () => stage.noTokenShown(upstream.tokens(), 30));

  test('nor did one get into the proxy’s log or metrics', () => stage.noneWritten(upstream.tokens()));
});
