// A service behind the application gets a token of its own, which Keycloak gives in exchange for the user's; and where there
// is no user, one of Cloakroom's own.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { call, logIn } from './lib/browser.mjs';
import { client, useKeycloak } from './lib/keycloak.mjs';
import { fetchTrusting } from './lib/net.mjs';
import { quote } from './lib/servers.mjs';
import { openStage } from './lib/stage.mjs';
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
    routes:
      - { path: /orders/, upstream: app, token: { kind: exchange, audience: orders-api } }
      - { path: /nobodys/, upstream: app, token: { kind: exchange, audience: no-such-service } }
      - { path: /catalogue/, upstream: app, access: optional, token: { kind: client_credentials } }
      - { path: /, upstream: app, identity_headers: { X-User-Name: preferred_username } }
`;

describe('tokens for a single service', { concurrency: false }, () => {
  let stage, site, keycloak, upstream;

  before(async () => {
    stage = await openStage('exchange');
    ({ site, upstream } = stage);
    keycloak = await stage.keep(useKeycloak(stage.tls.certificate));
    await keycloak.moveClient(client.id, site);
    await stage.raise(settings(keycloak.issuer), { CLOAKROOM_CLIENT_SECRET: client.secret });
  });

  after(() => stage?.close());

  async function loggedIn(name) {
    const it = await stage.user();
    const page = await it.tab();
    await logIn(page, `${site}/`, name);
    return { ...it, page };
  }

  test('the service gets a token that is good for it alone, one for many calls', async () => {
    const { page } = await loggedIn('alice');
    assert.equal((await call(page, '/api/me')).status, 200);
    const own = claimsOf(stage.last('/api/me').headers);
    assert.deepEqual([...own.aud].sort(), ['https://app.example.com', 'orders-api']);
    const answers = await page.evaluate(() =>
      Promise.all(Array.from({ length: 10 }, async (_, n) => (await fetch(`/orders/list?n=${n}`)).status)),
    );
    assert.deepEqual(answers, Array(10).fill(200));
    const seen = upstream.at('/orders/list');
    assert.equal(seen.length, 10);
    assert.equal(new Set(seen.map(({ headers }) => tokenOf(headers))).size, 1);
    const exchanged = claimsOf(seen[0].headers);
    assert.equal(exchanged.aud, 'orders-api');
    assert.equal(exchanged.sub, own.sub);
    assert.equal(exchanged.azp, client.id);
    assert.match(await stage.proxy.metrics(), /cloakroom_upstream_tokens_total\{kind="exchange",provider="keycloak",result="ok"\} 1\n/);
  });

  test('a refresh brings the service another token, too', async () => {
    const { page } = await loggedIn('alice');
    assert.equal((await call(page, '/orders/first')).status, 200);
    const first = tokenOf(stage.last('/orders/first').headers);
    await stage.tokenChanges(page, '/orders/first', first);
    assert.equal(claimsOf(stage.last('/orders/first').headers).aud, 'orders-api');
  });

  test('who may have no token for the service is refused, and it hears nothing', async () => {
    const { page } = await loggedIn('bob');
    const before = upstream.seen.length;
    const answer = await call(page, '/orders/list');
    // Keycloak says `invalid_request` to that, which may mean as well that the request is wrong.
    assert.equal(answer.status, 502, answer.text);
    assert.equal(JSON.parse(answer.text).code, 'upstream_token_refused');
    assert.equal(upstream.seen.length, before);
    assert.equal((await call(page, '/api/me')).status, 200, 'the session goes on');
  });

  test('a service that the provider does not know gets nothing, and the session goes on', async () => {
    const { page } = await loggedIn('alice');
    const before = upstream.seen.length;
    const answer = await call(page, '/nobodys/list');
    assert.equal(answer.status, 502, answer.text);
    assert.equal(JSON.parse(answer.text).code, 'upstream_token_refused');
    assert.equal(upstream.seen.length, before);
    assert.equal((await call(page, '/api/me')).status, 200);
  });

  test('a request of nobody’s carries a token of the proxy’s own, one of a user’s the user’s', async () => {
    const fetch = fetchTrusting(readFileSync(stage.tls.certificate));
    for (const path of ['/catalogue/one', '/catalogue/two']) {
      const answer = await fetch(`${site}${path}`, { signal: AbortSignal.timeout(10_000) });
      assert.equal(answer.status, 200, await answer.text());
      const claims = claimsOf(stage.last(path).headers);
      assert.equal(claims.preferred_username, `service-account-${client.id}`);
      assert.equal(claims.azp, client.id);
    }
    assert.equal(tokenOf(stage.last('/catalogue/one').headers), tokenOf(stage.last('/catalogue/two').headers));
    const { page } = await loggedIn('bob');
    assert.equal((await call(page, '/catalogue/three')).status, 200);
    assert.equal(claimsOf(stage.last('/catalogue/three').headers).preferred_username, 'bob');
  });

  test('no browser was ever shown a token', () => stage.noTokenShown(upstream.tokens(), 30));

  test('nor did one get into the proxy’s log or metrics', () => stage.noneWritten(upstream.tokens()));
});
