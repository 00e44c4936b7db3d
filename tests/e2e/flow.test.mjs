// The whole way: Chromium, Cloakroom over TLS with Redis, a real Keycloak with strict refresh token rotation, and an
// application that records what it is sent. Each test is a user of its own.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { call, fillForm, logIn, shoot, stopAt } from './lib/browser.mjs';
import { logIn as logInByHand, tokenRequest } from './lib/form-login.mjs';
import { client, logOutThere, useKeycloak } from './lib/keycloak.mjs';
import { until } from './lib/net.mjs';
import { quote } from './lib/servers.mjs';
import { SESSION, XSRF, expiryOf, openStage } from './lib/stage.mjs';
import { claimsOf, startElsewhere, tokenOf } from './lib/upstream.mjs';

const settings = (issuer) => `
providers:
  - name: keycloak
    kind: oidc
    issuer: ${quote(issuer)}
    client_id: ${client.id}
    client_auth: { method: client_secret_basic, secret: { env: CLOAKROOM_CLIENT_SECRET } }
    scopes: [openid, profile, email]
sites:
  - hosts: [localhost]
    provider: keycloak
    routes:
      - path: /api/
        upstream: app
        access: required
        token: { kind: access }
        identity_headers: { X-User-Id: sub, X-User-Name: preferred_username }
      - path: /public/
        upstream: app
        access: public
      - path: /
        upstream: app
        access: required
        identity_headers: { X-User-Id: sub, X-User-Name: preferred_username }
`;

