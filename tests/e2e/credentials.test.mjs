// A login of the app's own: its page posts what the user types to the proxy, which asks a backend; the browser gets a cookie
// where it used to get tokens. The page's script is the one of the documentation. Once for each way to show a refresh token.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { lifetime, password, startBackend } from './lib/backend.mjs';
import { call, shoot } from './lib/browser.mjs';
import { until } from './lib/net.mjs';
import { block } from './lib/servers.mjs';
import { SESSION, openStage } from './lib/stage.mjs';
import { startElsewhere, tokenOf } from './lib/upstream.mjs';

const settings = (backend, send) => `
providers:
  - name: legacy
    kind: credentials
    login_url: ${backend}/auth/login
    login_page: /login
    account: username
    refresh: { url: "${backend}/auth/refresh", send: ${send} }
    logout_url: ${backend}/auth/logout
    limits: { account: 10, address: 100, per: 5m }
sites:
  - hosts: [localhost]
    provider: legacy
    routes:
      - { path: /api/, upstream: app, identity_headers: { X-User-Id: sub, X-User-Name: name } }
      - { path: /login, upstream: app, access: public }
      - { path: /public/, upstream: app, access: public }
      - { path: /, upstream: app, identity_headers: { X-User-Name: name } }
`;

const loginPage = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Log in</title><link rel="icon" href="data:,"></head><body><h1>Log in</h1>
<form><label>User <input id="username" name="username"></label>
<label>Password <input id="password" name="password" type="password"></label><button id="log-in">Log in</button></form>
<p id="message"></p>
<script>
const form = document.querySelector('form');
const show = (text) => { document.querySelector('#message').textContent = text; };
${block('how-to/sid-login.md', 'js')}
</script></body></html>
`;

for (const send of ['body', 'header']) {
  // What has nothing to do with refresh tokens is shown once.
  const once = send === 'body' ? test : () => {};

  describe(`a login of the app’s own, refresh token in the ${send}`, { concurrency: false }, () => {
    let stage, site, upstream, backend, elsewhere;

    before(async () => {
      stage = await openStage(`credentials-${send}`, { pages: { '/login': loginPage } });
      ({ site, upstream } = stage);
      backend = await stage.keep(startBackend());
      elsewhere = await stage.keep(startElsewhere(`${site}/`));
      await stage.raise(settings(backend.origin, send));
    });

    after(() => stage?.close());

    async function type(page, user, typed = password) {
      await page.locator('#username').fill(user);
      await page.locator('#password').fill(typed);
      await page.locator('#log-in').click();
    }

    async function loggedIn(user, path = '/') {
      const it = await stage.user();
      const page = await it.tab();
      await page.goto(`${site}${path}`);
      await type(page, user);
      await page.waitForURL(`${site}${path}`);
      return { ...it, page };
    }

    /** The token that a request of Cloakroom's to the backend shows. */
    function shown({ headers, body }) {
      if (send === 'header') {
        assert.equal(body, '');
        return /^Bearer (refresh-.+)$/.exec(headers.authorization)[1];
      }
      assert.equal(headers.authorization, undefined);
      return JSON.parse(body).refreshToken;
    }

    once('a navigation without a session comes to the page with the form, a script gets 401', async () => {
      const page = await (await stage.user()).tab();
      await page.goto(`${site}/shop/cart?item=7`);
      assert.equal(page.url(), `${site}/login?return_to=%2Fshop%2Fcart%3Fitem%3D7`);
      await shoot(page, 'credentials-form');
      const before = upstream.seen.length;
      const answer = await call(page, '/api/me');
      assert.equal(answer.status, 401, answer.text);
      assert.equal(JSON.parse(answer.text).code, 'session_missing');
      assert.equal(upstream.seen.length, before, 'the application was asked nothing');
    });

    once('a wrong password is told, and there is no session', async () => {
      const { tab, cookie } = await stage.user();
      const page = await tab();
      await page.goto(`${site}/`);
      const answered = page.waitForResponse((response) => new URL(response.url()).pathname === '/auth/login');
      await type(page, 'alice', 'alice');
      const answer = await answered;
      assert.equal(answer.status(), 401);
      assert.match(answer.headers()['content-type'], /^application\/problem\+json/);
      const problem = await answer.json();
      assert.equal(problem.code, 'login_refused');
      await until('the page says so', () => page.locator('#message').textContent());
      assert.equal(await page.locator('#message').textContent(), problem.detail ?? problem.title);
      assert.equal(await cookie(SESSION), undefined);
      assert.equal((await call(page, '/api/me')).status, 401);
    });

    once('a login ends where it was wanted, with a cookie that no script can read, and without a token', async () => {
      const { tab, cookie } = await stage.user();
      const page = await tab();
      await page.goto(`${site}/shop/cart?item=7`);
      await type(page, 'alice');
      await page.waitForURL(`${site}/shop/cart?item=7`);
      assert.equal(await page.locator('#user').textContent(), 'Alice Adams');
      const session = await cookie(SESSION);
      assert.deepEqual([session.httpOnly, session.secure, session.sameSite, session.path], [true, true, 'Strict', '/']);
      const { headers, body } = backend.at('/auth/login').at(-1);
      assert.equal(body, JSON.stringify({ username: 'alice', password }));
      assert.equal(headers.cookie, undefined);
      assert.deepEqual(JSON.parse((await call(page, '/auth/userinfo')).text).roles, ['clerk']);
      const kept = await page.evaluate(() => JSON.stringify([document.cookie, { ...localStorage }, { ...sessionStorage }]));
      for (const token of [...backend.issued, session.value]) assert.ok(!kept.includes(token), kept);
    });

    once('the API gets the access token of the backend, and nothing that a client says of itself', async () => {
      const { page } = await loggedIn('bob');
      const answer = await call(page, '/api/me', { headers: { Authorization: 'Bearer forged', 'X-User-Id': '1' } });
      assert.equal(answer.status, 200, answer.text);
      const { headers } = stage.last('/api/me');
      assert.ok(backend.issued.includes(tokenOf(headers)));
      assert.equal(headers['x-user-id'], '2');
      assert.equal(headers.cookie, undefined);
      assert.equal((await call(page, '/api/orders', { method: 'POST', body: 'coat' })).status, 403, 'no CSRF token');
    });

    once('the address of the form cannot say to lead elsewhere', async () => {
      const page = await (await stage.user()).tab();
      for (const target of [elsewhere.url, '//evil.example', 'javascript:alert(1)']) {
        await page.goto(`${site}/login?return_to=${encodeURIComponent(target)}`);
        await type(page, 'alice');
        await page.waitForURL(`${site}/`);
      }
    });

    once('a page of another site logs nobody in', async () => {
      const it = await stage.user();
      const page = await it.tab();
      await page.goto(elsewhere.url);
      const before = backend.at('/auth/login').length;
      const failed = await page.evaluate(async ([url, body]) => {
        const options = { method: 'POST', body, credentials: 'include' };
        // The second one is what a browser sends without asking first.
        const tries = [fetch(url, { ...options, headers: { 'content-type': 'application/json' } }), fetch(url, { ...options, mode: 'no-cors' })];
        return (await Promise.allSettled(tries)).map(({ status }) => status);
      }, [`${site}/auth/login`, JSON.stringify({ username: 'alice', password })]);
      assert.deepEqual(failed, ['rejected', 'fulfilled']);
      assert.equal(backend.at('/auth/login').length, before, 'the backend was not asked');
      assert.equal(await it.cookie(SESSION), undefined);
    });

    test('tokens are refreshed before they end, and each refresh token is shown once', async () => {
      const { page } = await loggedIn('alice');
      const begun = backend.at('/auth/refresh').length;
      await call(page, '/api/tick');
      const first = tokenOf(stage.last('/api/tick').headers);
      const second = await stage.tokenChanges(page, '/api/tick', first);
      const third = await stage.tokenChanges(page, '/api/tick', second);
      assert.equal(new Set([first, second, third]).size, 3);
      const tokens = backend.at('/auth/refresh').map(shown);
      assert.ok(tokens.length >= begun + 2);
      assert.equal(new Set(tokens).size, tokens.length, 'none twice');
      for (const token of tokens) assert.ok(backend.issued.includes(token));
    });

    test('a refresh token that the backend refuses ends the session, and the user comes to the form', async () => {
      const { page } = await loggedIn('bob', '/start');
      assert.equal((await call(page, '/api/me')).status, 200);
      backend.forget();
      const answer = await until('the API refuses', async () => {
        const answer = await call(page, '/api/me');
        return answer.status !== 200 && answer;
      }, { seconds: lifetime + 5, every: 250 });
      assert.equal(answer.status, 401, answer.text);
      assert.equal(JSON.parse(answer.text).code, 'session_expired');
      await page.goto(`${site}/start`);
      assert.equal(page.url(), `${site}/login?return_to=%2Fstart`);
      await type(page, 'bob');
      await page.waitForURL(`${site}/start`);
      assert.equal((await call(page, '/api/me')).status, 200);
    });

    test('a logout ends the session here, and the refresh token at the backend', async () => {
      // From here on the backend knows this one's refresh token alone.
      backend.forget();
      const { page, context, cookie } = await loggedIn('alice');
      const ticket = await cookie(SESSION);
      const begun = backend.at('/auth/logout').length;
      assert.equal((await call(page, '/auth/logout', { method: 'POST' })).status, 403, 'not without the CSRF token');
      const redirect = new URL(await stage.logOut(page), site);
      assert.deepEqual([redirect.origin, redirect.pathname], [site, '/auth/logged-out']);
      await until('the backend hears of it', () => backend.at('/auth/logout').length > begun && backend.knowsNobody());
      assert.match(shown(backend.at('/auth/logout').at(-1)), /^refresh-/);
      assert.equal(await cookie(SESSION), undefined);
      await context.addCookies([ticket]);
      await page.goto(`${site}/public/start`);
      assert.equal((await call(page, '/api/me')).status, 401, 'a copy of the old cookie opens nothing');
    });

    once('whoever tries many passwords for one account has to wait', async () => {
      const page = await (await stage.user()).tab();
      await page.goto(`${site}/login`);
      const tries = async (user, typed) => {
        const answered = page.waitForResponse((response) => new URL(response.url()).pathname === '/auth/login');
        await type(page, user, typed);
        return answered;
      };
      for (let n = 0; n < 10; n += 1) assert.equal((await tries('mallory', `guess ${n}`)).status(), 401);
      const before = backend.at('/auth/login').length;
      const answer = await tries('mallory', 'another guess');
      assert.equal(answer.status(), 429);
      assert.equal((await answer.json()).code, 'too_many_logins');
      await until('the page says so', async () =>
        /^Please wait \d+ seconds\.$/.test(await page.locator('#message').textContent()));
      assert.equal(backend.at('/auth/login').length, before, 'the backend was not asked');
      assert.equal((await tries('carol', 'guess')).status(), 401, 'nor is anybody else held back');
    });

    test('no browser was ever shown a token', () => stage.noTokenShown(backend.issued, 15));

    test('nor did one, or a password, get into the proxy’s log or metrics', () =>
      stage.noneWritten([...backend.issued, password]));
  });
}
