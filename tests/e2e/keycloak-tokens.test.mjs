// Keycloak's other access tokens: those that are bound to a key (DPoP), and those that are kept light, so that Keycloak has to
// be asked what they are worth.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { call, fillForm, logIn } from './lib/browser.mjs';
import { tokenRequest } from './lib/form-login.mjs';
import { useKeycloak } from './lib/keycloak.mjs';
import { fetchTrusting, until } from './lib/net.mjs';
import { digest, proofOf } from './lib/proofs.mjs';
import { makeClientKey, quote } from './lib/servers.mjs';
import { openStage } from './lib/stage.mjs';
import { claimsOf, tokenOf } from './lib/upstream.mjs';

const client = { id: 'cloakroom-dpop', secret: 'cloakroom-dpop-secret' };
const mobile = { id: 'mobile', secret: 'mobile-secret' };

const settings = (issuer, key) => `
providers:
  - name: keycloak
    issuer: ${quote(issuer)}
    client_id: ${client.id}
    client_auth: { method: client_secret_basic, secret: { env: CLIENT_SECRET } }
    pushed_authorization: off
    dpop: { key: { file: ${quote(key)} } }
    introspection: { cache: 1s, jwts: true, phantom: true, phantom_claim: jwt }
sites:
  - hosts: [localhost]
    provider: keycloak
    bearer: { audiences: ["https://api.example.com"], types: [jwt, opaque] }
    routes:
      - path: /machines/
        upstream: app
        accept: [bearer]
        identity_headers: { X-User-Id: sub, X-User-Name: preferred_username, X-User-Roles: realm_access.roles }
      - { path: /, upstream: app, identity_headers: { X-User-Name: preferred_username } }
`;