describe('behind Cloakroom', { concurrency: false }, () => {
  let stage, site, keycloak, upstream, elsewhere, proxy;

  before(async () => {
    stage = await openStage('flow');
    ({ site, upstream } = stage);
    keycloak = await stage.keep(useKeycloak(stage.tls.certificate));
    await keycloak.moveClient(client.id, site);
    elsewhere = await stage.keep(startElsewhere(`${site}/from/elsewhere?x=1`));
    await stage.raise(settings(keycloak.issuer), { CLOAKROOM_CLIENT_SECRET: client.secret });
    proxy = stage.proxy;
  });

  after(() => stage?.close());

  const user = () => stage.user();
  const last = (path) => stage.last(path);
  const tokenChanges = (page, path, old) => stage.tokenChanges(page, path, old);

  /** A user who is logged in, with a tab at `path`. */
  async function loggedIn(name, path = '/') {
    const it = await user();
    const page = await it.tab();
    await logIn(page, `${site}${path}`, name);
    return { ...it, page };
  }

  function expired(token) {
    return until('the access token has expired', () => Date.now() > expiryOf(token) + 500, { seconds: 40, every: 250 });
  }

  test('the provider rotates strictly: a refresh token is good once', async () => {
    const callback = `${site}/auth/callback`;
    const { code, verifier } = await logInByHand(keycloak.issuer, client, callback, 'bob', 'bob');
    const form = { grant_type: 'authorization_code', code, redirect_uri: callback, code_verifier: verifier };
    const first = await tokenRequest(keycloak.issuer, client, form);
    assert.equal(first.status, 200, JSON.stringify(first.body));
    const refresh = { grant_type: 'refresh_token', refresh_token: first.body.refresh_token };
    assert.equal((await tokenRequest(keycloak.issuer, client, refresh)).status, 200);
    const again = await tokenRequest(keycloak.issuer, client, refresh);
    assert.equal(again.status, 400);
    assert.equal(again.body.error, 'invalid_grant');
  });

  test('without a session a script gets 401 with a way to log in, never a redirect', async () => {
    const page = await (await user()).tab();
    await page.goto(`${site}/public/start`);
    const before = upstream.seen.length;
    const answer = await call(page, '/api/me');
    assert.equal(answer.status, 401);
    assert.match(answer.headers['content-type'], /^application\/problem\+json/);
    assert.equal(answer.headers['cloakroom-error'], 'session_missing');
    const problem = JSON.parse(answer.text);
    assert.equal(problem.status, 401);
    assert.equal(problem.code, 'session_missing');
    assert.equal(new URL(problem.login_url, site).pathname, '/auth/login');
    assert.equal(upstream.seen.length, before, 'the application was asked nothing');
    const session = await call(page, '/auth/session');
    assert.equal(session.status, 200);
    assert.equal(JSON.parse(session.text).authenticated, false);
    assert.equal((await call(page, '/auth/userinfo')).status, 401);
  });

  test('a navigation logs in and comes back exactly where it wanted to go', async () => {
    const alice = await user();
    const page = await alice.tab();
    const deep = `${site}/shop/cart?item=7&colour=dark%20red`;
    await page.goto(deep);
    assert.ok(page.url().startsWith(keycloak.issuer), `at the provider, not at ${page.url()}`);
    await shoot(page, '1-login-form');
    await fillForm(page, 'alice');
    await page.waitForURL(deep);
    assert.equal(await page.locator('#user').textContent(), 'alice');
    assert.equal(await page.locator('#path').textContent(), '/shop/cart?item=7&colour=dark%20red');
    await shoot(page, '2-logged-in');
    const session = JSON.parse((await call(page, '/auth/session')).text);
    assert.equal(session.authenticated, true);
    const userinfo = await call(page, '/auth/userinfo');
    assert.equal(userinfo.status, 200);
    assert.equal(JSON.parse(userinfo.text).preferred_username, 'alice');
    assert.match(userinfo.headers['cache-control'], /no-store/);
  });

  test('the application gets the user’s token and nothing of ours or of a forger’s', async () => {
    const { page } = await loggedIn('alice');
    await page.evaluate(() => {
      document.cookie = 'theme=dark; path=/; secure';
    });
    const answer = await call(page, '/api/me', {
      headers: { Authorization: 'Bearer forged', 'X-User-Id': 'root', 'X-User-Name': 'root' },
    });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(JSON.parse(answer.text).user, 'alice');
    const { headers } = last('/api/me');
    const claims = claimsOf(headers);
    assert.equal(claims.preferred_username, 'alice');
    assert.equal(claims.azp, client.id);
    assert.deepEqual(claims.realm_access.roles.filter((role) => /^(user|admin)$/.test(role)).sort(), ['admin', 'user']);
    assert.equal(headers['x-user-id'], claims.sub);
    assert.equal(headers['x-user-name'], 'alice');
    assert.equal(headers.cookie, 'theme=dark');
  });

  test('the cookies in the browser’s jar are as hard as they can be', async () => {
    const { page, cookie, cookies } = await loggedIn('alice');
    await call(page, '/api/me');
    const session = await cookie(SESSION);
    assert.equal(session.domain, 'localhost', 'host-only: no leading dot');
    assert.equal(session.path, '/');
    assert.equal(session.httpOnly, true);
    assert.equal(session.secure, true);
    assert.equal(session.sameSite, 'Strict');
    assert.match(session.value, /^[A-Za-z0-9_-]{43,64}$/);
    const xsrf = await cookie(XSRF);
    assert.equal(xsrf.httpOnly, false);
    assert.equal(xsrf.secure, true);
    assert.equal(xsrf.path, '/');
    const readable = await page.evaluate(() => document.cookie);
    assert.ok(readable.includes(`${XSRF}=`), readable);
    assert.ok(!readable.includes(SESSION), readable);
    for (const { name, secure } of await cookies()) assert.equal(secure, true, name);
  });

  test('an unsafe method needs the echoed CSRF token', async () => {
    const { page, cookie } = await loggedIn('alice');
    await call(page, '/api/me');
    const token = decodeURIComponent((await cookie(XSRF)).value);
    const good = await call(page, '/api/orders', { method: 'POST', headers: { 'X-XSRF-TOKEN': token }, body: 'coat' });
    assert.equal(good.status, 200, good.text);
    assert.equal(last('/api/orders').body, 'coat');
    const count = upstream.at('/api/orders').length;
    const other = await loggedIn('bob');
    await call(other.page, '/api/me');
    const stranger = decodeURIComponent((await other.cookie(XSRF)).value);
    for (const headers of [{}, { 'X-XSRF-TOKEN': 'guess' }, { 'X-XSRF-TOKEN': stranger }]) {
      const bad = await call(page, '/api/orders', { method: 'POST', headers, body: 'coat' });
      assert.equal(bad.status, 403, JSON.stringify(headers));
      assert.equal(JSON.parse(bad.text).code, 'csrf_failed');
    }
    assert.equal(upstream.at('/api/orders').length, count, 'the application saw none of the refused requests');
  });

  test('an expired token is refreshed, again and again, and the browser notices nothing', async () => {
    const { page, cookie } = await loggedIn('alice');
    await call(page, '/api/tick');
    const ticket = (await cookie(SESSION)).value;
    const first = tokenOf(last('/api/tick').headers);
    const second = await tokenChanges(page, '/api/tick', first);
    // Strict rotation: a third token comes only if the refresh token of the second was kept.
    const third = await tokenChanges(page, '/api/tick', second);
    assert.equal(new Set([first, second, third]).size, 3);
    assert.equal(claimsOf(last('/api/tick').headers).preferred_username, 'alice');
    assert.equal((await cookie(SESSION)).value, ticket, 'a refresh does not rotate the session');
  });

  test('twenty calls at once on an expired token are all served by one refresh', async () => {
    const { page } = await loggedIn('bob');
    await call(page, '/api/burst');
    const old = tokenOf(last('/api/burst').headers);
    await expired(old);
    const count = upstream.at('/api/burst').length;
    const answers = await page.evaluate(() =>
      Promise.all(Array.from({ length: 20 }, async (_, n) => (await fetch(`/api/burst?n=${n}`)).status)),
    );
    assert.deepEqual(answers, Array(20).fill(200));
    const burst = upstream.at('/api/burst').slice(count);
    assert.equal(burst.length, 20);
    const tokens = new Set(burst.map((request) => tokenOf(request.headers)));
    // Two if a refresh ahead of time fell into the burst: those before it have a token that is good still.
    assert.ok(tokens.size <= 2, `one refresh serves them all, not ${tokens.size}`);
    assert.ok(!tokens.has(old));
    assert.ok(expiryOf([...tokens].at(-1)) > Date.now());
    // Had a refresh token been shown twice, Keycloak would have ended the session: the next refresh tells.
    await tokenChanges(page, '/api/burst', [...tokens].at(-1));
  });

  test('a link on another site finds the live session, in spite of SameSite=Strict', async () => {
    const { page } = await loggedIn('alice');
    await page.goto(elsewhere.url);
    const asked = [];
    page.on('request', (request) => asked.push(request.url()));
    await page.locator('a').click();
    await page.waitForURL(`${site}/from/elsewhere?x=1`);
    await until('the page of the application', () => page.locator('#user').textContent({ timeout: 1000 }));
    assert.equal(await page.locator('#user').textContent(), 'alice');
    assert.deepEqual(asked.filter((url) => url.startsWith(keycloak.origin)), [], 'the provider was not asked');
  });

  test('two tabs that both begin a login both end on their own path', async () => {
    const alice = await user();
    const [one, two] = [await alice.tab(), await alice.tab()];
    await one.goto(`${site}/tab/one?a=1`);
    await two.goto(`${site}/tab/two?b=2`);
    for (const tab of [one, two]) assert.ok(tab.url().startsWith(keycloak.issuer));
    await fillForm(one, 'alice');
    await one.waitForURL(`${site}/tab/one?a=1`);
    // Keycloak's own page notices the other tab's login and goes on by itself, at times while the form is being filled.
    await until('the second tab is back', async () => {
      if (two.url() === `${site}/tab/two?b=2`) return true;
      if (await two.locator('#kc-login').isVisible()) await fillForm(two, 'alice', { timeout: 2000 });
      return false;
    }, { every: 500 });
    for (const tab of [one, two]) {
      assert.equal(await tab.locator('#user').textContent(), 'alice');
      assert.equal((await call(tab, '/api/me')).status, 200);
    }
    await shoot(two, '3-second-tab');
    // To Keycloak both logins are one session of its own: ending our first must not have cost the second its tokens.
    await tokenChanges(one, '/api/me', tokenOf(last('/api/me').headers));
  });

  test('logout ends the session here and at the provider', async () => {
    const { page, cookie, cookies, context } = await loggedIn('alice');
    await call(page, '/api/me');
    const ticket = await cookie(SESSION);
    const xsrf = decodeURIComponent((await cookie(XSRF)).value);
    assert.equal((await call(page, '/auth/logout', { method: 'POST' })).status, 403, 'not without the CSRF token');
    assert.equal((await call(page, '/api/me')).status, 200);
    const answer = await call(page, '/auth/logout', {
      method: 'POST',
      headers: { 'X-XSRF-TOKEN': xsrf, Accept: 'application/json' },
    });
    assert.equal(answer.status, 200, answer.text);
    const { redirect } = JSON.parse(answer.text);
    assert.ok(redirect.startsWith(keycloak.issuer), redirect);
    await page.goto(redirect);
    await page.waitForURL((url) => url.origin === site && url.pathname === '/auth/logged-out');
    assert.match(await page.textContent('body'), /You are logged out/, 'Keycloak gives our state back');
    await shoot(page, '4-logged-out');
    assert.equal((await cookies()).find(({ name }) => name === SESSION), undefined);
    // Cloakroom's own pages let no script call out: an application's page has to ask.
    await page.goto(`${site}/public/start`);
    const refused = await call(page, '/api/me');
    assert.equal(refused.status, 401);
    assert.equal(JSON.parse(refused.text).code, 'session_missing');
    await page.goto(`${site}/`);
    await page.locator('#kc-login').waitFor();
    assert.ok(page.url().startsWith(keycloak.issuer), 'the provider asks for the password again');
    // A copy of the old cookie opens nothing.
    await context.addCookies([ticket]);
    const copy = await context.newPage();
    await copy.goto(`${site}/public/start`);
    assert.equal((await call(copy, '/api/me')).status, 401);
  });

  test('a logout at the provider ends the session here at once', async () => {
    const { page } = await loggedIn('alice');
    const bystander = await loggedIn('bob');
    const token = await stage.freshToken(page);
    await logOutThere(page, keycloak.issuer);
    await stage.endsAtOnce(page, expiryOf(token));
    assert.equal((await call(bystander.page, '/api/me')).status, 200, 'and nobody else’s');
    await page.goto(`${site}/`);
    await page.locator('#kc-login').waitFor();
  });

  test('an administrator of the provider who logs a user out ends all of the user’s sessions here', async () => {
    const [one, two] = [await loggedIn('bob'), await loggedIn('bob')];
    const bystander = await loggedIn('alice');
    const tokens = [await stage.freshToken(one.page), await stage.freshToken(two.page)];
    const [{ id }] = await keycloak.administer('GET', '/users?username=bob&exact=true');
    await keycloak.administer('POST', `/users/${id}/logout`);
    await stage.endsAtOnce(one.page, expiryOf(tokens[1]));
    await stage.endsAtOnce(two.page, expiryOf(tokens[1]));
    assert.equal((await call(bystander.page, '/api/me')).status, 200);
    assert.match(await proxy.metrics(), /cloakroom_logouts_total\{kind="backchannel",provider="keycloak"\} [2-9]/);
  });

  test('a logout that is never told ends the session here with the access token', async () => {
    const { page } = await loggedIn('alice');
    assert.equal((await call(page, '/api/me')).status, 200);
    const token = tokenOf(last('/api/me').headers);
    // Keycloak tells no client of this one.
    await keycloak.administer('POST', '/logout-all');
    const answer = await until('the API refuses', async () => {
      const answer = await call(page, '/api/me');
      return answer.status !== 200 && answer;
    }, { seconds: 20 });
    assert.equal(answer.status, 401, answer.text);
    assert.ok(Date.now() < expiryOf(token) + 1000, 'not after the end of the access token');
    await page.goto(`${site}/`);
    await page.locator('#kc-login').waitFor();
  });

  test('a page hears of new tokens and of the logout, without asking', async () => {
    const { page, context } = await loggedIn('alice');
    assert.equal((await call(page, '/api/me')).status, 200);
    await page.evaluate(() => {
      window.heard = [];
      window.events = new EventSource('/auth/events');
      window.events.onopen = () => window.heard.push(['open']);
      for (const name of ['expiring', 'refreshed', 'logged_out']) {
        window.events.addEventListener(name, ({ data }) => window.heard.push([name, JSON.parse(data)]));
      }
    });
    const hears = (what, fits) =>
      until(what, async () => (await page.evaluate(() => window.heard)).find(fits), { seconds: 40, every: 100 });
    await hears('the stream is open', ([name]) => name === 'open');
    const token = await tokenChanges(page, '/api/me', tokenOf(last('/api/me').headers));
    const [, { token_expires_at: end }] = await hears('the refresh is told', ([name]) => name === 'refreshed');
    assert.ok(Math.abs(end * 1000 - expiryOf(token)) <= 2000, 'with the end of the new token');
    const other = await context.newPage();
    await other.goto(`${site}/`);
    const xsrf = (await context.cookies(site)).find(({ name }) => name === XSRF).value;
    const gone = await call(other, '/auth/logout', {
      method: 'POST', headers: { 'X-XSRF-TOKEN': xsrf, Accept: 'application/json' },
    });
    assert.equal(gone.status, 200, gone.text);
    const [, { reason }] = await hears('the logout is told', ([name]) => name === 'logged_out');
    assert.equal(reason, 'ended');
    // The browser asks again by itself, once: without a session there is nothing to hear.
    await until('the browser gives up', () => page.evaluate(() => window.events.readyState === EventSource.CLOSED), { seconds: 20 });
    const names = (await page.evaluate(() => window.heard)).map(([name]) => name);
    assert.equal(names.filter((name) => name === 'logged_out').length, 1);
    assert.equal(names.at(-1), 'logged_out');
  });

  test('a callback is worth nothing in another browser', async () => {
    const victim = await user();
    const page = await victim.tab();
    const deep = `${site}/shop/mine`;
    await page.goto(deep);
    // The browser is stopped on its way back, code in hand.
    const way = await stopAt(page, `${site}/auth/callback*`);
    await fillForm(page, 'alice');
    const callback = await way.caught();
    assert.ok(new URL(callback).searchParams.get('code'));

    const bare = await user();
    const begun = await user();
    const begunPage = await begun.tab();
    await begunPage.goto(`${site}/shop/other`);
    for (const [foreign, tab] of [[bare, await bare.tab()], [begun, begunPage]]) {
      const answer = await tab.goto(callback);
      assert.ok(answer.status() >= 400 && answer.status() < 500, `status ${answer.status()}`);
      assert.equal(await foreign.cookie(SESSION), undefined);
      await shoot(tab, '5-foreign-callback');
    }
    // Nothing was redeemed: in its own browser the same address still ends the login.
    await page.goto(callback);
    await page.waitForURL(deep);
    assert.equal(await page.locator('#user').textContent(), 'alice');
    // And once only.
    const again = await (await user()).tab();
    assert.ok((await again.goto(callback)).status() >= 400);
  });

  test('sessions outlive a restart of the proxy', async () => {
    const { page, cookie } = await loggedIn('bob', '/before');
    const ticket = (await cookie(SESSION)).value;
    await proxy.stop();
    await proxy.start();
    await page.goto(`${site}/after`);
    assert.equal(page.url(), `${site}/after`);
    assert.equal(await page.locator('#user').textContent(), 'bob');
    assert.equal((await cookie(SESSION)).value, ticket);
  });

  test('no browser was ever shown a token', () => stage.noTokenShown(upstream.tokens(), 100));

  test('nor did one get into the proxy’s log or metrics', () => stage.noneWritten(upstream.tokens()));
});
