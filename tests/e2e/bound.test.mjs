// At a provider that binds access tokens to a key (DPoP) and wants its nonce in each proof; and clients whose opaque tokens only
// the provider can read.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { call } from './lib/browser.mjs';
import { api, fillCertified, logInByHand, startCertified } from './lib/certified.mjs';
import { fetchTrusting, until } from './lib/net.mjs';
import { digest, proofOf } from './lib/proofs.mjs';
import { makeClientKey, quote } from './lib/servers.mjs';
import { openStage } from './lib/stage.mjs';
import { tokenOf } from './lib/upstream.mjs';

const settings = (issuer, key) => `
providers:
  - name: certified
    issuer: ${quote(issuer)}
    client_id: cloakroom
    client_auth: { method: client_secret_basic, secret: { env: CLIENT_SECRET } }
    dpop: { key: { file: ${quote(key)} } }
    userinfo: merge
    introspection: { cache: 1s }
sites:
  - hosts: [localhost]
    provider: certified
    bearer: { audiences: [${quote(api)}], types: [opaque] }
    routes:
      - { path: /machines/, upstream: app, accept: [bearer], identity_headers: { X-User-Id: sub } }
      - { path: /, upstream: app, identity_headers: { X-User-Name: preferred_username } }
`;

describe('tokens that are bound to a key, and tokens that only the provider can read', { concurrency: false }, () => {
  let stage, site, provider, upstream, trusting;
  const secret = 'certified-secret-of-cloakroom';
  const mobile = { id: 'mobile', secret: 'mobile-secret', redirect: 'http://127.0.0.1:9/mobile' };

  before(async () => {
    stage = await openStage('bound');
    ({ site, upstream } = stage);
    const grants = { grant_types: ['authorization_code', 'refresh_token'] };
    const clients = [
      {
        client_id: 'cloakroom', client_secret: secret, dpop_bound_access_tokens: true, ...grants,
        redirect_uris: [`${site}/auth/callback`], post_logout_redirect_uris: [`${site}/auth/logged-out`],
      },
      { client_id: mobile.id, client_secret: mobile.secret, redirect_uris: [mobile.redirect], ...grants },
    ];
    trusting = fetchTrusting(readFileSync(stage.tls.certificate));
    provider = await stage.keep(startCertified(clients, trusting, {
      dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => true },
      introspection: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({ scope: 'read', audience: api, accessTokenTTL: 300, accessTokenFormat: 'opaque' }),
      },
    }));
    await stage.raise(settings(provider.issuer, makeClientKey('bound')), { CLIENT_SECRET: secret });
  });

  after(() => stage?.close());

  /** What the provider says of a token. */
  async function introspect(token) {
    const answer = await fetch(`${provider.issuer}/token/introspection`, {
      method: 'POST',
      headers: { authorization: `Basic ${Buffer.from(`${mobile.id}:${mobile.secret}`).toString('base64')}` },
      body: new URLSearchParams({ token }),
    });
    return answer.json();
  }

  async function loggedIn(name) {
    const page = await (await stage.user()).tab();
    await page.goto(`${site}/`);
    await fillCertified(page, name);
    await page.waitForURL(`${site}/`);
    return page;
  }

  /** A call without a browser; the code of its problem, if it has one. */
  async function ask(path, token) {
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    const answer = await trusting(`${site}${path}`, { headers, signal: AbortSignal.timeout(10_000) });
    const text = await answer.text();
    return { status: answer.status, code: answer.headers.get('cloakroom-error'), text };
  }

  test('each request shows a token that is bound to a key, with a proof of its own', async () => {
    const page = await loggedIn('alice');
    for (const path of ['/api/one?x=1', '/api/two']) {
      assert.equal((await call(page, path, { headers: { DPoP: 'forged' } })).status, 200);
    }
    const [one, two] = [stage.last('/api/one'), stage.last('/api/two')];
    const token = tokenOf(one.headers);
    assert.match(one.headers.authorization, /^DPoP /);
    const known = await introspect(token);
    assert.equal(known.token_type, 'DPoP');
    const proofs = [one, two].map(({ headers }) => proofOf(headers));
    for (const [proof, path] of [[proofs[0], '/api/one'], [proofs[1], '/api/two']]) {
      assert.equal(proof.htm, 'GET');
      assert.equal(proof.htu, `http://${new URL(site).host}${path}`);
      assert.equal(proof.ath, digest(token));
      assert.ok(Math.abs(proof.iat - Date.now() / 1000) < 30);
      assert.equal(proof.thumbprint, known.cnf.jkt, 'the key is the one that the token is bound to');
    }
    assert.notEqual(proofs[0].jti, proofs[1].jti);
  });

  test('a refresh brings another token, bound to the same key', async () => {
    const page = await loggedIn('bob');
    await call(page, '/api/tick');
    const first = stage.last('/api/tick').headers;
    const token = await stage.tokenChanges(page, '/api/tick', tokenOf(first));
    const { headers } = stage.last('/api/tick');
    assert.match(headers.authorization, /^DPoP /);
    assert.equal(proofOf(headers).thumbprint, proofOf(first).thumbprint);
    assert.equal((await introspect(token)).cnf.jkt, proofOf(headers).thumbprint);
    assert.deepEqual(provider.of('server_error'), []);
  });

  test('who finds a bound token can do nothing with it here', async () => {
    const page = await loggedIn('alice');
    await call(page, '/api/me');
    const before = upstream.seen.length;
    const answer = await ask('/machines/x', tokenOf(stage.last('/api/me').headers));
    assert.equal(answer.status, 401, answer.text);
    assert.match(answer.code, /^token_(bound|invalid)$/);
    assert.equal(upstream.seen.length, before);
  });

  test('an opaque token of a client counts as long as the provider says so', async () => {
    const page = await (await stage.user()).tab();
    const scope = 'openid read';
    const { status, body } = await logInByHand(page, provider.issuer, mobile, 'bob', { resource: api, scope });
    assert.equal(status, 200, JSON.stringify(body));
    const good = await ask('/machines/list', body.access_token);
    assert.equal(good.status, 200, good.text);
    const { headers } = stage.last('/machines/list');
    assert.equal(tokenOf(headers), body.access_token);
    assert.equal(headers['x-user-id'], 'account-bob');
    const before = upstream.seen.length;
    for (const [token, code] of [['made-up', 'token_invalid'], [undefined, 'token_missing']]) {
      const answer = await ask('/machines/list', token);
      assert.deepEqual([answer.status, answer.code], [401, code], answer.text);
    }
    assert.equal(upstream.seen.length, before, 'the application was asked nothing');
    const revoked = await fetch(`${provider.issuer}/token/revocation`, {
      method: 'POST',
      headers: { authorization: `Basic ${Buffer.from(`${mobile.id}:${mobile.secret}`).toString('base64')}` },
      body: new URLSearchParams({ token: body.access_token }),
    });
    assert.equal(revoked.status, 200);
    await until('the token counts no more', async () => (await ask('/machines/list', body.access_token)).status === 401, {
      seconds: 10,
    });
  });

  test('a token for another service does not count here', async () => {
    const page = await (await stage.user()).tab();
    const { status, body } = await logInByHand(page, provider.issuer, mobile, 'alice');
    assert.equal(status, 200, JSON.stringify(body));
    const before = upstream.seen.length;
    const answer = await ask('/machines/list', body.access_token);
    assert.deepEqual([answer.status, answer.code], [401, 'token_invalid'], answer.text);
    assert.equal(upstream.seen.length, before);
  });

  test('no browser was ever shown a token', () => stage.noTokenShown(upstream.tokens(), 20));

  test('nor did one get into the proxy’s log or metrics', () => stage.noneWritten(upstream.tokens()));
});
