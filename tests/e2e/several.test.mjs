// One site, two ways to log in: Keycloak and oidc-provider. The user chooses, and each login stays with its provider.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { call, fillForm, shoot, stopAt } from './lib/browser.mjs';
import { fillCertified, startCertified } from './lib/certified.mjs';
import { useKeycloak } from './lib/keycloak.mjs';
import { fetchTrusting } from './lib/net.mjs';
import { quote } from './lib/servers.mjs';
import { SESSION, expiryOf, openStage } from './lib/stage.mjs';
import { claimsOf, tokenOf } from './lib/upstream.mjs';

const CLIENT = 'cloakroom-frames';
const STAFF = 'Our staff';
const OTHERS = 'Customers, partners and everybody else with an account';

const settings = (keycloak, certified) => `
providers:
  - name: staff
    title: ${quote(STAFF)}
    issuer: ${quote(keycloak)}
    client_id: ${CLIENT}
    client_auth: { method: client_secret_basic, secret: { env: STAFF_SECRET } }
    frontchannel_logout: iss_and_sid
  - name: others
    title: ${quote(OTHERS)}
    issuer: ${quote(certified)}
    client_id: cloakroom
    client_auth: { method: client_secret_post, secret: { env: OTHERS_SECRET } }
    userinfo: merge
sites:
  - hosts: [localhost]
    providers: [staff, others]
    routes:
      - { path: /public/, upstream: app, access: public }
      - { path: /staff/, upstream: app, provider: staff, identity_headers: { X-User-Name: preferred_username } }
      - { path: /, upstream: app, identity_headers: { X-User-Name: preferred_username } }
`;