describe('tokens of Keycloak that are bound to a key, and tokens that it has to be asked about', { concurrency: false }, () => {
  let stage, site, keycloak, upstream, trusting;

  before(async () => {
    stage = await openStage('keycloak-tokens');
    ({ site, upstream } = stage);
    trusting = fetchTrusting(readFileSync(stage.tls.certificate));
    keycloak = await stage.keep(useKeycloak(stage.tls.certificate));
    await keycloak.moveClient(client.id, site);
    await stage.raise(settings(keycloak.issuer, makeClientKey('keycloak-dpop')), { CLIENT_SECRET: client.secret });
  });

  after(() => stage?.close());

  async function loggedIn(name) {
    const page = await (await stage.user()).tab();
    await logIn(page, `${site}/`, name);
    return page;
  }

  /** The tokens that the mobile app has of a user. */
  async function ofMobile(user) {
    const form = { grant_type: 'password', scope: 'openid', username: user, password: user };
    const { status, body } = await tokenRequest(keycloak.issuer, mobile, form);
    assert.equal(status, 200, JSON.stringify(body));
    return body;
  }

  /** A call without a browser; the code of its problem, if it has one. */
  async function ask(path, token) {
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    const answer = await trusting(`${site}${path}`, { headers, signal: AbortSignal.timeout(10_000) });
    return { status: answer.status, code: answer.headers.get('cloakroom-error'), text: await answer.text() };
  }

  /** `token` is refused with 401 and `code`, and the application hears nothing. */
  async function refused(token, code) {
    const before = upstream.seen.length;
    const answer = await ask('/machines/list', token);
    assert.deepEqual([answer.status, answer.code], [401, code], answer.text);
    assert.equal(upstream.seen.length, before, 'the application was asked nothing');
  }

  test('Keycloak gives this client no code without a key, and binds tokens to it', async () => {
    const form = { grant_type: 'password', scope: 'openid', username: 'alice', password: 'alice' };
    const bare = await tokenRequest(keycloak.issuer, client, form);
    assert.equal(bare.status, 400, JSON.stringify(bare.body));
    const page = await (await stage.user()).tab();
    const asked = [];
    page.on('request', (request) => asked.push(new URL(request.url())));
    await page.goto(`${site}/`);
    await fillForm(page, 'alice');
    await page.waitForURL(`${site}/`);
    const login = asked.find(({ pathname }) => pathname.endsWith('/protocol/openid-connect/auth'));
    for (const path of ['/api/one?x=1', '/api/two']) {
      assert.equal((await call(page, path, { headers: { DPoP: 'forged' } })).status, 200);
    }
    const [one, two] = [stage.last('/api/one').headers, stage.last('/api/two').headers];
    const proofs = [one, two].map(proofOf);
    for (const [headers, proof, path] of [[one, proofs[0], '/api/one'], [two, proofs[1], '/api/two']]) {
      assert.match(headers.authorization, /^DPoP /);
      assert.deepEqual([proof.htm, proof.htu, proof.ath], ['GET', `http://${new URL(site).host}${path}`, digest(tokenOf(headers))]);
      assert.equal(claimsOf(headers).cnf.jkt, proof.thumbprint, 'the token is bound to the key of the proof');
      assert.equal(claimsOf(headers).preferred_username, 'alice');
    }
    assert.notEqual(proofs[0].jti, proofs[1].jti);
    assert.equal(login.searchParams.get('dpop_jkt'), proofs[0].thumbprint, 'the login named the key');
  });

  test('a refresh brings another token, bound to the same key', async () => {
    const page = await loggedIn('bob');
    await call(page, '/api/tick');
    const first = stage.last('/api/tick').headers;
    await stage.tokenChanges(page, '/api/tick', tokenOf(first));
    const { headers } = stage.last('/api/tick');
    assert.match(headers.authorization, /^DPoP /);
    assert.equal(proofOf(headers).thumbprint, proofOf(first).thumbprint);
    assert.equal(claimsOf(headers).cnf.jkt, proofOf(first).thumbprint);
  });

  test('who finds a bound token can do nothing with it, here or at Keycloak', async () => {
    const page = await loggedIn('alice');
    await call(page, '/api/me');
    const token = tokenOf(stage.last('/api/me').headers);
    await refused(token, 'token_bound');
    const answer = await fetch(`${keycloak.issuer}/protocol/openid-connect/userinfo`, {
      headers: { authorization: `Bearer ${token}` },
    });
    assert.equal(answer.status, 401);
  });

  test('a logout ends the session at Keycloak, too', async () => {
    const page = await loggedIn('alice');
    const redirect = await stage.logOut(page);
    assert.ok(redirect.startsWith(keycloak.issuer), redirect);
    await page.goto(redirect);
    await page.waitForURL((url) => url.origin === site && url.pathname === '/auth/logged-out');
    await page.goto(`${site}/`);
    await page.locator('#kc-login').waitFor();
  });

  test('a light token counts with what Keycloak says of it, and a whole one goes upstream', async () => {
    const { access_token: token } = await ofMobile('alice');
    const light = claimsOf({ authorization: `Bearer ${token}` });
    assert.deepEqual([light.aud, light.preferred_username, light.realm_access], [undefined, undefined, undefined]);
    const answer = await ask('/machines/list', token);
    assert.equal(answer.status, 200, answer.text);
    const { headers } = stage.last('/machines/list');
    assert.equal(headers['x-user-name'], 'alice');
    assert.ok(headers['x-user-roles'].split(',').includes('admin'), headers['x-user-roles']);
    assert.notEqual(tokenOf(headers), token, 'the light one stays outside');
    const whole = claimsOf(headers);
    assert.ok(whole.aud.includes('https://api.example.com'));
    assert.deepEqual([whole.preferred_username, whole.jti], ['alice', light.jti]);
  });

  test('after the logout a token counts no more, though it has not ended', async () => {
    const { access_token: token, refresh_token: refresh } = await ofMobile('bob');
    assert.equal((await ask('/machines/list', token)).status, 200);
    const answer = await fetch(`${keycloak.issuer}/protocol/openid-connect/logout`, {
      method: 'POST',
      body: new URLSearchParams({ client_id: mobile.id, client_secret: mobile.secret, refresh_token: refresh }),
    });
    assert.ok(answer.ok, `${answer.status}`);
    await until('the token counts no more', async () => (await ask('/machines/list', token)).status === 401, { seconds: 5 });
    assert.ok(claimsOf({ authorization: `Bearer ${token}` }).exp * 1000 > Date.now(), 'before its end');
    await refused(token, 'token_invalid');
  });

  test('rubbish, refresh tokens, ID tokens and changed tokens are refused', async () => {
    const { access_token: token, refresh_token: refresh, id_token: identity } = await ofMobile('alice');
    const [head, body, signature] = token.split('.');
    const claims = { ...JSON.parse(Buffer.from(body, 'base64url')), sub: 'root' };
    const changed = [head, Buffer.from(JSON.stringify(claims)).toString('base64url'), signature].join('.');
    for (const bad of ['rubbish', refresh, identity, changed]) await refused(bad, 'token_invalid');
    await refused(undefined, 'token_missing');
    assert.equal((await ask('/machines/list', token)).status, 200);
  });

  test('no browser was ever shown a token', () => stage.noTokenShown(upstream.tokens(), 20));

  test('nor did one get into the proxy’s log or metrics', () => stage.noneWritten(upstream.tokens()));
});
