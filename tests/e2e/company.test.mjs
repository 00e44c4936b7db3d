// All web traffic of a company passes one proxy, as conf/solution-c.yaml has it: applications behind context roots that know
// nothing of logins, share a user context and hold no token of the user; sessions in PostgreSQL, Keycloak for logins.
import assert from 'node:assert/strict';
import { createPublicKey, randomBytes, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { contextOf, get, startApp } from './lib/apps.mjs';
import { call, fillForm, logIn, shoot } from './lib/browser.mjs';
import { client, useKeycloak } from './lib/keycloak.mjs';
import { fetchTrusting, freePort, until } from './lib/net.mjs';
import { startPostgres } from './lib/postgres.mjs';
import { example, listener } from './lib/servers.mjs';
import { SESSION, XSRF, openStage } from './lib/stage.mjs';
import { claimsOf, tokenOf } from './lib/upstream.mjs';

/** What applications call Cloakroom. */
const host = 'internal.example.com';
/** In place of half an hour. */
const idle = 12;

describe('a company’s applications', { concurrency: false }, () => {
  let stage, site, keycloak, trusting, shop, help, account, inside;

  before(async () => {
    stage = await openStage('company', { startStore: startPostgres });
    ({ site } = stage);
    trusting = fetchTrusting(readFileSync(stage.tls.certificate));
    const port = await freePort();
    inside = `http://127.0.0.1:${port}/orders/42`;
    const titles = ['The shop', 'Help', 'Your account'];
    [shop, help, account] = await Promise.all(titles.map((title) => stage.keep(startApp(title, { inside, host }))));
    keycloak = await stage.keep(useKeycloak(stage.tls.certificate));
    await keycloak.moveClient(client.id, site);
    const settings = example('solution-c.yaml', [
      ['address: 0.0.0.0:8080', listener(stage.port, stage.tls)],
      ['0.0.0.0:8081', `127.0.0.1:${port}`],
      ['{ env: POSTGRES_URL }', '{ env: POSTGRES_URL }\n  command_timeout: 2s'],
      ['idle_timeout: 30m', `idle_timeout: ${idle}s`],
      ['https://id.example.com/realms/main', keycloak.issuer],
      ['https://www.example.com', site],
      ['www.example.com', 'localhost'],
      ['shop.internal:3000', `127.0.0.1:${shop.port}`],
      ['help.internal:3000', `127.0.0.1:${help.port}`],
      ['account.internal:3000', `127.0.0.1:${account.port}`],
      ['orders.internal:3000', `127.0.0.1:${stage.upstream.port}`],
    ]);
    await stage.raiseWith(settings, {
      POSTGRES_URL: stage.store.url,
      CLOAKROOM_PROXY_KEY: randomBytes(32).toString('base64'),
      CLIENT_SECRET: client.secret,
    });
  });

  after(() => stage?.close());

  async function loggedIn(name) {
    const it = await stage.user();
    const page = await it.tab();
    await logIn(page, `${site}/account/`, name);
    return { ...it, page };
  }

  /** What an application shows of its user: name, level, and what applications keep. */
  async function shown(page, path) {
    const answer = await page.goto(`${site}${path}`);
    assert.equal(answer.status(), 200, path);
    assert.equal(answer.headers()['x-user-context-update'], undefined);
    const text = (id) => page.locator(`#${id}`).textContent();
    return [await text('user'), await text('level'), JSON.parse(await text('kept'))];
  }

  /** Has the application at `root` keep something; no browser hears of it. */
  async function keep(page, root, patch) {
    const xsrf = (await page.context().cookies(site)).find(({ name }) => name === XSRF)?.value;
    const headers = xsrf ? { 'X-XSRF-TOKEN': decodeURIComponent(xsrf) } : {};
    const answer = await call(page, `${root}/keep`, { method: 'POST', headers, body: JSON.stringify(patch) });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.headers['x-user-context-update'], undefined);
  }

  /** Status and code of an answer to who calls inside. */
  async function askInside(headers) {
    const { status, code } = await get(inside, { host, ...headers });
    return [status, code];
  }

  const withToken = (token) => askInside({ authorization: `Bearer ${token}` });

  test('a stranger looks around, and is kept out of the account', async () => {
    const { page } = await stage.user().then(async (it) => ({ page: await it.tab() }));
    assert.deepEqual(await shown(page, '/shop/shoes?size=42'), ['nobody', 'anonymous', null]);
    assert.equal(await page.locator('#path').textContent(), '/shop/shoes?size=42');
    await keep(page, '/shop', { basket: ['shoes'] });
    assert.deepEqual(await shown(page, '/help/a/b'), ['nobody', 'anonymous', null]);
    assert.equal(await page.locator('#path').textContent(), '/a/b', 'this one does not know its root');
    for (const { seen } of [shop, help]) {
      const { authorization, cookie, 'x-user-context': context } = seen.at(-1);
      assert.deepEqual([authorization, cookie, context], [undefined, undefined, undefined]);
    }
    const answer = await call(page, '/account/');
    assert.deepEqual([answer.status, answer.headers['cloakroom-error']], [401, 'session_missing'], answer.text);
    assert.equal(account.seen.length, 0);
    await page.goto(`${site}/account/`);
    await page.locator('#kc-login').waitFor();
  });

  test('what one application keeps, the next one is told', async () => {
    const { page } = await loggedIn('alice');
    assert.deepEqual(await shown(page, '/account/'), ['Alice Adams', 'logged_on', {}]);
    await keep(page, '/shop', { basket: { shoes: 1, hat: 2 } });
    await keep(page, '/account', { language: 'da', basket: { hat: null } });
    // Who may only read changes nothing, and no client says who it is.
    await keep(page, '/help', { basket: null });
    const forged = Buffer.from(JSON.stringify({ level: 'logged_on', attributes: { basket: {} } })).toString('base64url');
    await call(page, '/shop/', { headers: { 'X-User-Context': forged, Authorization: 'Bearer forged' } });
    const kept = { basket: { shoes: 1 }, language: 'da' };
    assert.deepEqual(contextOf(shop.seen.at(-1)).attributes, kept);
    for (const path of ['/shop/', '/help/', '/account/']) {
      assert.deepEqual(await shown(page, path), ['Alice Adams', 'logged_on', kept], path);
    }
    await shoot(page, 'company-account');
    assert.deepEqual(Object.keys(contextOf(shop.seen.at(-1)).claims).sort(), ['email', 'name']);
    assert.equal(help.token(), undefined, 'it needs no token');
    for (const { cookie } of [...shop.seen, ...help.seen, ...account.seen]) assert.equal(cookie, undefined);
  });

  test('who comes back later is known, and no more than that, until the next login', async () => {
    const { page, cookie } = await loggedIn('bob');
    await keep(page, '/shop', { basket: { gloves: 1 } });
    const ticket = (await cookie(SESSION)).value;
    // Looking at the session is no use of it.
    const level = async () => JSON.parse((await call(page, '/auth/session')).text).level;
    assert.equal(await level(), 'logged_on');
    await until('the session is over', async () => (await level()) === 'returning', { seconds: idle + 10, every: 500 });
    assert.deepEqual(await shown(page, '/shop/'), ['Bob Baker', 'returning', { basket: { gloves: 1 } }]);
    assert.equal(shop.token(), undefined, 'no token of whatever kind');
    assert.deepEqual(await shown(page, '/help/'), ['nobody', 'anonymous', null], 'where the route asks for more');
    await keep(page, '/shop', { basket: { scarf: 1 } });
    await shown(page, '/shop/');
    const answer = await call(page, '/account/');
    assert.deepEqual([answer.status, answer.headers['cloakroom-error']], [401, 'session_expired'], answer.text);
    // The way up is a login; Keycloak may still know who it is.
    await page.goto(`${site}/account/`);
    if (page.url().startsWith(keycloak.issuer)) await fillForm(page, 'bob');
    await page.waitForURL(`${site}/account/`);
    assert.deepEqual(await shown(page, '/account/'), ['Bob Baker', 'logged_on', { basket: { gloves: 1, scarf: 1 } }]);
    assert.notEqual((await cookie(SESSION)).value, ticket, 'another session');
    // After a logout nobody is known.
    await stage.logOut(page);
    assert.deepEqual(await shown(page, '/shop/'), ['nobody', 'anonymous', null]);
  });

  test('the token that an application hands on becomes the user’s own, inside and there alone', async () => {
    const { page, cookie } = await loggedIn('alice');
    assert.equal((await call(page, '/account/orders')).status, 200);
    const { headers, path } = stage.last('/orders/42');
    assert.equal(path, '/orders/42');
    const own = claimsOf(headers);
    assert.deepEqual([own.preferred_username, own.azp], ['alice', client.id], 'plain OAuth');
    assert.equal(contextOf(headers).claims.name, 'Alice Adams');
    // The application has never seen that token: its own names the session, and anybody may verify it.
    const token = account.token();
    const [head, claims, signature] = token.split('.');
    const { keys: [jwk] } = await (await trusting(`${site}/auth/jwks.json`)).json();
    assert.ok(verify(null, `${head}.${claims}`, createPublicKey({ key: jwk, format: 'jwk' }), Buffer.from(signature, 'base64url')));
    assert.deepEqual(JSON.parse(Buffer.from(head, 'base64url')), { alg: 'EdDSA', typ: 'proxy+jwt', kid: jwk.kid });
    const said = JSON.parse(Buffer.from(claims, 'base64url'));
    assert.deepEqual([said.iss, said.aud, said.sub, said.provider], [site, 'https://internal.example.com', own.sub, 'keycloak']);
    assert.deepEqual(await withToken(token), [200, undefined]);
    // Outside it opens nothing, and inside nothing else opens anything.
    const before = stage.upstream.seen.length;
    for (const target of ['/orders/42', '/account/']) {
      const answer = await trusting(`${site}${target}`, { headers: { authorization: `Bearer ${token}` } });
      assert.notEqual(answer.status, 200, target);
    }
    const session = await cookie(SESSION);
    for (const bad of [{}, { cookie: `${SESSION}=${session.value}` }, { authorization: headers.authorization }, { authorization: 'Basic eDp5' }]) {
      assert.deepEqual(await askInside(bad), [401, 'token_invalid'], JSON.stringify(bad));
    }
    assert.equal(stage.upstream.seen.length, before, 'the service was asked nothing');
    await stage.logOut(page);
    assert.deepEqual(await withToken(token), [401, 'token_invalid'], 'it ends with the session');
  });

  test('a service inside gets a fresh token for one that was handed on before the refresh', async () => {
    const { page } = await loggedIn('bob');
    assert.equal((await call(page, '/account/orders')).status, 200);
    const [handedOn, old] = [account.token(), tokenOf(stage.last('/orders/42').headers)];
    await until('the service sees a refreshed token', async () => {
      // What applications do among themselves keeps nobody logged on.
      await call(page, '/help/');
      assert.deepEqual(await withToken(handedOn), [200, undefined]);
      return tokenOf(stage.last('/orders/42').headers) !== old;
    }, { seconds: 40, every: 500 });
    assert.equal(claimsOf(stage.last('/orders/42').headers).preferred_username, 'bob');
  });

  test('sessions and what applications keep lie in the database, sealed, and outlive the proxy', async () => {
    const { page } = await loggedIn('alice');
    await keep(page, '/shop', { basket: { umbrella: 1 } });
    const sealed = stage.store.dump();
    assert.match(sealed, /COPY cloakroom\./);
    for (const secret of ['umbrella', 'alice@example.com', ...stage.upstream.tokens()]) assert.ok(!sealed.includes(secret));
    await stage.proxy.stop();
    await stage.proxy.start();
    assert.deepEqual(await shown(page, '/account/'), ['Alice Adams', 'logged_on', { basket: { umbrella: 1 } }]);
  });

  test('no browser was ever shown a token, and no application the user’s', async () => {
    const proxyTokens = [shop, account].flatMap(({ seen }) => seen.map(tokenOf).filter(Boolean));
    assert.ok(proxyTokens.length >= 3);
    for (const token of stage.upstream.tokens()) assert.ok(!proxyTokens.includes(token));
    await stage.noTokenShown([...stage.upstream.tokens(), ...new Set(proxyTokens)], 40);
  });

  test('nor did one get into the proxy’s log or metrics', () => stage.noneWritten(stage.upstream.tokens()));
});