describe('with several providers', { concurrency: false }, () => {
  let stage, site, keycloak, certified, upstream;

  before(async () => {
    stage = await openStage('several');
    ({ site, upstream } = stage);
    const cloakroom = {
      client_id: 'cloakroom',
      client_secret: 'others-secret',
      token_endpoint_auth_method: 'client_secret_post',
      id_token_signed_response_alg: 'ES256',
      grant_types: ['authorization_code', 'refresh_token'],
      redirect_uris: [`${site}/auth/callback/others`],
      post_logout_redirect_uris: [`${site}/auth/logged-out`],
      backchannel_logout_uri: `${site}/auth/backchannel-logout`,
      backchannel_logout_session_required: true,
    };
    certified = await stage.keep(startCertified([cloakroom], fetchTrusting(readFileSync(stage.tls.certificate))));
    keycloak = await stage.keep(useKeycloak(stage.tls.certificate));
    await keycloak.moveClient(CLIENT, site);
    const secrets = { STAFF_SECRET: 'cloakroom-frames-secret', OTHERS_SECRET: 'others-secret' };
    await stage.raise(settings(keycloak.issuer, certified.issuer), secrets);
  });

  after(() => stage?.close());

  const choice = (page, title) => page.getByRole('link', { name: title, exact: true });

  /** A user who has chosen the provider with this title, and is logged in there. */
  async function loggedIn(title, name, path = '/') {
    const it = await stage.user();
    const page = await it.tab();
    await page.goto(`${site}${path}`);
    await choice(page, title).click();
    await (title === STAFF ? fillForm : fillCertified)(page, name);
    await page.waitForURL(`${site}${path}`);
    return { ...it, page };
  }

  test('a navigation leads to a page with a link for each provider, in their order', async () => {
    const page = await (await stage.user()).tab();
    const answer = await page.goto(`${site}/shop/cart?item=7`);
    assert.equal(new URL(page.url()).origin, site);
    assert.equal(answer.status(), 200);
    assert.match(answer.headers()['cache-control'], /no-store/);
    const links = page.getByRole('navigation').getByRole('link');
    assert.deepEqual((await links.allTextContents()).map((text) => text.trim()), [STAFF, OTHERS]);
    await shoot(page, 'several-choice');
  });

  for (const colorScheme of ['light', 'dark']) {
    test(`the choice fits a phone in ${colorScheme} colours`, async () => {
      const it = await stage.user({ viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true, colorScheme });
      const page = await it.tab();
      await page.goto(`${site}/`);
      await choice(page, OTHERS).waitFor();
      await shoot(page, `several-choice-phone-${colorScheme}`);
      const seen = await page.evaluate(() => {
        const root = document.documentElement;
        const luminance = (colour) => {
          const [r, g, b] = colour.match(/\d+/g).map((part) => Number(part) / 255)
            .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        return {
          sideways: root.scrollWidth - root.clientWidth,
          paper: luminance(getComputedStyle(document.body).backgroundColor),
          links: [...document.querySelectorAll('nav a')].map((link) => {
            const { left, right, height } = link.getBoundingClientRect();
            const { color, backgroundColor } = getComputedStyle(link);
            const [dark, bright] = [luminance(color), luminance(backgroundColor)].sort((a, b) => a - b);
            return { left, right, height, contrast: (bright + 0.05) / (dark + 0.05) };
          }),
        };
      });
      assert.equal(seen.sideways, 0, 'nothing is wider than the screen');
      assert.ok(colorScheme === 'dark' ? seen.paper < 0.1 : seen.paper > 0.8, `luminance ${seen.paper}`);
      assert.equal(seen.links.length, 2);
      for (const { left, right, height, contrast } of seen.links) {
        assert.ok(left >= 0 && right <= 360);
        assert.ok(height >= 44, `a thumb hits what is ${height} px high`);
        assert.ok(contrast >= 7, `contrast ${contrast}`);
      }
      await choice(page, OTHERS).tap();
      await fillCertified(page, 'bob');
      await page.waitForURL(`${site}/`);
      assert.equal(await page.locator('#user').textContent(), 'bob');
    });
  }

  test('each login ends where it began, with the token of its own provider, which is refreshed there', async () => {
    const deep = '/shop/cart?item=7&colour=dark%20red';
    const alice = await loggedIn(STAFF, 'alice', deep);
    const bob = await loggedIn(OTHERS, 'bob', deep);
    const consumed = certified.of('refresh_token.consumed').length;
    for (const [it, name] of [[alice, 'alice'], [bob, 'bob']]) {
      assert.equal(await it.page.locator('#user').textContent(), name);
      assert.equal(await it.page.locator('#path').textContent(), deep);
    }
    const path = { alice: '/api/alice', bob: '/api/bob' };
    await call(alice.page, path.alice);
    await call(bob.page, path.bob);
    const [first, second] = [path.alice, path.bob].map((path) => tokenOf(stage.last(path).headers));
    assert.equal(claimsOf(stage.last(path.alice).headers).iss, keycloak.issuer);
    assert.equal(second.split('.').length, 1, 'of the other provider they are opaque');
    await Promise.all([stage.tokenChanges(alice.page, path.alice, first), stage.tokenChanges(bob.page, path.bob, second)]);
    assert.equal(claimsOf(stage.last(path.alice).headers).iss, keycloak.issuer);
    assert.equal(tokenOf(stage.last(path.bob).headers).split('.').length, 1);
    assert.ok(certified.of('refresh_token.consumed').length > consumed);
    assert.deepEqual(certified.errors(), []);
  });

  test('a route of one provider knows no session of another and leads straight to its own login', async () => {
    const { page, cookie } = await loggedIn(OTHERS, 'bob');
    const ticket = (await cookie(SESSION)).value;
    const before = upstream.at('/staff/').length;
    const answer = await call(page, '/staff/api');
    assert.equal(answer.status, 401, answer.text);
    assert.equal(JSON.parse(answer.text).code, 'session_missing');
    assert.equal((await call(page, '/api/me')).status, 200, 'elsewhere the session counts');
    assert.equal(upstream.at('/staff/').length, before);
    await page.goto(`${site}/staff/rota`);
    assert.ok(page.url().startsWith(keycloak.issuer), `at Keycloak without a choice, not at ${page.url()}`);
    await fillForm(page, 'alice');
    await page.waitForURL(`${site}/staff/rota`);
    assert.equal(await page.locator('#user').textContent(), 'alice');
    assert.equal((await call(page, '/staff/api')).status, 200);
    assert.notEqual((await cookie(SESSION)).value, ticket);
    assert.equal(claimsOf(stage.last('/staff/api').headers).iss, keycloak.issuer);
  });

  test('an answer of one provider counts nothing at the address of another', async () => {
    const { tab, cookie } = await stage.user();
    const page = await tab();
    await page.goto(`${site}/mine`);
    const way = await stopAt(page, `${site}/auth/callback*`);
    await choice(page, STAFF).click();
    await fillForm(page, 'alice');
    const callback = new URL(await way.caught());
    assert.equal(callback.pathname, '/auth/callback');
    assert.ok(callback.searchParams.get('code'));
    const wrong = await page.goto(callback.href.replace('/auth/callback', '/auth/callback/others'));
    assert.ok(wrong.status() >= 400 && wrong.status() < 500, `status ${wrong.status()}`);
    assert.equal(await cookie(SESSION), undefined);
    assert.deepEqual(certified.errors(), [], 'the other provider was not shown the code');
    // A login has one answer: this one is used up, at its own address too.
    const late = await page.goto(callback.href);
    assert.ok(late.status() >= 400 && late.status() < 500, `status ${late.status()}`);
    assert.equal(await cookie(SESSION), undefined);
  });

  test('a logout leads to the provider of the session', async () => {
    for (const [title, name, issuer] of [[STAFF, 'alice', keycloak.issuer], [OTHERS, 'bob', certified.issuer]]) {
      const { page, cookie } = await loggedIn(title, name);
      await call(page, '/api/me');
      const redirect = await stage.logOut(page);
      assert.ok(redirect.startsWith(issuer), redirect);
      await page.goto(redirect);
      if (title === OTHERS) await page.locator('button[name=logout]').click();
      await page.waitForURL((url) => url.origin === site && url.pathname === '/auth/logged-out');
      assert.equal(await cookie(SESSION), undefined);
    }
  });

  test('a logout at one provider ends its session at once, by a frame of its page, and none of the other', async () => {
    const { page } = await loggedIn(STAFF, 'alice');
    const bystanders = [await loggedIn(STAFF, 'bob'), await loggedIn(OTHERS, 'alice')];
    const token = await stage.freshToken(page);
    const tab = await page.context().newPage();
    const frames = [];
    tab.on('request', (request) => frames.push(request.url()));
    await tab.goto(`${keycloak.issuer}/protocol/openid-connect/logout`);
    await tab.locator('#kc-logout').click();
    await stage.endsAtOnce(page, expiryOf(token));
    assert.ok(frames.some((url) => url.startsWith(`${site}/auth/frontchannel-logout?`)), 'told in a frame');
    for (const it of bystanders) assert.equal((await call(it.page, '/api/me')).status, 200);
    assert.match(await stage.proxy.metrics(), /cloakroom_logouts_total\{kind="frontchannel",provider="staff"\} 1/);
  });

  test('no browser was ever shown a token', () => stage.noTokenShown(upstream.tokens(), 60));

  test('nor did one get into the proxy’s log or metrics', () => stage.noneWritten(upstream.tokens()));
});
